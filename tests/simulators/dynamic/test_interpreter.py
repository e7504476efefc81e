"""Control flow: loops, conditions and variables, by the statevector engine."""

import threading

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from hypothesis import assume, given, settings
from looped_circuits import looped_circuits
from shot_by_shot import EndlessShot, counts, draw_of

from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.engine import BindingResult, Request, RunControl
from simulators.errors import Stopped, TooManySteps
from simulators.execution.philox import draw_number
from simulators.simulate import counts_of
from simulators.statevector import execute as run_module
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
