"""Engine `functions`: Python functions of the environment's own user.

No other module of a worker unpickles bytes. A function runs in the main thread. A signal stops it:
the handler raises `Interrupted` in that thread. The service kills a worker whose function does not
end after that.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import cloudpickle

from simenv.model.calls import (
    CALL_FORMAT,
    FUNCTIONS,
    PYTHON,
    Call,
    FunctionAnswer,
    FunctionCall,
)
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker.calls.engine import CallFailed
from simulators.control import RunControl
from simulators.errors import Stopped, Unsupported

POLL_S = 0.05  # between two checks of the flag of the control
TRACE_CHARS = 1_500  # of the end of a traceback
VALUE_CHARS = 300  # of the error's own text


class Interrupted(BaseException):
    """Exception that stops a function; `except Exception` does not catch it."""


class FunctionEngine:
    """Engine that calls one function at a time, in the main thread."""

    name = FUNCTIONS

    def __init__(self) -> None:
        self._interruption = _Interruption()

    def call(self, call: Call, assigned: AssignedTask, control: RunControl) -> bytes:
        """See `CallEngine`. Raises CallFailed with the traceback of the function's error,
        Unsupported for functions of other owners or another version of Python."""
        assert isinstance(call, FunctionCall)
        if not assigned.trusted:
            raise Unsupported(
                "functions of the environment's own user alone are called",
                hint="connect without a key, as that user, where the environment runs",
            )
        if call.python != PYTHON:
            raise Unsupported(
                f"the function was pickled by Python {call.python}; this worker has {PYTHON}",
                hint="use one version of Python on both sides",
            )
        control.check()
        try:
            with self._interruption.interrupted_by(control):
                answer = _call_function(call)
        except Interrupted as error:
            raise Stopped("the function was stopped") from error
        return codec.encode(FunctionAnswer(CALL_FORMAT, answer))

    def warm_up(self) -> None:
        """Do nothing: all modules are loaded already."""


def _call_function(call: FunctionCall) -> bytes:
    """Call the function and return its pickled value. Raises CallFailed with the traceback."""
    step = "reading it"
    try:
        # Bytes of the environment's own user: the service and `call` refuse those of other owners.
        function, positional, named = cloudpickle.loads(call.pickled)
        step = "calling it"
        value = function(*positional, **named)
        step = "pickling what it returned"
        return bytes(cloudpickle.dumps(value))
    except Interrupted:
        raise
    except BaseException as error:
        # SystemExit too: it ends the function, not the worker.
        raise CallFailed(
            f"function {call.name}, {step}: {_summary(error)}\n{_trace(error)}",
            hint=_hint(error),
        ) from error


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {_text(error)}"[:VALUE_CHARS]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - of a user's own class
        return f"(no text: {type(second).__name__})"


def _trace(error: BaseException) -> str:
    """The end of the traceback, without the frames of this module."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    lines = traceback.format_exception(type(error), error, frames)
    return "".join(lines).rstrip()[-TRACE_CHARS:]


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            "the worker does not find that module: start the environment in its folder, install it,"
            " or send it along with cloudpickle.register_pickle_by_value(module)"
        )
    return ""


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
