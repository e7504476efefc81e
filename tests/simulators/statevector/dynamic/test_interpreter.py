"""The interpreter, and stacked states."""

import threading
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
from shot_by_shot import EndlessShot, counts, draw_of

from simulators.catalog import state_bytes
from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.engine import BindingResult, PauliSum, Request, RunControl, ThreadPool
from simulators.errors import Stopped, TooManySteps
from simulators.execution.sampling import draw_number
from simulators.simulate import counts_of
from simulators.statevector import execute as run_module
from simulators.statevector.backend import local
from simulators.statevector.dynamic import stacked_states
from simulators.statevector.dynamic.branches import WHILE_STEPS
from simulators.statevector.engine import StatevectorEngine

SHOTS = 12


def run(circuit: Circuit, shots: int = SHOTS, *outputs: str, **options: object) -> BindingResult:
    assert validation_error(circuit) == ""
    request = Request(shots, 3, outputs or ("counts",))
    return engine_runs.run(StatevectorEngine(), circuit, request, **options).row(0)


def exact(circuit: Circuit) -> dict[int, float]:
    return engine_runs.probabilities(run(circuit, 0, "probabilities"))


@settings(derandomize=True, deadline=None)
@given(circuit=looped_circuits())
def test_counts_of_looped_circuits_equal_single_shot_reference(circuit: Circuit) -> None:
    try:
        expected = counts(circuit, 3, SHOTS)
    except EndlessShot:
        assume(False)
    assert counts_of(run(circuit)) == expected


@settings(derandomize=True, deadline=None, max_examples=30)
@given(circuit=looped_circuits())
def test_counts_are_independent_of_shots_run_at_once(circuit: Circuit) -> None:
    try:
        result = counts_of(run(circuit, 40, max_steps=200_000))
    except TooManySteps:
        assume(False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "SHOTS_AT_ONCE", 7)
        assert counts_of(run(circuit, 40)) == result


@pytest.mark.parametrize("passes", [[], [0, 0], [1], [0, 1], [1, 0], [7, 10**6, 2**40]])
def test_draw_numbers_equal_reference(passes: list[int]) -> None:
    assert draw_number(5, passes) == draw_of(5, passes)


def until_one() -> Arrays:
    """h and measure again until 1 is found; the qubit is put back by x."""
    arrays = Arrays(1, 1)
    arrays.begin((ir.CLBIT, 0, 0), (ir.LOGIC_NOT, 0, 0), name="while")
    arrays.add("h", [0]).add("measure", [0], [0])
    arrays.begin((ir.CLBIT, 0, 0)).add("x", [0]).add("end")
    return arrays.add("end")


def test_repeat_until_success_loop_has_exact_distribution() -> None:
    arrays = until_one()
    assert exact(arrays.circuit()) == {1: pytest.approx(1.0, abs=1e-12)}
    assert counts_of(run(arrays.circuit(), 1000)) == {1: 1000}
    assert run(arrays.circuit(), 1000).remark == "3 branches"


def endless() -> Circuit:
    arrays = Arrays(2, 1)
    truth = (ir.VALUE, arrays.value(1), 0)
    arrays.begin(truth, name="while").add("h", [0]).add("end").add("measure", [0], [0])
    return arrays.circuit()


@pytest.mark.parametrize("outputs", [("counts", 100), ("probabilities", 0)])
def test_endless_loop_is_refused_at_max_steps(outputs: tuple[str, int]) -> None:
    with pytest.raises(TooManySteps, match="max_steps"):
        run(endless(), outputs[1], outputs[0], max_steps=50 * WHILE_STEPS)


def test_endless_loop_with_empty_body_is_refused_at_max_steps() -> None:
    arrays = Arrays(1, 1)
    arrays.begin((ir.VALUE, arrays.value(1), 0), name="while").add("end").add("measure", [0], [0])
    with pytest.raises(TooManySteps):
        run(arrays.circuit(), 10, max_steps=50 * WHILE_STEPS)


def test_endless_loop_can_be_stopped() -> None:
    control = RunControl()
    timer = threading.Timer(0.05, control.stop)
    timer.start()
    with pytest.raises(Stopped):
        engine_runs.run(
            StatevectorEngine(), endless(), Request(9, 1), control=control, max_steps=10**15
        )
    timer.join()


def test_repeated_measurement_in_loop_draws_new_random_numbers() -> None:
    """Each pass draws anew: 6 fair bits into 6 clbits are 64 outcomes, not 2."""
    arrays = Arrays(1, 6)
    number, outcome = arrays.variable(6), arrays.value(1)
    arrays.repeat(6).add("h", [0]).add("measure", [0], [0])
    tokens = (ir.VARIABLE, number, 6), (ir.VALUE, outcome, 6), (ir.SHIFT_LEFT, 0, 6)
    tokens += (ir.CLBIT, 0, 0), (ir.CAST, 0, 6), (ir.BIT_OR, 0, 6), (ir.SET_VARIABLE, number, 6)
    arrays.begin(*tokens, name="store").add("reset", [0]).add("end")
    arrays.begin((ir.VARIABLE, number, 6), (ir.SET_REGISTER, 0, 6), name="store")
    result = counts_of(run(arrays.circuit(), 64_000))
    assert set(result) == set(range(64))
    assert max(abs(value - 1000) for value in result.values()) < 5 * 1000**0.5


def test_loop_of_gates_has_statevector() -> None:
    arrays = Arrays(1, 0)
    arrays.repeat(3).add("ry", [0], (), [0.5]).add("end")
    state = run(arrays.circuit(), 0, "statevector").statevector
    assert np.allclose(state, [np.cos(0.75), np.sin(0.75)])


def test_break_and_continue_affect_innermost_loop_only() -> None:
    arrays = Arrays(2, 8, [("c", 4), ("d", 4)])
    outer, inner, one = arrays.variable(4), arrays.variable(4), arrays.value(1)
    two = arrays.value(2)

    def add(variable: int) -> None:
        more = (ir.VARIABLE, variable, 4), (ir.VALUE, one, 4), (ir.ADD, 0, 4)
        arrays.begin(*more, (ir.SET_VARIABLE, variable, 4), name="store")

    arrays.repeat(5)
    add(outer)
    arrays.repeat(7)
    test = (ir.VARIABLE, outer, 4), (ir.VALUE, two, 4), (ir.EQUAL, 0, 0)
    arrays.begin(*test).add("continue").add("end")
    add(inner)
    arrays.add("break").add("end").add("end")
    arrays.begin((ir.VARIABLE, outer, 4), (ir.SET_REGISTER, 0, 4), name="store")
    arrays.begin((ir.VARIABLE, inner, 4), (ir.SET_REGISTER, 1, 4), name="store")
    arrays.add("measure", [0], [7])
    assert counts_of(run(arrays.circuit(), 3)) == {5 | 4 << 4: 3}


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_unitary_matrix_acts_on_its_qubits(count: int, precision: str) -> None:
    rng = np.random.default_rng(count)
    qubits = rng.permutation(11)[:count].tolist()
    arrays = Arrays(11, 0)
    for qubit in range(11):
        arrays.add("ry", [qubit], (), [0.3 + qubit])
    before = run(arrays.circuit(), 0, "statevector").statevector
    matrix = random_unitary(2**count, seed=count).data
    result = run(arrays.unitary(matrix, qubits).circuit(), 0, "statevector", precision=precision)
    expected = apply(np.array(before), matrix, tuple(qubits))
    assert np.abs(result.statevector - expected).max() < (1e-12 if precision == "double" else 1e-5)


def test_matrix_result_is_identical_for_1_and_3_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulators.statevector import state

    arrays = Arrays(10, 0)
    for qubit in range(10):
        arrays.add("ry", [qubit], (), [0.3 + qubit])
    arrays.unitary(random_unitary(8, seed=1).data, [7, 2, 5])
    alone = run(arrays.circuit(), 0, "statevector").statevector
    monkeypatch.setattr(state, "_ALONE", 2)
    monkeypatch.setattr(state, "_GRAIN", 64)
    statevector = run(arrays.circuit(), 0, "statevector", threads=3).statevector
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
