"""Functions that convert what other users send, in a process with bounds of memory and time.

Qiskit's reader of QPY trusts the sizes in a file: a kilobyte may request gigabytes, and the process
ends if these are not available. The same is true of the definitions of gates. So the bytes are
given to a function in a separate process, which returns bytes. The process is started with the
first call, stays for the next ones, and is restarted after a call that ended it. Files come in
whose headers `simenv.transpiler.qpy` has passed, as older versions hold code.

Limits of time are of CPU time, and of the share of a processor that a machine has left for a call
that waits (`simenv.sandbox.progress`): on a busy machine a call takes longer, and does not fail. A
call that outlives its limit, as this process has ended meanwhile, is killed by the kernel
(setitimer(2)): its code may hold the interpreter's lock, so that no thread ends it.

    python -P -m simenv.sandbox.function_process MODULE FUNCTION SECONDS
"""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO

import msgspec

from simenv.config import interpreter
from simenv.errors import ConfigError, LimitExceededError, ProgramError, SimenvError
from simenv.sandbox.child import KILLED_S, LOOK_S, BlockedError, Child, decoder_environ
from simenv.sandbox.frames import FrameError
from simenv.sandbox.limits import limit_process
from simenv.sandbox.parent import ParentChannel
from simenv.sandbox.program import last_text
from simenv.sandbox.progress import ProgressDeadline, load_text
from simenv.wire.codec import error_of, refusal
from simenv.wire.messages.client import MAX_MESSAGE_BYTES, Refusal

MEMORY_BYTES = 2**30  # in addition to the memory of Qiskit itself
SECONDS = 10.0
ATTEMPTS = 2  # of a call that hardly ran in its time: the cause may be outside of it
QUEUE_SECONDS = 60.0  # longest wait for one call of others
START_SECONDS = 120.0  # longest time until Qiskit is loaded
ERROR_BYTES = 16 * 2**20  # that the functions may print in one call
_LINE_CHARS = 500  # of what a process said last, in an error
_LATE_SECONDS = 5.0  # after the limit of a call, which this process is the first to enforce
_LOST_FACTOR = 60  # wall time to that limit, after which a call is killed in any case
_QPY = "QPY file"
_DONE, _REFUSED = b"d", b"w"
_NO_MEMORY, _TOO_LONG, _FAILED = b"m", b"l", b"f"  # with no text, its length, the kind of the error
# The process says none of them; _ENDED with its signal or code.
_NO_TIME, _BLOCKED, _ENDED = b"t", b"b", b"e"


class SandboxProcess:
    """Sandbox process. Thread-safe; one call at a time. A forked child starts its own process."""

    def __init__(
        self,
        module: str,
        function: str,
        subject: str = _QPY,
        verbs: tuple[str, str] = ("reading", "read"),
        seconds: float | None = None,
    ) -> None:
        """`function` of `module`: converts bytes, and raises SimenvError. `subject`, `verbs`: names
        of what is read and of what is done with it, for messages. `seconds`: for one call; None:
        SECONDS."""
        self._function, self._subject, self._verbs = (module, function), subject, verbs
        self._own_seconds = seconds
        self._lock = threading.Lock()
        self._calls = 0  # that have ended
        self._pid = os.getpid()
        self._child: Child | None = None
        self._log: IO[bytes] | None = None

    @property
    def _seconds(self) -> float:
        return SECONDS if self._own_seconds is None else self._own_seconds

    def convert(
        self,
        data: bytes,
        name: str = "",
        *,
        head: bytes = b"",
        check: Callable[[], object] | None = None,
    ) -> bytes:
        """Return what the function returns for `data`, with `head` before it. `name`: of the file,
        for messages. `check`: called often during the wait; what it raises ends the process and is
        raised. Raises the function's errors, LimitExceededError for a call that exceeds the limits,
        ends the process or gets no turn within QUEUE_SECONDS, ProgramError if the process does not
        start, ConfigError if there is no Python interpreter for it."""
        prefix = f"{name}: " if name else ""
        self._wait(prefix, check)
        try:
            for _ in range(ATTEMPTS):
                verdict, answer = self._answer(head, data, check)
                if verdict != _BLOCKED:
                    break
        finally:
            self._calls += 1
            self._lock.release()
        if verdict == _DONE:
            return answer
        if verdict == _REFUSED:
            refused, line, column = msgspec.msgpack.decode(answer, type=tuple[Refusal, int, int])
            error = error_of([refused])
            error.message = prefix + error.message
            if isinstance(error, ProgramError):
                error.line, error.column = line, column
            raise error
        raise self._error(prefix, len(data), verdict, answer.decode("utf-8", "replace"))

    def _wait(self, prefix: str, check: Callable[[], object] | None) -> None:
        """Take the turn of this call. Raises LimitExceededError if the call of another one takes
        too long."""
        deadline, ended = ProgressDeadline(QUEUE_SECONDS), self._calls
        while not self._lock.acquire(timeout=LOOK_S):
            if check is not None:
                check()
            if ended != self._calls:
                deadline.step()
                ended = self._calls
            if deadline.is_over:
                what = f"another {self._subject} is being {self._verbs[1]}"
                text = f"{prefix}{what}, for {QUEUE_SECONDS:g} s by now"
                raise LimitExceededError(text, hint=f"send it again{self._or_text}")

    def _error(self, prefix: str, size: int, verdict: bytes, said: str) -> SimenvError:
        """Return the error of a call that the function has not answered."""
        what = f"{prefix}{self._verbs[0]} the {self._subject} of {size} bytes"
        if verdict == _FAILED:
            return ProgramError(f"{prefix}the {self._subject} cannot be {self._verbs[1]}: {said}")
        text = {
            _NO_MEMORY: f"takes more than {MEMORY_BYTES >> 20} MiB of memory",
            _NO_TIME: f"takes more than {self._seconds:g} s of CPU time",
            _BLOCKED: f"waits for more than {self._seconds:g} s, {ATTEMPTS} times ({load_text()})",
            _TOO_LONG: f"gives {said} bytes; the limit is {MAX_MESSAGE_BYTES}",
            _ENDED: f"has failed: its process, with {MEMORY_BYTES >> 20} MiB of memory, {said}",
        }[verdict]
        smaller = "circuit" if self._subject == _QPY else self._subject
        return LimitExceededError(f"{what} {text}", hint=f"a smaller {smaller}{self._or_text}")

    @property
    def _or_text(self) -> str:
        return ", or OpenQASM" if self._subject == _QPY else ""

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _started(self, check: Callable[[], object] | None) -> Child:
        if self._pid != os.getpid():
            self._pid, self._child, self._log = os.getpid(), None, None
        if self._child is None:
            python, path = _interpreter()
            argv = [python, "-P", "-m", __name__, *self._function, repr(self._seconds)]
            environ = {**decoder_environ(os.environ), **path}
            try:
                self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
                log, most_bytes = self._log.fileno(), 1 + MAX_MESSAGE_BYTES
                fcntl.fcntl(log, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied
                self._child = Child(argv, environ, log, most_bytes=most_bytes)
                self._child.receive(START_SECONDS, check)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    reason = f"does not start within {START_SECONDS:g} s"
                elif isinstance(error, FrameError):
                    reason = self._ended()
                else:
                    reason = f"cannot be started: {error.strerror}"
                self._end()
                text = f"no {self._subject} can be {self._verbs[1]} here: the process for it"
                hint = f"see that `{python} -c 'import qiskit.qpy, {self._function[0]}'` works"
                raise ProgramError(f"{text} {reason}", hint=hint + self._or_text) from error
            except BaseException:  # also what `check` raises: the next call starts another process
                self._end()
                raise
        return self._child

    def _answer(
        self, head: bytes, data: bytes, check: Callable[[], object] | None
    ) -> tuple[bytes, bytes]:
        """Return the verdict, and the function's result or its error. The process is ended if its
        answer was not read completely, because the rest would be taken for the next answer."""
        child = self._started(check)
        assert self._log is not None
        if os.fstat(self._log.fileno()).st_size:
            self._log.truncate(0)
        try:
            child.send(head, data)
            reply = child.receive(self._seconds, check)
        except TimeoutError as error:
            self._end()
            return _BLOCKED if isinstance(error, BlockedError) else _NO_TIME, b""
        except OSError:
            return _ENDED, self._ended().encode()
        except BaseException:
            self._end()
            raise
        return reply[:1], reply[1:]

    def _ended(self) -> str:
        """End the process; return how it has ended, and the last line that it has written."""
        child, log = self._child, self._log
        assert child is not None
        assert log is not None
        said = last_text(log, 4 * _LINE_CHARS).rpartition("\n")[2][-_LINE_CHARS:]
        self._end(KILLED_S)  # its output has ended, and so will it
        code = child.poll() or 0
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"ended with {cause}: {said or 'it said nothing'}"

    def _end(self, patience_s: float = 0.0) -> None:
        child, self._child = self._child, None
        log, self._log = self._log, None
        if child is not None:
            child.end(patience_s)
        if log is not None:
            log.close()


def _interpreter() -> tuple[str, dict[str, str]]:
    """Return a Python interpreter and the variables with which it finds Qiskit. In a program with
    embedded Python, such as DEFw's, it is the interpreter of the same installation, with the search
    path of this process. Raises ConfigError if there is none."""
    try:
        return interpreter(), {}
    except ConfigError:
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for prefix in (sys.prefix, sys.base_prefix):
            if os.access(program := f"{prefix}/bin/{name}", os.X_OK):
                return program, {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        raise


def main() -> int:
    """Call the function for each frame until the parent process ends the input."""
    channel = ParentChannel()
    from qiskit import qpy as _  # noqa: F401 - its memory is not the file's

    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    limit_process(more_bytes=MEMORY_BYTES, file_bytes=ERROR_BYTES)
    seconds = float(sys.argv[3]) + _LATE_SECONDS
    channel.end_with_parent()
    channel.send()  # ready
    while (data := channel.receive()) is not None:
        verdict, answer = _DONE, b""
        _kill_after(seconds)
        try:
            answer = function(data)
        except SimenvError as error:
            place = getattr(error, "line", 0), getattr(error, "column", 0)
            verdict, answer = _REFUSED, msgspec.msgpack.encode((refusal(error), *place))
        except MemoryError:
            verdict = _NO_MEMORY
        except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
            verdict, answer = _FAILED, type(error).__name__.encode()
        if len(answer) > MAX_MESSAGE_BYTES:
            verdict, answer = _TOO_LONG, str(len(answer)).encode()
        channel.send(verdict, answer)
        _kill_after(0.0)
    return 0


_TIMERS = (
    (signal.ITIMER_PROF, signal.SIGPROF, 1),  # CPU time of all threads
    (signal.ITIMER_REAL, signal.SIGALRM, _LOST_FACTOR),
)


def _kill_after(seconds: float) -> None:
    """Have the kernel end this process after so much CPU time, whatever the function has made of
    the signals before; 0: do not."""
    for timer, number, factor in _TIMERS:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
        signal.setitimer(timer, factor * seconds)


if __name__ == "__main__":
    sys.exit(main())
