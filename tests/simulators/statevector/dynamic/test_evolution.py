"""Branches of dynamic circuits: matrices on their states, and stacked states."""

import weakref
from pathlib import Path

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from hypothesis import assume, given, settings
from looped_circuits import looped_circuits
from qiskit.quantum_info import random_unitary
from reference import apply
from shot_by_shot import counts

from simulators.catalog import state_bytes
from simulators.circuit.ir import Circuit
from simulators.engine import BindingResult, PauliSum, Request, ThreadPool
from simulators.errors import TooManySteps
from simulators.simulate import counts_of
from simulators.statevector.backend import local
from simulators.statevector.dynamic import stacked_states
from simulators.statevector.engine import StatevectorEngine


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_unitary_matrix_acts_on_its_qubits(count: int, precision: str) -> None:
    rng = np.random.default_rng(count)
    qubits = rng.permutation(11)[:count].tolist()
    arrays = Arrays(11, 0)
    for qubit in range(11):
        arrays.add("ry", [qubit], (), [0.3 + qubit])
    before = run_stacked(arrays.circuit(), 0, "statevector").statevector
    matrix = random_unitary(2**count, seed=count).data
    result = run_stacked(
        arrays.unitary(matrix, qubits).circuit(), 0, "statevector", precision=precision
    )
    expected = apply(np.array(before), matrix, tuple(qubits))
    assert np.abs(result.statevector - expected).max() < (1e-12 if precision == "double" else 1e-5)


def test_matrix_result_is_identical_for_1_and_3_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulators.statevector import state

    arrays = Arrays(10, 0)
    for qubit in range(10):
        arrays.add("ry", [qubit], (), [0.3 + qubit])
    arrays.unitary(random_unitary(8, seed=1).data, [7, 2, 5])
    alone = run_stacked(arrays.circuit(), 0, "statevector").statevector
    monkeypatch.setattr(state, "_ALONE", 2)
    monkeypatch.setattr(state, "_GRAIN", 64)
    statevector = run_stacked(arrays.circuit(), 0, "statevector", threads=3).statevector
    assert alone.tobytes() == statevector.tobytes()


SLOW = Path(__file__).parents[5] / "shared" / "circuits" / "slow_dynamic"


def run_stacked(circuit: Circuit, shots: int, *outputs: str, **options: object) -> BindingResult:
    sums = (PauliSum(("Z" * circuit.num_qubits, "X" * circuit.num_qubits), np.array([1.0, 0.5])),)
    request = Request(shots, 3, outputs or ("counts",), sums if "expectation" in outputs else ())
    return engine_runs.run(StatevectorEngine(), circuit, request, **options).row(0)


def separately(circuit: Circuit, shots: int, *outputs: str, **options: object) -> BindingResult:
    """The same with a state of its own for each branch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "MOST_QUBITS", -1)
        return run_stacked(circuit, shots, *outputs, **options)


def split(angles: list[float], *, final: bool = True) -> Circuit:
    """Measure every qubit of a rotated, entangled state twice: a branch for each outcome. Unless
    the second measurement is `final`, a rotation follows it."""
    count = len(angles)
    arrays = Arrays(count, 2 * count)
    for qubit, angle in enumerate(angles):
        arrays.add("ry", [qubit], (), [angle])
    for qubit in range(count - 1):
        arrays.add("cx", [qubit, qubit + 1])
    arrays.measure(range(count))
    for qubit in range(count):
        arrays.add("h", [qubit]).add("measure", [qubit], [count + qubit])
        if not final:
            arrays.add("ry", [qubit], (), [0.7])
    return arrays.circuit()


@settings(derandomize=True, deadline=None, max_examples=20)
@given(circuit=looped_circuits())
def test_stacked_and_separate_states_give_equal_counts_and_probabilities(circuit: Circuit) -> None:
    try:
        result = run_stacked(circuit, 40, max_steps=200_000)
        exact = engine_runs.probabilities(
            run_stacked(circuit, 0, "probabilities", max_steps=200_000)
        )
    except TooManySteps:
        assume(False)
    apart = separately(circuit, 40)
    assert counts_of(result) == counts_of(apart)
    assert result.remark == apart.remark
    others = engine_runs.probabilities(separately(circuit, 0, "probabilities"))
    for value in exact.keys() | others.keys():
        assert exact.get(value, 0.0) == pytest.approx(others.get(value, 0.0), abs=1e-12)


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("threads", [1, 3])
def test_outputs_of_many_branches_agree_for_all_widths(precision: str, threads: int) -> None:
    rng = np.random.default_rng(1)
    for width in (1, 3, 8):
        angles = rng.uniform(0.3, 2.8, width).tolist()
        for outputs, shots in ((("counts",), 3000), (("expectation",), 0), (("expectation",), 90)):
            circuit = split(angles, final=outputs == ("counts",))
            result = run_stacked(circuit, shots, *outputs, precision=precision, threads=threads)
            other = separately(circuit, shots, *outputs, precision=precision)
            assert counts_of(result) == counts_of(other)
            assert np.allclose(result.expectations, other.expectations, rtol=0, atol=1e-12)


def test_kernel_calls_do_not_grow_with_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = ThreadPool.run
    monkeypatch.setattr(
        ThreadPool,
        "run",
        lambda thread_pool, work, *range_: calls.append(1) or original(thread_pool, work, *range_),
    )
    table = {}
    for angles in ([1.1] * 3 + [0.0] * 5, [1.1] * 8):
        calls.clear()
        result = run_stacked(split(angles), 4000)
        table[int(result.remark.split()[0])] = len(calls)
    few, value = sorted(table)
    assert few <= 16
    assert value >= 200
    assert table[value] <= 2 * table[few]


@pytest.mark.skipif(not SLOW.is_dir(), reason=f"there is no {SLOW}")
def test_circuits_with_hundreds_of_branches_equal_single_shots() -> None:

    from simenv.client.circuits import load
    from simenv.errors import ProgramError

    judged = 0
    for path in sorted(SLOW.iterdir()):
        try:
            program = load(path).program
        except ProgramError:  # of a file that the installed Qiskit cannot read
            continue
        circuit = Circuit.from_program(program)
        assert counts_of(run_stacked(circuit, 60)) == counts(circuit, 3, 60)
        judged += 1
    assert judged


def test_branch_states_stay_within_granted_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    width, value = 8, 100
    row_bytes = 16 << width
    entries: list[weakref.ref[np.ndarray]] = []
    peak = 0
    original = stacked_states.room

    def room(count: int, dtype: np.dtype) -> tuple[np.ndarray, bool]:
        nonlocal peak
        outcome = original(count, dtype)
        entries.append(weakref.ref(outcome[0]))
        arrays = [each for ref in entries if (each := ref()) is not None]
        peak = max(peak, sum(each.nbytes for each in arrays))
        return outcome

    monkeypatch.setattr(stacked_states, "room", room)
    circuit = split([1.1] * width)
    result = run_stacked(circuit, 4000, memory_bytes=value * state_bytes(width))
    assert int(result.remark.split()[0]) > value // 2
    assert peak <= (value + stacked_states._FIRST) * row_bytes
    assert counts_of(result) == counts_of(run_stacked(circuit, 4000))
