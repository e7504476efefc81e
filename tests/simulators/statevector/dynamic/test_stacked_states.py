"""Narrow states of many branches in one array, against one state for each branch."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from arrays import Arrays
from hypothesis import assume, given, settings
from looped_circuits import looped_circuits
from shot_by_shot import counts

from simulators.catalog import state_bytes
from simulators.circuit.ir import Circuit
from simulators.control import RunControl, ThreadPool
from simulators.engine import PauliSum, Request, RunOptions
from simulators.errors import TooManySteps
from simulators.execution.sampling import unpack
from simulators.results import BindingResult
from simulators.simulate import counts_of
from simulators.statevector.backend import local
from simulators.statevector.dynamic import stacked_states
from simulators.statevector.engine import StatevectorEngine

SLOW = Path(__file__).parents[5] / "shared" / "circuits" / "slow_dynamic"


def run(circuit: Circuit, shots: int, *outputs: str, **options: object) -> BindingResult:
    engine, chosen = StatevectorEngine(), RunOptions(**options)  # type: ignore[arg-type]
    sums = (PauliSum(("Z" * circuit.num_qubits, "X" * circuit.num_qubits), np.array([1.0, 0.5])),)
    request = Request(shots, 3, outputs or ("counts",), sums if "expectation" in outputs else ())
    plan = engine.plan(circuit, None, chosen)
    return engine.run(plan, circuit, request, chosen, RunControl()).row(0)


def separately(circuit: Circuit, shots: int, *outputs: str, **options: object) -> BindingResult:
    """The same with a state of its own for each branch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "MOST_QUBITS", -1)
        return run(circuit, shots, *outputs, **options)


def probs(found: BindingResult) -> dict[int, float]:
    values = unpack(found.probability_outcomes, found.probability_width)
    return dict(zip(values, np.frombuffer(found.probabilities).tolist(), strict=True))


def split(angles: list[float], *, final: bool = True) -> Circuit:
    """Measure every qubit of a rotated, entangled state twice: a branch for each outcome. Unless
    the second measurement is `final`, a rotation follows it."""
    count = len(angles)
    arrays = Arrays(count, 2 * count)
    for qubit, angle in enumerate(angles):
        arrays.add("ry", [qubit], (), [angle])
    for qubit in range(count - 1):
        arrays.add("cx", [qubit, qubit + 1])
    for qubit in range(count):
        arrays.add("measure", [qubit], [qubit])
    for qubit in range(count):
        arrays.add("h", [qubit]).add("measure", [qubit], [count + qubit])
        if not final:
            arrays.add("ry", [qubit], (), [0.7])
    return arrays.circuit()


@settings(derandomize=True, deadline=None, max_examples=20)
@given(circuit=looped_circuits())
def test_stacked_and_separate_states_give_equal_counts_and_probabilities(circuit: Circuit) -> None:
    try:
        result = run(circuit, 40, max_steps=200_000)
        exact = probs(run(circuit, 0, "probabilities", max_steps=200_000))
    except TooManySteps:
        assume(False)
    apart = separately(circuit, 40)
    assert counts_of(result) == counts_of(apart)
    assert result.remark == apart.remark
    others = probs(separately(circuit, 0, "probabilities"))
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
            result = run(circuit, shots, *outputs, precision=precision, threads=threads)
            other = separately(circuit, shots, *outputs, precision=precision)
            assert counts_of(result) == counts_of(other)
            assert np.allclose(result.expectations, other.expectations, rtol=0, atol=1e-12)


def test_number_of_kernel_calls_is_independent_of_number_of_branches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
        result = run(split(angles), 4000)
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
        assert counts_of(run(circuit, 60)) == counts(circuit, 3, 60)
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
    result = run(circuit, 4000, memory_bytes=value * state_bytes(width))
    assert int(result.remark.split()[0]) > value // 2
    assert peak <= (value + stacked_states._FIRST) * row_bytes
    assert counts_of(result) == counts_of(run(circuit, 4000))
