"""What engines refuse, and how they end when asked to, or when too much is asked."""

import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from arrays import Arrays
from both_ways import chain, histories
from engines import Runner
from failing import fails

from simulators import errors
from simulators.catalog import NoiseKind
from simulators.circuit import ir
from simulators.circuit.ir import Circuit, bell, feed_forward
from simulators.circuit.noise import NoiseProgram
from simulators.engine import PauliSum, RunControl, RunOptions
from simulators.errors import Unsupported
from simulators.simulate import counts_of


def endless(n: int, gates: int) -> Circuit:
    """Work for much longer than any test may take."""
    arrays = Arrays(n, 1)
    for k in range(gates):
        arrays.add("u", [k % n], (), [0.1, 0.2, 0.3])
    return arrays.add("measure", [0], [0]).circuit()


def test_counts_of_circuit_without_measurement_are_refused(any_run: Runner) -> None:
    circuit = Arrays(2, 2).add("h", [0]).circuit()
    assert "measure" in fails(errors.Unsupported, "s nothing", any_run, circuit, shots=10).hint


def test_statevector_of_circuit_with_measurement_or_reset_is_refused(state_run: Runner) -> None:
    fails(errors.Unsupported, "the circuit measures", state_run, bell(), outputs=("statevector",))
    reset = Arrays(1, 0).add("h", [0]).add("reset", [0]).circuit()
    fails(errors.Unsupported, "resets", state_run, reset, outputs=("statevector",))


def test_no_shots_and_unknown_options_are_refused_by_name(any_run: Runner) -> None:
    fails(errors.Unsupported, "0 shots", any_run, bell())
    fails(errors.Unsupported, "wavefunction", any_run, bell(), outputs=("wavefunction",))
    fails(errors.Unsupported, "half", any_run, bell(), shots=1, precision="half")
    fails(errors.Unsupported, "no option 'bnd'", any_run, bell(), shots=1, settings=(("bnd", 3),))


@pytest.mark.parametrize("kind", ["kraus", "pauli", "readout"])
def test_noise_kind_missing_from_engine_card_is_refused(any_run: Runner, kind: NoiseKind) -> None:
    noise = NoiseProgram(b"digest", frozenset({kind}), np.zeros((0, 4), np.int64))
    if kind in any_run.card.noise.kinds:
        any_run.engine.plan(bell(), noise, RunOptions())
        return
    fails(errors.Unsupported, "noise", any_run.engine.plan, bell(), noise, RunOptions())


def test_circuit_larger_than_memory_is_refused_with_hint(dense_run: Runner) -> None:
    for width in (38, 60, 60_000):
        assert fails(errors.EngineError, "", dense_run, chain(width), shots=1).hint


@pytest.mark.parametrize("labels", [("Z",), ("ZZZ",), ("ZQ",), ("zz",), ("",)])
def test_invalid_pauli_string_is_refused(every_run: Runner, labels: tuple[str, ...]) -> None:
    observables = (PauliSum(labels, np.ones(1)),)
    with pytest.raises(errors.Unsupported, match="Pauli string"):
        every_run(bell(), outputs=("expectation",), observables=observables)


@pytest.mark.parametrize("weights", [[1.0, 2.0], [np.nan], [np.inf]])
def test_observable_of_wrong_weights_is_refused(every_run: Runner, weights: list[float]) -> None:
    observables = (PauliSum(("ZZ",), np.array(weights)),)
    with pytest.raises(errors.Unsupported, match="observable 0"):
        every_run(bell(), outputs=("expectation",), observables=observables)


def test_observable_without_pauli_strings_is_refused(every_run: Runner) -> None:
    """As at each door of the service."""
    empty = PauliSum((), np.zeros(0))
    for observables in ((empty,), (PauliSum(("ZZ",), np.ones(1)), empty)):
        with pytest.raises(errors.Unsupported, match="has no Pauli string") as caught:
            every_run(bell(), outputs=("expectation",), observables=observables)
        assert "leave" in caught.value.hint


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_thread_is_refused(any_run: Runner, threads: int) -> None:
    fails(errors.Unsupported, f"{threads} threads", any_run, bell(), shots=1, threads=threads)


def test_observable_with_x_on_measured_qubit_is_refused(every_run: Runner) -> None:
    circuit = Arrays(2, 1).add("h", [0]).add("h", [1]).add("measure", [1], [0]).circuit()
    result = every_run(
        circuit, outputs=("expectation",), observables=(PauliSum(("ZX",), np.ones(1)),)
    )
    assert result.expectations[0] == pytest.approx((0.0, 0.0), abs=1e-14)
    with pytest.raises(errors.Unsupported, match="measures at its end") as caught:
        every_run(circuit, outputs=("expectation",), observables=(PauliSum(("XI",), np.ones(1)),))
    assert "remove" in caught.value.hint


def test_missing_misshaped_or_nan_bindings_are_refused(any_run: Runner) -> None:
    arrays = Arrays(1, 1).add("rx", [0], (), [0.0])
    arrays.free(0)
    circuit = arrays.add("measure", [0], [0]).circuit()
    fails(errors.BadCircuit, "free parameters", any_run, circuit, shots=1)
    for values in (np.zeros((1, 2)), np.full((1, 1), np.nan)):
        fails(errors.BadCircuit, "", any_run, circuit, shots=1, bindings=values)


def test_circuit_with_more_than_max_steps_is_refused(any_run: Runner) -> None:
    for circuit in (endless(3, 1000), endless(13, 1000)):
        fails(errors.TooManySteps, "max_steps", any_run, circuit, shots=1, max_steps=1000)


def test_steps_of_all_branches_count_towards_max_steps(run: Runner) -> None:
    fails(errors.TooManySteps, "", run, histories(6, 6), shots=500, max_steps=100)


def test_max_branches_and_memory_limit_do_not_change_counts(run: Runner) -> None:
    circuit = histories(5, 5)
    free = run(circuit, shots=300)
    assert int(free.remark.split()[0]) > 8
    bound = run(circuit, shots=300, max_branches=3)
    assert int(bound.remark.split()[0]) <= 4
    assert counts_of(bound) == counts_of(free)
    assert counts_of(run(circuit, shots=300, memory_bytes=1)) == counts_of(free)


def test_exact_run_beyond_max_branches_is_refused(run: Runner) -> None:
    with pytest.raises(errors.TooManyBranches, match="3 distinct states") as caught:
        run(histories(5, 5), outputs=("probabilities",), max_branches=3)
    assert "shots" in caught.value.hint


def test_equal_branch_states_are_merged(run: Runner) -> None:
    arrays = Arrays(2, 20)
    for clbit in range(20):
        arrays.add("h", [0]).add("cx", [0, 1]).add("measure", [1], [clbit])
        arrays.add("reset", [0]).add("reset", [1])
    arrays.add("h", [0]).add("measure", [0], [0])
    result = run(arrays.circuit(), shots=2000)
    assert int(result.remark.split()[0]) <= 4
    assert len(counts_of(result)) > 1900


@pytest.mark.parametrize("width", [3, 14])
def test_running_circuit_stops_and_control_can_be_reused(run: Runner, width: int) -> None:
    control = RunControl()
    circuit = endless(width, 300_000)
    stopper = threading.Timer(0.2, control.stop)
    stopper.start()

    def run_until_stopped() -> None:
        while True:
            run(circuit, shots=10, control=control)

    fails(errors.Stopped, "", run_until_stopped)
    stopper.join()
    control.clear()
    assert counts_of(run(bell(), shots=5, control=control)).keys() <= {0, 3}


@pytest.mark.parametrize("width", [3, 14])
def test_stopped_run_returns_complete_statevector_or_none(run: Runner, width: int) -> None:
    arrays = Arrays(width, 0)
    for k in range(20_000):
        arrays.add("rx", [k % width], (), [np.pi / 4])
    circuit = arrays.circuit()
    outcome = run(circuit, outputs=("statevector",)).statevector
    for delay_s in (0.0, 0.001, 0.01, 0.05, 0.2):
        control = RunControl()
        stopper = threading.Timer(delay_s, control.stop)
        stopper.start()
        with suppress(errors.Stopped):
            statevector = run(circuit, outputs=("statevector",), control=control).statevector
            assert np.array_equal(statevector, outcome)
        stopper.join()


def test_stop_requested_before_run_is_honoured(any_run: Runner) -> None:
    control = RunControl()
    control.stop()
    fails(errors.Stopped, "", any_run, bell(), shots=10, control=control)


def test_stop_requested_before_dynamic_run_is_honoured(run: Runner) -> None:
    control = RunControl()
    control.stop()
    fails(errors.Stopped, "", run, feed_forward(), shots=10, control=control)


def test_circuit_without_qubits_has_its_phase_and_probability_1(state_run: Runner) -> None:
    result = state_run(Arrays(0, 0).circuit(), outputs=("probabilities", "statevector"))
    assert result.statevector is not None
    assert result.statevector.tolist() == [1.0]
    assert np.frombuffer(result.probabilities).tolist() == [1.0]
    circuit = Arrays(0, 0).add("global_phase", (), (), [0.3]).circuit()
    result = state_run(circuit, outputs=("statevector",))
    assert result.statevector is not None
    assert result.statevector.tolist() == pytest.approx([np.exp(0.3j)])


def test_mcx_on_14_qubits_runs_or_is_refused_by_name(any_run: Runner) -> None:
    circuit = Arrays(14, 1).add("x", [3]).add("mcx", range(14)).add("measure", [3], [0]).circuit()
    if any_run.card.gate_qubits:
        fails(errors.Unsupported, "mcx", any_run, circuit, shots=5)
    else:
        assert counts_of(any_run(circuit, shots=5)) == {1: 5}


@pytest.mark.parametrize("name", ["for", "while", "switch", "store"])
def test_control_flow_runs_or_is_refused_by_name_as_card_says(any_run: Runner, name: str) -> None:
    card = any_run.card
    arrays = Arrays(1, 1)
    if name == "for":
        arrays.repeat(2).add("x", [0]).add("end")
    elif name == "while":
        arrays.begin((ir.CLBIT, 0, 0), name="while").add("x", [0]).add("end")
    elif name == "switch":
        arrays.begin((ir.CLBIT, 0, 0), name="switch")
        arrays.begin((ir.VALUE, arrays.value(1), 0), name="case").add("x", [0]).add("end")
    else:
        arrays.begin((ir.VALUE, arrays.value(1), 0), (ir.SET_CLBIT, 0, 0), name="store")
    circuit = arrays.add("measure", [0], [0]).circuit()
    control = card.control
    runs = {"switch": control.switches, "store": control.variables}.get(name, control.loops)
    if runs:
        assert counts_of(any_run(circuit, shots=5)) == {0: 5}
        return
    fails(errors.Unsupported, f"has no '{name}'", any_run, circuit, shots=5)


def test_engine_instance_keeps_no_state_between_runs(run: Runner) -> None:
    first = run(feed_forward(), shots=50)
    run(histories(4, 4), shots=50)
    assert run(feed_forward(), shots=50) == first


Token = tuple[int, int, int]


def under(*gates: tuple[str, list[int]], tokens: tuple[Token, ...]) -> Circuit:
    arrays = Arrays(3, 3).add("h", [0]).add("measure", [0], [0]).add("measure", [0], [1])
    arrays.begin(*tokens)
    for name, wires in gates:
        arrays.add(name, wires)
    return arrays.add("end").add("measure", [1], [2]).circuit()


BIT = ((ir.CLBIT, 0, 0),)


BOTH = ((ir.CLBIT, 0, 0), (ir.CLBIT, 1, 0), (ir.LOGIC_AND, 0, 0))


def shifted() -> Circuit:
    arrays = Arrays(2, 8).add("h", [0]).add("measure", [0], [0])
    two = (ir.VALUE, arrays.value(2), 8)
    arrays.begin((ir.REGISTER, 0, 8), two, (ir.SHIFT_LEFT, 0, 8), two, (ir.EQUAL, 0, 0))
    return arrays.add("x", [1]).add("end").add("measure", [1], [1]).circuit()


REFUSED: dict[str, tuple[str, Circuit, tuple[str, ...], str]] = {
    "an angle": ("stabilizer", Arrays(1, 1).add("rz", [0], (), [0.3]).add("measure", [0], [0])
                 .circuit(), ("counts",), "operation 0 \\(rz\\): its angle 0.3 is no multiple"),
    "a gate": ("stabilizer", Arrays(1, 1).add("h", [0]).add("t", [0]).add("measure", [0], [0])
               .circuit(), ("counts",), "operation 1 \\(t\\): it is no Clifford gate"),
    "a gate of three": ("stabilizer", Arrays(3, 1).add("ccx", [0, 1, 2]).add("measure", [0], [0])
                        .circuit(), ("counts",), "operation 0 \\(ccx\\)"),
    "amplitudes": ("stabilizer", Arrays(1, 0).circuit(), ("statevector",), "has no output"),
    "h under a condition": ("stabilizer", under(("h", [1]), tokens=BIT), ("counts",), "only Pauli"),
    "a conjunction": ("stabilizer", under(("x", [1]), tokens=BOTH), ("counts",), "no parity"),
    "a reset under a condition": ("stabilizer", under(("reset", [1]), tokens=BIT), ("counts",),
                                  "'reset' under a condition"),
    "branches": ("contraction", feed_forward(), ("counts",), "before a circuit's end"),
    "a wide state": ("mps", Arrays(25, 0).circuit(), ("statevector",), "at most 24"),
    "a wide distribution": ("mps", Arrays(25, 0).circuit(), ("probabilities",), "at most 24"),
    "a shift": ("aer", shifted(), ("counts",), "cannot evaluate"),
    "a mixed distribution": ("aer", feed_forward(), ("probabilities",), "'probabilities'"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_unsupported_feature_is_refused(runner_of: Callable[[str], Runner], what: str) -> None:
    engine, circuit, outputs, value = REFUSED[what]
    shots = 10 if outputs == ("counts",) else 0
    with pytest.raises(Unsupported, match=value) as caught:
        runner_of(engine)(circuit, shots=shots, outputs=outputs)
    assert caught.value.hint
