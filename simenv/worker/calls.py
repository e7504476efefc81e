"""Calls of functions in workers: the engines that run no circuits.

Engine `functions`: Python functions of the environment's own user, and of the owners of keys in a
process that is confined to one account. No other module of a worker unpickles bytes. A function
runs in the main thread. A signal stops it: the handler raises `Interrupted` in that thread. The
service kills a worker whose function does not end after that.

Run the calls among assigned tasks, and pack the values that they return. Invariant: an engine that
unpickles bytes is called only for tasks of the environment's own user, whatever the service has
admitted, unless the process is confined.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Protocol

from simenv.errors import ProgramError
from simenv.model import RESULT_FORMAT, DeviceRecord, ResultData, ResultFile, TaskOptions, calls
from simenv.model.pulses import EMULATORS, RYDBERG, PulseCall, settled
from simenv.transpiler import qiskit_runtime, qpy
from simenv.transpiler.transpiler import Transpiler
from simenv.wire import codec
from simenv.wire.messages.client import AssignChunk, AssignedTask
from simenv.worker.result_files import ResultFileWriter, RunCheckpoints
from simulators.engine import RunControl
from simulators.errors import EngineError, Stopped, Unsupported

if TYPE_CHECKING:
    from simenv.worker.analog.device import PulseDevice
    from simenv.worker.noise import Noise


class CallFailed(EngineError):
    """A called function failed; the message quotes its error."""

    code = "function"


class ValueTooLarge(EngineError):
    """The value of a call is larger than the limit of a result."""

    code = "limit"


# The packed answer to a call; if it is of a device, that, and the nanoseconds there.
CallValue = tuple[bytes, DeviceRecord | None, int]


class CallEngine(Protocol):
    """Engine that executes calls of one kind."""

    name: str

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> CallValue:
        """Return the answer to the call of this task. Raises Stopped, EngineError, SimenvError."""

    def warm_up(self) -> None:
        """Load the modules that a first call needs."""


POLL_S = 0.05  # between two checks of the flag of the control
TRACE_CHARS = 1_500  # of the end of a traceback
VALUE_CHARS = 300  # of the error's own text
_MISSING_MODULE = (
    "the worker does not find that module: start the environment in its folder, install it,"
    " or send it along with cloudpickle.register_pickle_by_value(module)"
)


class Interrupted(BaseException):
    """Exception that stops a function; `except Exception` does not catch it."""


class FunctionEngine:
    """Engine that calls one function at a time, in the main thread."""

    name = calls.FUNCTIONS

    def __init__(self, *, confined: bool = False) -> None:
        self._interruption = _Interruption()
        self._confined = confined

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> CallValue:
        """See `CallEngine`. Raises CallFailed with the traceback of the function's error,
        Unsupported for functions of other owners or another version of Python."""
        del terms
        assert isinstance(call, calls.FunctionCall)
        if not (assigned.trusted or self._confined):
            hint = "connect without a key, as that user, where the environment runs"
            raise Unsupported("functions of the environment's own user alone are called", hint=hint)
        if call.python != calls.PYTHON:
            versions = f"by Python {call.python}; this worker has {calls.PYTHON}"
            text = f"the function was pickled {versions}"
            raise Unsupported(text, hint="use one version of Python on both sides")
        control.check()
        try:
            with self._interruption.interrupted_by(control), calls.reporting(control.report):
                answer = _call_function(call)
        except Interrupted as error:
            raise Stopped("the function was stopped") from error
        return codec.encode(calls.FunctionAnswer(calls.CALL_FORMAT, answer)), None, 0

    def warm_up(self) -> None:
        """Do nothing: all modules are loaded already."""


def _call_function(call: calls.FunctionCall) -> bytes:
    """Call the function and return its pickled value. Raises CallFailed with the traceback."""
    step = "reading it"
    try:
        # Bytes of the environment's own user, or of the account to which this process is confined:
        # the service and `call` refuse those of other owners.
        import cloudpickle  # of the extra `functions`

        function, positional, named = cloudpickle.loads(call.pickled)
        step = "calling it"
        value = function(*positional, **named)
        step = "pickling what it returned"
        import cloudpickle

        return bytes(cloudpickle.dumps(value))
    except Interrupted:
        raise
    except BaseException as error:
        # SystemExit too: it ends the function, not the worker.
        text = f"function {call.name}, {step}: {summary(error)}\n{_trace(error)}"
        hint = _MISSING_MODULE if isinstance(error, ModuleNotFoundError) else ""
        raise CallFailed(text, hint=hint) from error


def summary(error: BaseException) -> str:
    """Return class and text of an error whose class may be anybody's."""
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001 - of a user's own class
        text = f"(no text: {type(second).__name__})"
    return f"{type(error).__name__}: {text}"[:VALUE_CHARS]


def _trace(error: BaseException) -> str:
    """The end of the traceback, without the frames of this module."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).rstrip()[-TRACE_CHARS:]


class _Interruption:
    """The handler of SIGUSR1, which stays installed: its default would end the process."""

    def __init__(self) -> None:
        self.armed = False
        signal.signal(signal.SIGUSR1, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False  # only once, so that `finally` blocks are not interrupted
            raise Interrupted

    @contextmanager
    def interrupted_by(self, control: RunControl) -> Iterator[None]:
        """Raise Interrupted in the main thread when the control is asked to stop."""
        over = threading.Event()
        main = threading.main_thread().ident
        assert main is not None

        def watch() -> None:
            while not over.wait(POLL_S):
                if control.flag[0]:
                    signal.pthread_kill(main, signal.SIGUSR1)

        watcher = threading.Thread(target=watch, name="interrupt", daemon=True)
        self.armed = True
        watcher.start()
        try:
            try:
                yield
            finally:
                self.armed = False
        finally:
            over.set()
            watcher.join()


MAX_TRANSPILERS = 16


class TranspilerEngine:
    """Engine that compiles circuits. It caches the transpilers of the last MAX_TRANSPILERS devices,
    because the creation of one takes as long as one circuit. A compiled circuit depends on the call
    and on Qiskit's version alone, never on the worker. QPY from the owner of a key is first parsed
    in a separate process: see `simenv.sandbox.function_process`."""

    name = calls.TRANSPILER

    def __init__(self) -> None:
        # Qiskit would start a thread for each core of the node in every worker.
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        self._cache: OrderedDict[tuple[bytes, int, int], Transpiler] = OrderedDict()

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> CallValue:
        """See `CallEngine`. Raises ProgramError, which names a circuit that cannot be read or
        compiled."""
        del terms
        assert isinstance(call, calls.TranspileCall)
        transpiler = self._transpiler(call)
        control.expect(len(call.circuits), "circuits")
        as_submitted = call.level == calls.AS_SUBMITTED
        compile_one = transpiler.transpiled if as_submitted else transpiler.run
        compiled: list[bytes] = []
        for number, packed in enumerate(call.circuits):
            control.check()
            name = f"circuit {call.first + number}"
            circuit = qpy.parse(packed, name, trusted=assigned.trusted)
            qiskit_runtime.check_operations(circuit, name)
            try:
                compiled.append(qpy.write_qpy(compile_one(circuit), call.qpy))
            except ProgramError as error:
                raise ProgramError(f"{name}: {error.message}", hint=error.hint) from error
            control.advance("circuits")
        answer = calls.TranspileAnswer(calls.CALL_FORMAT, transpiler.name, tuple(compiled))
        return codec.encode(answer), None, 0

    def warm_up(self) -> None:
        """Load Qiskit's transpiler."""

    def _entries(self) -> int:
        """Entries of the tables of all cached transpilers."""
        return sum(calls.target_entries(device) for device, _, _ in self._cache)

    def _transpiler(self, call: calls.TranspileCall) -> Transpiler:
        key = call.device, call.level, call.seed
        result = self._cache.get(key)
        if result is None:
            level = qiskit_runtime.LEVEL if call.level == calls.AS_SUBMITTED else call.level
            info = calls.decode_device(call.device)
            if info.links:
                from simenv.transpiler.linked.distribution import LinkedTranspiler

                result = LinkedTranspiler(info, level, call.seed)
            else:
                result = Transpiler(info, level, call.seed)
            self._cache[key] = result
            while len(self._cache) > MAX_TRANSPILERS or self._entries() > calls.MAX_TARGET_ENTRIES:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(key)
        return result


def call_engine(
    name: str,
    *,
    confined: bool = False,
    noise: Noise | None = None,
    checkpoints: RunCheckpoints | None = None,
) -> CallEngine | None:
    """Create the engine of calls with that name; None if the name is that of a circuit engine.
    `confined`, `checkpoints`: as for `Runner`; `noise`: of the tasks' devices."""
    if name == calls.TRANSPILER:
        return TranspilerEngine()
    if name == calls.FUNCTIONS:
        return FunctionEngine(confined=confined)
    if name == calls.DETECTORS:
        from simenv.worker.detecting import DetectorEngine  # and those few, stim

        return DetectorEngine(noise)
    if name == RYDBERG:
        from simenv.worker.analog.engine import PulseEngine  # and those few, SciPy

        return PulseEngine(checkpoints)
    if name in EMULATORS:
        from simenv.worker.analog.emulators import EmulatorEngine  # and those few, PyTorch

        return EmulatorEngine(name)
    return None


class CallRunner:
    """Runner of calls, one at a time. It creates each engine at its first use."""

    def __init__(
        self,
        result_writer: ResultFileWriter | None,
        *,
        confined: bool = False,
        noise: Noise | None = None,
        checkpoints: RunCheckpoints | None = None,
    ) -> None:
        self._result_writer = result_writer
        self._confined = confined
        self._noise = noise
        self._checkpoints = checkpoints
        self._engines: dict[str, CallEngine] = {}

    def engine(self, name: str) -> CallEngine | None:
        """Return the engine of calls with that name, warmed up; None for a circuit engine."""
        result = self._engines.get(name)
        if result is None:
            result = call_engine(
                name, confined=self._confined, noise=self._noise, checkpoints=self._checkpoints
            )
        if result is not None and name not in self._engines:
            result.warm_up()
            self._engines[name] = result
        return result

    def run(
        self, assigned: AssignedTask, terms: TaskOptions, chunk: AssignChunk, control: RunControl
    ) -> tuple[bytes, ResultFile | None, int]:
        """Return the packed result, the file of a large one, and the nanoseconds on an emulated
        device. Raises the errors of the call."""
        engine = self.engine(chunk.engine)
        if engine is None:
            raise CallFailed(f"engine {chunk.engine!r} calls no functions")
        call = calls.decode_call(chunk.engine, assigned.program)
        control.threads = control.threads or max(1, chunk.slots)
        placed = None
        if isinstance(call, PulseCall):
            call, placed = self._on_device(call, assigned, terms, control)
        value, device, device_ns = engine.call(call, assigned, terms, control)
        if placed is not None:
            device, device_ns = placed.record, placed.time_ns
        if len(value) > calls.MAX_VALUE_BYTES:
            text = f"it returned {len(value)} bytes; the limit is {calls.MAX_VALUE_BYTES}"
            raise ValueTooLarge(text, hint="write large data to a file, and return its name")
        file = None
        if self._result_writer is not None:
            file = self._result_writer.put_value(value, assigned, terms, chunk)
        shots, seed = assigned.shots, assigned.seed
        sent = b"" if file is not None else value
        width = call.sizes.atoms if isinstance(call, PulseCall) else 0
        fields = RESULT_FORMAT, (), width, shots, seed
        data = ResultData(*fields, file=file, value=sent, device=device)
        return codec.encode(data), file, device_ns

    def _on_device(
        self, call: PulseCall, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> tuple[PulseCall, PulseDevice | None]:
        """Return a pulse sequence as it runs, on the task's device if it has one, and that
        device."""
        if self._noise is None or not terms.snapshot:
            return settled(call, assigned.shots, on_device=False), None
        from simenv.worker.analog.device import on_device  # and those few, pulser

        return on_device(call, assigned, terms, self._noise, control)
