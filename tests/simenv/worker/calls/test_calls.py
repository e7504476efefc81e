"""Calls in a worker without its sockets: who is trusted, what stops, what is kept."""

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import cloudpickle
import msgspec
import pytest
from failing import fails
from qiskit import QuantumCircuit
from user_programs import by_value
from watched_progress import WatchedControl

from simenv.errors import OptionError, ProgramError
from simenv.model import TaskOptions, TaskState
from simenv.model.calls import (
    CALL_FORMAT,
    FUNCTIONS,
    PYTHON,
    TRANSPILER,
    FunctionAnswer,
    FunctionCall,
    TranspileCall,
    report_progress,
)  # fmt: skip
from simenv.model.devices import DeviceInfo, DeviceKind, GateInfo
from simenv.model.options import VALUE
from simenv.transpiler import qpy
from simenv.wire import codec
from simenv.wire.messages.client import STATES, AssignChunk, AssignedTask, AttemptResult
from simenv.worker import calls
from simenv.worker.calls import FunctionEngine, TranspilerEngine
from simenv.worker.runner import Runner
from simulators.engine import RunControl
from simulators.errors import Stopped

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36  # linux/prctl.h
TRUSTED = AssignedTask(1, 1, 0, b"", 0, 0, b"", 0, trusted=True)
TERMS = TaskOptions(outputs=(VALUE,))


@pytest.fixture(autouse=True)
def engines_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process must not stay the parent of what other tests leave."""
    made: list[FunctionEngine] = []
    create = FunctionEngine.__init__

    def recorded(self: FunctionEngine, *args: Any) -> None:
        create(self, *args)
        made.append(self)

    monkeypatch.setattr("simenv.worker.functions.on_exit", lambda _: None)
    monkeypatch.setattr(FunctionEngine, "__init__", recorded)
    yield
    for each in made:
        each.close()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def pickled(function: object, *args: object) -> FunctionCall:
    return FunctionCall(CALL_FORMAT, PYTHON, "f", cloudpickle.dumps((function, args, {})))


def ran(call: FunctionCall, trusted: bool) -> AttemptResult:
    task = AssignedTask(1, 1, 0, codec.encode(call), 0, 0, b"", 0, trusted=trusted)
    chunk = AssignChunk(1, 2**30, False, FUNCTIONS, "test", [TERMS], [task])
    return Runner().run(task, TERMS, chunk, time.perf_counter_ns())


def test_calls_are_of_the_environments_user_and_timed() -> None:
    result = ran(pickled(pow, 2, 5), trusted=True)
    assert STATES[result.state] is TaskState.DONE
    answer = msgspec.msgpack.decode(codec.result_data(result.payload).value, type=FunctionAnswer)
    assert cloudpickle.loads(answer.pickled) == 32
    result = ran(pickled(pow, 2, 5), trusted=False)
    assert STATES[result.state] is TaskState.FAILED
    assert "own user alone" in codec.failure(result.payload).message
    result = ran(pickled(time.sleep, 0.05), trusted=True)
    assert result.engine_us >= 50_000
    assert (result.decode_us, result.plan_us) == (0, 0)


@pytest.mark.parametrize("waits", [True, False])
def test_function_is_interrupted_and_the_next_one_is_not(waits: bool) -> None:
    engine, control = FunctionEngine(), RunControl()
    timer = threading.Timer(0.1, control.stop)
    timer.start()
    endless = pickled(time.sleep, 600)
    if not waits:
        endless = pickled(lambda: [None for _ in iter(int, 1)])
    fails(Stopped, "", engine.call, endless, TRUSTED, TERMS, control)
    timer.join()
    control.clear()
    assert engine.call(pickled(pow, 2, 5), TRUSTED, TERMS, control)
    control.stop()
    fails(Stopped, "", engine.call, pickled(pow, 2, 5), TRUSTED, TERMS, control)


@by_value
def iterated(count: int) -> int:
    for number in range(count):
        report_progress(number + 1, count)
    return count


def test_progress_that_a_function_reports_is_that_of_its_task() -> None:
    engine, control = FunctionEngine(), WatchedControl()
    assert engine.call(pickled(iterated, 4), TRUSTED, TERMS, control)
    assert [each.fraction for each in control.seen] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert control.progress == ("iterations", 4, 4, 1.0, 0.0)
    assert iterated(3) == 3  # without effect outside of the environment
    assert control.progress.total == 4


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((5, 4), "progress of 5 of 4"), ((1, 10**30), "progress of 1 of 10"),
        ((-1, 4), "progress of -1 of 4"), ((1, "4"), "progress of 1 of '4'"),
        ((float("nan"), 4), "progress of nan of 4"), ((1, 4, "Rounds!"), "progress in 'Rounds!'"),
        ((1, 4, ""), "progress in ''"),
    ],
)  # fmt: skip
def test_progress_that_is_no_part_is_refused(values: tuple, text: str) -> None:
    fails(OptionError, text, report_progress, *values)


def chain(name: str = "chain") -> DeviceInfo:
    entries = (GateInfo("rz", 1, 1), GateInfo("sx", 1, 0), GateInfo("cz", 2, 0))
    return DeviceInfo(
        name, DeviceKind.EMULATED, "", "", "", "", 3, 0, entries, False, False, ((0, 1), (1, 2))
    )


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    circuit.h(0)
    circuit.cx(0, 2)
    return circuit


def test_transpilers_are_kept_by_device_level_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_TRANSPILERS", 2)
    engine, control = TranspilerEngine(), RunControl()
    files = (qpy.write_qpy(bell()), qpy.write_qpy(bell()))
    answers = []
    for name, level in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 1)):
        call = TranspileCall(CALL_FORMAT, codec.encode(chain(name)), level, 7, 99, 0, files)
        answers.append(engine.call(call, TRUSTED, TERMS, control))
        assert len(engine._cache) <= 2
    assert answers[0] == answers[1] == answers[2] == answers[4]
    assert control.progress[:4] == ("circuits", 10, 10, 1.0)
    control.stop()
    fails(Stopped, "", engine.call, call, TRUSTED, TERMS, control)


COUNT_THREADS = """
import sys, psutil, cloudpickle
from simenv.worker.calls import TranspilerEngine
from simulators.engine import RunControl
before = psutil.Process().num_threads()
TranspilerEngine().call(*cloudpickle.load(sys.stdin.buffer), RunControl())
print(psutil.Process().num_threads() - before)
"""


def threads_of_a_compilation(setting: dict[str, str]) -> int:
    files = (qpy.write_qpy(bell()),)
    call = TranspileCall(CALL_FORMAT, codec.encode(chain()), 2, 7, 99, 0, files)
    unset = {key: value for key, value in os.environ.items() if key != "RAYON_NUM_THREADS"}
    argv, sent = [sys.executable, "-c", COUNT_THREADS], cloudpickle.dumps((call, TRUSTED, TERMS))
    return int(subprocess.check_output(argv, input=sent, env=unset | setting))


def test_transpiler_runs_on_one_thread_unless_set_otherwise() -> None:
    result = threads_of_a_compilation({"RAYON_NUM_THREADS": "1"})
    assert threads_of_a_compilation({}) == result
    assert threads_of_a_compilation({"RAYON_NUM_THREADS": "3"}) == result + 2


def test_circuit_that_does_not_fit_is_named_by_its_callers_number() -> None:
    call = TranspileCall(
        CALL_FORMAT, codec.encode(chain()), 1, 7, 99, 8,
        (qpy.write_qpy(bell()), qpy.write_qpy(QuantumCircuit(4))),
    )  # fmt: skip
    with pytest.raises(ProgramError, match="circuit 9: the circuit has 4 qubits; device chain"):
        TranspilerEngine().call(call, TRUSTED, TERMS, RunControl())
    assert TranspilerEngine.name == TRANSPILER
