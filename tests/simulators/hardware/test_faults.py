"""What a machine does wrong becomes an error that says what it was; it is never a result."""

from __future__ import annotations

import threading

import machines
import pytest
from arrays import Arrays
from qiskit import QuantumCircuit

from simulators.control import RunControl
from simulators.engine import Request, RunOptions
from simulators.errors import BadAnswer, EngineError, MachineFailed, MachineRefused, Stopped
from simulators.hardware.engine import HardwareEngine
from simulators.hardware.jobs import Machine


def run_of(
    fault: str,
    control: RunControl | None = None,
    machine: machines.Faulty | None = None,
    outputs: tuple[str, ...] = ("counts",),
) -> None:
    engine = HardwareEngine(machine or machines.Faulty())
    width = machines.QUBITS[fault]
    circuit = Arrays(width, width).add("h", [0]).add("measure", [0], [0]).circuit()
    plan = engine.plan(circuit, None, RunOptions())
    request = Request(10, 1, outputs=outputs)
    engine.run(plan, circuit, request, RunOptions(), control or RunControl())


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
def test_provider_fault_raises_typed_error_with_hint(
    fault: str, kind: type[EngineError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        run_of(fault)
    assert caught.value.hint


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
    with pytest.raises(BadAnswer, match=words) as caught:
        run_of(fault, outputs=("memory",))
    assert ("outputs='counts'" in caught.value.hint) == words.startswith("no memory")


def test_stopped_job_is_cancelled() -> None:
    control = RunControl()
    machine = machines.Faulty(when_asked=control.stop)
    with pytest.raises(Stopped, match="job-17 was cancelled"):
        run_of("slow", control, machine)
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
    with pytest.raises(MachineFailed, match="CANCELLED"):
        outcome.counts([slow], 10, (1, 0), RunControl())
    leaver.join()
    assert left == [False]
    assert machine.cancelled == 1
    with pytest.raises(Stopped, match="this process ends"):
        outcome.counts([slow], 10, (1, 0), RunControl())
    assert len(machine.asked) == 1


def test_stop_does_not_wait_for_job_that_cannot_be_cancelled() -> None:
    control = RunControl()
    with pytest.raises(Stopped, match="did not cancel job job-17: RuntimeError: cannot"):
        run_of("stubborn", control, machines.Faulty(when_asked=control.stop))


def test_stop_before_submission_submits_no_job() -> None:
    machine, control = machines.Faulty(), RunControl()
    control.stop()
    with pytest.raises(Stopped):
        run_of("slow", control, machine)
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
