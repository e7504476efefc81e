"""The general path: tiles, groups of shots, and which states count as equal."""

import engine_runs
import numpy as np
import pytest
from arrays import Arrays
from reference import Reference

from simulators.circuit import ir
from simulators.circuit.ir import Circuit
from simulators.engine import BindingResult, PauliSum, Request, RunControl, RunOptions, ThreadPool
from simulators.simulate import counts_of, simulate
from simulators.statevector import execute
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.state import State


def dense(circuit: Circuit, *outputs: str, shots: int = 0, **options: object) -> BindingResult:
    engine, request = StatevectorEngine(small=False), Request(shots, 3, outputs)
    return engine_runs.run(engine, circuit, request, **options).row(0)


def test_counts_of_14_qubit_dynamic_circuit_equal_reference() -> None:
    """Measurements, resets and conditions on more than one block of amplitudes."""
    arrays = Arrays(14, 16)
    for q in range(14):
        arrays.add("ry", [q], (), [0.4 + 0.3 * q])
        arrays.add("cx", [q, (q + 5) % 14])
    arrays.add("measure", [13], [0]).add("h", [13]).add("measure", [12], [1])
    arrays.add("h", [9]).add("reset", [0])
    arrays.begin((ir.CLBIT, 0, 0), (ir.CLBIT, 1, 0), (ir.BIT_XOR, 0, 0))
    arrays.add("rx", [3], (), [1.0]).add("else").add("swap", [2, 13]).add("end")
    for q in range(14):
        arrays.add("measure", [q], [q + 2])
    circuit = arrays.circuit()
    expected = Reference(circuit, 3, 0, 400).counts()
    for threads in (1, 2):
        assert counts_of(dense(circuit, "counts", shots=400, threads=threads)) == expected


def test_counts_are_independent_of_shots_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    static = Arrays(3, 3).add("h", [0]).add("cx", [0, 1]).add("ry", [2], (), [0.7])
    moving = Arrays(3, 3).add("h", [0]).add("measure", [0], [0]).add("cx", [0, 1]).add("h", [0])
    for arrays in (static, moving):
        for q in (0, 1, 2):
            arrays.add("measure", [q], [q])
        circuit = arrays.circuit()
        result = dense(circuit, "counts", shots=1000)
        monkeypatch.setattr(execute, "SHOTS_AT_ONCE", 64)
        assert dense(circuit, "counts", shots=1000) == result
        monkeypatch.undo()


def test_states_are_equal_up_to_phase_within_tolerance() -> None:
    rng = np.random.default_rng(0)
    result = rng.normal(size=2**13) + 1j * rng.normal(size=2**13)
    result /= np.linalg.norm(result)
    step = rng.normal(size=result.size) + 1j * rng.normal(size=result.size)
    step -= result * np.vdot(result, step)
    step /= np.linalg.norm(step)
    control = RunControl()
    with ThreadPool(1, control) as thread_pool:
        states = LocalBackend(thread_pool, control)
        for distance, equal in ((0.0, True), (0.5e-10, True), (2e-10, False), (1.0, False)):
            other = (result + distance * step) * np.exp(2.1j)
            assert protocol.equal_up_to_phase(states, State(result), State(other), 1e-10) == equal
        assert not protocol.equal_up_to_phase(states, State(result), State(step), 1e-10)


def test_plan_made_for_quarter_turns_serves_other_angles() -> None:
    """One structure, its angles first multiples of a quarter turn, then any, then those again."""
    engine, options = StatevectorEngine(small=False), RunOptions()
    plan, half = None, 0.5 * np.pi
    for angle in (half, 0.3, half, 2 * half):
        arrays = Arrays(13, 0)
        for qubit in range(12):
            arrays.add("ry", [qubit], (), [angle]).add("rxx", [qubit, qubit + 1], (), [angle])
            arrays.add("rx", [qubit], (), [-angle]).add("ry", [qubit], (), [-angle])
        circuit = arrays.circuit()
        plan = plan or engine.plan(circuit, None, options)
        result = engine.run(plan, circuit, Request(0, 1, ("statevector",)), options, RunControl())
        expected = dense(circuit, "statevector").statevector
        np.testing.assert_allclose(result.row(0).statevector, expected, atol=1e-12)


def test_impossible_outcome_creates_no_branch() -> None:
    arrays = Arrays(2, 3).add("x", [0]).add("measure", [0], [0]).add("h", [1])
    arrays.add("measure", [1], [1]).add("h", [1]).add("reset", [0]).add("measure", [0], [2])
    result = dense(arrays.circuit(), "probabilities")
    assert [*engine_runs.probabilities(result)] == [1, 3]
    assert result.remark == "2 branches"


def test_requesting_expectation_values_does_not_change_counts() -> None:
    """A trailing reset matters to the state, not to the clbits: both runs keep their own draws."""
    arrays = Arrays(1, 1).add("h", [0]).add("measure", [0], [0]).add("reset", [0])
    circuit = arrays.circuit()
    alone = simulate(circuit, shots=300, seed=2).row(0)
    observables = (PauliSum(("Z",), np.ones(1)),)
    both = simulate(
        circuit, shots=300, seed=2, outputs=("counts", "expectation"), observables=observables
    ).row(0)
    assert (alone.outcomes, alone.counts) == (both.outcomes, both.counts)
    assert both.expectations == ((1.0, 0.0),)
