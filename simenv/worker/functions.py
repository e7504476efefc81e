"""Functions of users in a worker: the engine that has them called in a child process.

The child (`simenv.worker.function_process`) has no connection to the service, no key, no file of
this worker but its log, and, confined, one folder; it is started before the first call, stays for
the next ones, and is stopped between calls. Invariants: this process alone writes to the service
and to result files; it unpickles nothing, and takes what the child sends for that of an attacker.
No process that a call has started outlives the call: all of them have this process as their
ancestor, whose children it reaps, and which ends if it cannot end them.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Annotated

import msgspec

from simenv.errors import DECODE_ERRORS, OptionError
from simenv.model import DeviceRecord, TaskOptions, calls
from simenv.process import exit_process, log_line, on_exit
from simenv.sandbox import confinement, die_with_parent
from simenv.sandbox.child import KILLED_S, Child
from simenv.sandbox.confinement import FileRules
from simenv.sandbox.frames import FrameError
from simenv.sandbox.process_tree import (
    adopt_orphans,
    children,
    descendants,
    describe_exit,
    kill_orphans,
    threads,
)
from simenv.sandbox.tree_memory import tree_memory
from simenv.wire import codec
from simenv.wire.messages.client import AssignedTask
from simenv.worker import function_process as frames
from simulators.engine import RunControl
from simulators.errors import EngineError, Stopped, Unsupported

POLL_S = 0.05  # between two checks of the flag of the control
STOP_S = 1.5  # for a function to end that was stopped; the service ends the worker after 2 s
THREADS_S = 0.02  # for threads to be gone that a function has joined
MAX_FRAME_BYTES = calls.MAX_VALUE_BYTES + 64
MESSAGE_CHARS = 4_000  # of the child's text in an error
EXIT_LEFT_BEHIND = 1  # of this process, with all that is left
_PROGRAM = "simenv.worker.function_process"
_MPI_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_")  # of this rank, which the child is not
_KEPT = ("SIMENV_HOME", "SIMENV_KERNELS")  # for functions that use simenv themselves


class CallFailed(EngineError):
    """A called function failed; the message quotes its error."""

    code = "function"


class ValueTooLarge(EngineError):
    """The value of a call is larger than the limit of a result."""

    code = "limit"


# The packed answer to a call; if it is of a device, that, and the nanoseconds there.
CallValue = tuple[bytes, DeviceRecord | None, int]


class UnexpectedAnswer(Exception):
    """The child sent a frame that no call has."""


_Failure = tuple[str, str]  # text and hint
_Progress = tuple[
    Annotated[float, msgspec.Meta(ge=0, le=calls.MOST_WORK)],
    Annotated[int, msgspec.Meta(ge=0, le=calls.MOST_WORK)],
    Annotated[str, msgspec.Meta(max_length=64)],
]

# Frames that end a wait, and the types of their bodies; None: any bytes.
_LAST: dict[bytes, object] = {
    frames.READY: None,
    frames.VALUE: None,
    frames.STOPPED: None,
    frames.TOO_LARGE: int,
    frames.FAILED: _Failure,
}


class FunctionRules(msgspec.Struct, frozen=True):
    """What the child of functions may use. `files`: of a confined one; None: it is not."""

    files: FileRules | None = None
    import_from: str = ""


class FunctionEngine:
    """Engine that has one function at a time called in its child process."""

    name = calls.FUNCTIONS

    def __init__(self, rules: FunctionRules | None = None) -> None:
        """`rules`: None: the child is not confined."""
        self._rules = FunctionRules() if rules is None else rules
        self._child: Child | None = None
        self._is_ready = False  # the child has answered its set-up
        self._number = 0  # of the last call, which the child's frames must have
        self._threads = 0  # of the child before the last call
        confinement.forbid_tracing()
        adopt_orphans()
        on_exit(self.close)

    def call(
        self, call: calls.Call, assigned: AssignedTask, terms: TaskOptions, control: RunControl
    ) -> CallValue:
        """See `CallEngine`. Raises CallFailed with the traceback of the function's error or with
        the end of its process, Unsupported for functions of other owners or another version of
        Python."""
        del terms
        assert isinstance(call, calls.FunctionCall)
        if not (assigned.trusted or self._rules.files is not None):
            hint = "connect without a key, as that user, where the environment runs"
            raise Unsupported("functions of the environment's own user alone are called", hint=hint)
        if call.python != calls.PYTHON:
            versions = f"by Python {call.python}; this worker has {calls.PYTHON}"
            text = f"the function was pickled {versions}"
            raise Unsupported(text, hint="use one version of Python on both sides")
        control.check()
        child = self._unused()
        others = [pid for pid in children(os.getpid()) if pid != child.pid]
        try:
            kind, body = self._answer(child, call, control)
        except Stopped:
            self.close()
            raise
        except (FrameError, UnexpectedAnswer) as error:
            has_ended = child.has_ended
            child.end(KILLED_S if has_ended else 0.0)
            self._child = None
            reason = f"ended with {describe_exit(child.poll() or 0)}"
            reason = reason if has_ended else f"sent what is no answer: {error}"
            text = f"function {call.name}: its process {reason}"[:MESSAGE_CHARS]
            raise CallFailed(text, hint="its last lines are in the worker's log") from error
        finally:
            self._end_processes(others)
        if kind == frames.STOPPED:
            raise Stopped("the function was stopped")
        if kind == frames.TOO_LARGE:
            raise too_large(msgspec.msgpack.decode(body, type=int))
        if kind == frames.FAILED:
            text, hint = msgspec.msgpack.decode(body, type=_Failure)
            raise CallFailed(text[:MESSAGE_CHARS], hint=hint[:MESSAGE_CHARS])
        return codec.encode(calls.FunctionAnswer(calls.CALL_FORMAT, body)), None, 0

    def warm_up(self) -> None:
        """Start the child, if there is none, and do not wait for it. Raises CallFailed."""
        if self._child is not None:
            return
        argv = [sys.executable, "-P", "-m", _PROGRAM]
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((*_MPI_PREFIXES, "SIMENV_")) or name in _KEPT
        }
        try:
            self._child = Child(
                die_with_parent.command_line(os.getpid(), argv),
                environ,
                sys.stderr.fileno(),
                most_bytes=MAX_FRAME_BYTES,
            )
        except OSError as error:
            text = f"the process of functions cannot be started: {error.strerror}"
            raise CallFailed(text, hint="see the worker's log") from error
        self._is_ready = False

    def _unused(self) -> Child:
        """Return the child, of which no frame of an earlier call is left. Raises CallFailed."""
        if self._child is not None and self._is_ready:
            try:
                if self._child.received() or self._child.has_ended:
                    self.close()
            except FrameError:
                self.close()
        self.warm_up()
        assert self._child is not None
        return self._child

    def close(self) -> None:
        """End the child, if there is one, with all that it has started."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def child_bytes(self) -> int:
        """Memory of the child and of all that it has started; 0: there is none."""
        child = self._child
        return 0 if child is None else tree_memory(child.pid).used_bytes

    def _answer(
        self, child: Child, call: calls.FunctionCall, control: RunControl
    ) -> tuple[bytes, bytes]:
        """Return kind and body of the child's last frame. Raises FrameError if it has ended or
        sends a frame above the limit, UnexpectedAnswer for any other that is none, Stopped for a
        child that does not end a stopped function."""
        os.kill(child.pid, signal.SIGCONT)
        if not self._is_ready:
            child.send(frames.SET_UP, msgspec.msgpack.encode(self._set_up()))
            self._wait(child, control)
            self._is_ready = True
        self._threads = threads(child.pid)
        self._number += 1
        child.send(frames.CALL, msgspec.msgpack.encode((self._number, call.name, call.pickled)))
        return self._wait(child, control, self._number)

    def _set_up(self) -> frames.SetUp:
        files, user = self._rules.files, os.geteuid()
        if files is None:
            return frames.SetUp(user, self._rules.import_from)
        read, listed, write = (
            tuple(map(str, each)) for each in (files.read, files.listed, files.write)
        )
        return frames.SetUp(user, self._rules.import_from, read, listed, write)

    def _wait(self, child: Child, control: RunControl, number: int = 0) -> tuple[bytes, bytes]:
        """Wait for a frame that is no progress. `number`: of the call that runs, which a signal
        stops; 0: none does, and Stopped is raised at once."""
        end_s = math.inf
        while True:
            if control.flag[0] and end_s == math.inf:
                end_s = time.monotonic() + (STOP_S if number else 0.0)
                if number:
                    os.kill(child.pid, signal.SIGUSR1)
            if time.monotonic() >= end_s:
                raise Stopped("the function was stopped")
            try:
                frame = child.receive(POLL_S)
            except TimeoutError:
                continue
            start = 1 + frames.NUMBER_BYTES
            kind, body = frame[:1], frame[start:]
            sent = int.from_bytes(frame[1:start], "little")
            if len(frame) < start or sent > number:
                raise UnexpectedAnswer("of no call")
            if sent < number:  # of a thread that an earlier call has left, or that call's own
                continue
            try:
                if kind in _LAST:
                    if _LAST[kind] is not None:
                        msgspec.msgpack.decode(body, type=_LAST[kind])
                    return kind, body
                if kind != frames.PROGRESS:
                    raise UnexpectedAnswer("unknown")
                done, total, unit = msgspec.msgpack.decode(body, type=_Progress)
                calls.check_progress(done, total, unit)
            except (*DECODE_ERRORS, OptionError) as error:
                raise UnexpectedAnswer(str(error)) from error
            control.report(done, total, unit)

    def _end_processes(self, others: Collection[int]) -> None:
        """Stop the child until its next call. End all else that the call has started: with the
        child, which would have done so itself, and, where that fails, with this process. A child
        with a thread that the call has left, which could answer the next one, is replaced.
        `others`: children that this process had before."""
        child = self._child
        if child is not None:
            end_s = time.monotonic() + THREADS_S
            while threads(child.pid) > self._threads and time.monotonic() < end_s:
                time.sleep(THREADS_S / 10)
            with suppress(OSError):  # it has ended
                os.kill(child.pid, signal.SIGSTOP)
            keep = {child.pid, *others}
            if descendants(child.pid) or any(pid not in keep for pid in children(os.getpid())):
                log_line("a function has left processes behind: they are ended, and its own one")
                self.close()
            elif threads(child.pid) > self._threads:
                log_line("a function has left threads behind: its process is replaced")
                self.close()
        if self._child is None and not kill_orphans(others):
            exit_process(EXIT_LEFT_BEHIND, "processes of a function cannot be ended")
        if self._child is None and child is not None:
            with suppress(CallFailed):  # the next call says so
                self.warm_up()


def too_large(size_bytes: int) -> ValueTooLarge:
    """Return the error of a value above its limit."""
    text = f"it returned {size_bytes} bytes; the limit is {calls.MAX_VALUE_BYTES}"
    return ValueTooLarge(text, hint="write large data to a file, and return its name")
