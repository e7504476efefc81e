"""Faults and targets of hardware."""

import math
import threading
from typing import Any

import engine_runs
import machines
import pytest
from arrays import Arrays
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import Measure, Parameter
from qiskit.circuit.library import CXGate, RZGate, SXGate
from qiskit.providers import QubitProperties
from qiskit.transpiler import InstructionProperties, Target

from simulators.engine import Request, RunControl
from simulators.errors import BadAnswer, EngineError, MachineFailed, MachineRefused, Stopped
from simulators.hardware import engine
from simulators.hardware.jobs import Machine


def run_of(
    fault: str, control: RunControl | None = None, machine: machines.Faulty | None = None,
    outputs: tuple[str, ...] = ("counts",),
) -> None:  # fmt: skip
    hardware = engine.HardwareEngine(machine or machines.Faulty())
    width = machines.QUBITS[fault]
    circuit = Arrays(width, width).add("h", [0]).add("measure", [0], [0]).circuit()
    engine_runs.run(hardware, circuit, Request(10, 1, outputs), control=control)


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("refuse", MachineRefused, "'faulty' did not take the job: RuntimeError: closed for main"),
        ("no job", MachineFailed, "does not know the state of its NoneType"),
        ("error", MachineFailed, "ended job job-17 with ERROR: the fridge is warm"),
        ("unsure", MachineFailed, "the state of job job-17: ConnectionError: no route"),
        ("lose shots", BadAnswer, "9 shots, and 10 were asked for"),
        ("lose circuit", BadAnswer, "no counts of circuit 0"),
        ("wide", BadAnswer, "outcome '1{40}'; the circuit has 7 clbits"),
        ("other words", BadAnswer, "outcome 'up'; the circuit has 12 clbits"),
        ("half a count", BadAnswer, "9.5 times outcome '0{13}'"),
        ("no result", BadAnswer, "a dict instead of a Result"),
        ("no counts", BadAnswer, "a NoneType instead of counts"),
    ],
)
def test_provider_fault_is_error_with_hint(fault: str, kind: type[EngineError], words: str) -> None:
    assert fails(kind, words, run_of, fault).hint


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("lose shots", "9 shots, and 10 were asked for"),
        ("no result", "a dict instead of a Result"),
        ("wide", "no memory of its shots of circuit 0: AttributeError"),
        ("lose circuit", "no memory of its shots of circuit 0"),
    ],
)
def test_missing_memory_of_shots_raises_bad_answer(fault: str, words: str) -> None:
    caught = fails(BadAnswer, words, run_of, fault, outputs=("memory",))
    assert ("outputs='counts'" in caught.hint) == words.startswith("no memory")


def test_stopped_job_is_cancelled() -> None:
    control = RunControl()
    machine = machines.Faulty(when_asked=control.stop)
    fails(Stopped, "job-17 was cancelled", run_of, "slow", control, machine)
    assert machine.cancelled == 1


def test_abandon_waits_for_pending_submission_and_cancels_job() -> None:
    """Who leaves meanwhile waits for it, and cancels it; there is no other job then."""
    left: list[bool] = []

    def asked() -> None:
        leaver.start()
        left.append(was_left.wait(0.2))

    def leave() -> None:
        outcome.abandon()
        was_left.set()

    machine = machines.Faulty(when_asked=asked)
    outcome, was_left = Machine(machine), threading.Event()
    leaver, slow = threading.Thread(target=leave), QuantumCircuit(machines.QUBITS["slow"])
    fails(MachineFailed, "CANCELLED", outcome.counts, [slow], 10, (1, 0), RunControl())
    leaver.join()
    assert left == [False]
    assert machine.cancelled == 1
    fails(Stopped, "this process ends", outcome.counts, [slow], 10, (1, 0), RunControl())
    assert len(machine.asked) == 1


def test_stop_does_not_wait_for_job_that_cannot_be_cancelled() -> None:
    control = RunControl()
    with pytest.raises(Stopped, match="did not cancel job job-17: RuntimeError: cannot"):
        run_of("stubborn", control, machines.Faulty(when_asked=control.stop))


def test_stop_before_submission_submits_no_job() -> None:
    machine, control = machines.Faulty(), RunControl()
    control.stop()
    fails(Stopped, "", run_of, "slow", control, machine)
    assert machine.asked == []


@pytest.mark.parametrize(
    "word", ["1_0", "0b1", "+10", "-00", "0x_1", "0x", "0x8", "\u0661\u0660\u0661"]
)
def test_malformed_outcome_is_refused(word: str) -> None:
    with pytest.raises(BadAnswer, match="the circuit has 3 clbits"):
        Machine(machines.Faulty())._outcome(word, 3)


def test_binary_and_hexadecimal_outcomes_are_read() -> None:
    machine = Machine(machines.Faulty())
    assert [machine._outcome(word, 3) for word in ("1 10", "011", "0x7", "0x5")] == [
        6, 3, 7, 5
    ]  # fmt: skip


def test_result_without_readable_state_raises_bad_answer() -> None:
    class Mute:
        @property
        def success(self) -> bool:
            raise KeyError("success")

    with pytest.raises(BadAnswer, match="does not say its state: KeyError"):
        Machine(machines.Faulty())._counted(Mute(), 0, 1, 1)


def lopsided() -> Target:
    """Two qubits, coupled one way, about one of which nothing is known."""
    qubit_properties = QubitProperties(t1=50e-6, t2=70e-6, frequency=5.1e9)
    target = Target(num_qubits=2, dt=2e-9, qubit_properties=[qubit_properties, QubitProperties()])
    angle = Parameter("angle")
    target.add_instruction(RZGate(angle), {(0,): None, (1,): None})
    target.add_instruction(SXGate(), {(0,): InstructionProperties(35e-9, 1e-4), (1,): None})
    target.add_instruction(CXGate(), {(1, 0): InstructionProperties(300e-9, 0.01)})
    target.add_instruction(Measure(), {(0,): InstructionProperties(1e-6, 0.02), (1,): None})
    return target


def said(backend: Any) -> engine.MachineDescription:
    return engine.describe(backend, backend.target)


def test_target_properties_are_converted_and_unknown_ones_are_nan() -> None:
    result = engine.figures(lopsided())
    assert result.num_qubits == 2
    assert result.gates == (
        engine.TargetGate("rz", 1, 1), engine.TargetGate("sx", 1, 0), engine.TargetGate("cx", 2, 0)
    )  # fmt: skip
    assert (result.all_to_all, result.directed, result.coupling) == (False, True, ((1, 0),))
    assert result.dt_ns == pytest.approx(2.0)
    assert not result.dynamic
    first, second = result.qubits
    assert first.t1_us == pytest.approx(50)
    assert first.t2_us == pytest.approx(70)
    assert first.frequency_ghz == pytest.approx(5.1)
    assert (first.readout_error, first.readout_ns) == (0.02, pytest.approx(1000))
    assert all(math.isnan(figure) for figure in (second.t1_us, second.t2_us, second.readout_ns))
    operations = {(each.name, each.qubits): each for each in result.operations}
    assert operations["cx", (1, 0)].error == 0.01
    assert operations["cx", (1, 0)].duration_ns == pytest.approx(300)
    assert operations["measure", (0,)].duration_ns == pytest.approx(1000)
    assert math.isnan(operations["sx", (1,)].error)
    assert ("cx", (0, 1)) not in operations


def test_technology_of_ibm_backends_is_superconducting() -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    assert said(provider.FakeMontrealV2()).technology == "superconducting"
    assert said(machines.ideal()).technology == ""


def test_coupling_is_listed_unless_all_to_all() -> None:
    ideal = said(machines.ideal()).target
    assert (ideal.all_to_all, ideal.coupling, ideal.qubits) == (True, (), ())
    assert ideal.dynamic
    assert {"measure", "reset", "if_else"} <= {each.name for each in ideal.operations}
    assert "if_else" not in {gate.name for gate in ideal.gates}
    line = said(machines.noisy())
    assert line.target.coupling == ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2), (3, 4), (4, 3))
    assert not line.target.directed
    assert (line.model, line.provider, line.calibration_id) == ("generic_backend_5q", "qiskit", "")
    anywhere = said(machines.aer()).target
    assert anywhere.all_to_all
    assert anywhere.coupling == ()


def test_description_has_name_version_and_shot_limit_of_backend() -> None:
    result = said(machines.Faulty(max_shots=4000))
    assert (result.model, result.version, result.max_shots) == ("faulty", "7", 4000)
    assert said(machines.Faulty()).max_shots == 2**31 - 1


def test_description_of_fake_ibm_backend_has_calibration_time() -> None:
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    result = said(provider.FakeMontrealV2())
    assert (result.model, result.target.num_qubits) == ("fake_montreal", 27)
    assert result.calibration_id.startswith("20")
    assert 1.5e9 < result.calibrated_s < 2e9
    assert all(figure.t1_us > 1 for figure in result.target.qubits)
    errors = [each.error for each in result.target.operations if each.name == "cx"]
    assert 0 < min(errors) < max(errors) <= 1
