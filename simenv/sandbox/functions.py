"""Functions that convert what other users send, in a process with bounds of memory and time.

Qiskit's reader of QPY trusts the sizes in a file: a kilobyte may request gigabytes, and the process
ends if these are not available. The same is true of the definitions of gates. So the bytes are
given to a function in a separate process, which returns bytes. The process is started with the
first call, stays for the next ones, and is restarted after a call that ended it. Files come in
whose headers `simenv.transpiler.qpy` has passed, as older versions hold code.

    python -P -m simenv.sandbox.functions MODULE FUNCTION
"""

from __future__ import annotations

import importlib
import os
import sys
import threading

import msgspec

from simenv.config import interpreter
from simenv.errors import ConfigError, LimitExceededError, ProgramError, SimenvError
from simenv.sandbox.child import Child
from simenv.sandbox.limits import limit_process
from simenv.sandbox.parent import ParentChannel
from simenv.wire.codec import error_of, refusal
from simenv.wire.messages.client import MAX_MESSAGE_BYTES, Refusal

MEMORY_BYTES = 2**30  # in addition to the memory of Qiskit itself
SECONDS = 10.0
QUEUE_SECONDS = 60.0  # longest wait for the calls of others
START_SECONDS = 120.0  # longest wait until Qiskit is loaded
_DONE, _REFUSED = b"d", b"w"


class SandboxProcess:
    """Sandbox process. Thread-safe; one call at a time. A forked child starts its own process."""

    def __init__(
        self,
        module: str,
        function: str,
        subject: str = "QPY file",
        verbs: tuple[str, str] = ("reading", "read"),
        seconds: float | None = None,
    ) -> None:
        """`function` of `module`: converts bytes, and raises SimenvError. `subject`, `verbs`: names
        of what is read and of what is done with it, for messages. `seconds`: for one call; None:
        SECONDS."""
        self._function, self._subject, self._verbs = (module, function), subject, verbs
        self._own_seconds = seconds
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._child: Child | None = None

    @property
    def _seconds(self) -> float:
        return SECONDS if self._own_seconds is None else self._own_seconds

    def convert(self, data: bytes, name: str = "", *, head: bytes = b"") -> bytes:
        """Return what the function returns for `data`, with `head` before it. `name`: of the file,
        for messages. Raises its errors, LimitExceededError for a call that exceeds the limits or
        gets no turn within QUEUE_SECONDS, ConfigError if there is no Python interpreter for it."""
        prefix = f"{name}: " if name else ""
        if not self._lock.acquire(timeout=QUEUE_SECONDS):
            what = f"another {self._subject} is being {self._verbs[1]}"
            text = f"{prefix}{what}, for {QUEUE_SECONDS:g} s by now"
            raise LimitExceededError(text, hint="send it again, or OpenQASM")
        try:
            verdict, answer = self._answer(head, data)
        finally:
            self._lock.release()
        if verdict == _DONE:
            return answer
        if verdict == _REFUSED:
            error = error_of([msgspec.msgpack.decode(answer, type=Refusal)])
            error.message = prefix + error.message
            raise error
        raise LimitExceededError(
            f"{prefix}{self._verbs[0]} the {self._subject} of {len(data)} bytes takes more than "
            f"{MEMORY_BYTES >> 20} MiB or {self._seconds:g} s",
            hint="a smaller circuit, or OpenQASM",
        )

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _started(self) -> Child:
        if self._pid != os.getpid():
            self._pid, self._child = os.getpid(), None
        if self._child is None:
            python, path = _interpreter()
            argv = [python, "-P", "-m", __name__, *self._function]
            environ = {**os.environ, **path, "OPENBLAS_NUM_THREADS": "1"}
            self._child = Child(argv, environ, most_bytes=1 + MAX_MESSAGE_BYTES)
            try:
                self._child.receive(START_SECONDS)
            except OSError as error:
                self._end()
                text = "QPY cannot be read here: the process that reads it first does not start"
                hint = "send OpenQASM; or see that `python -c 'import qiskit.qpy'` works"
                raise ProgramError(text, hint=hint) from error
        return self._child

    def _answer(self, head: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Return the verdict, and the function's result or its error. The verdict is b"" if the
        process ended or took too long. The process is ended if its answer was not read completely,
        because the rest would be taken for the next answer."""
        child = self._started()
        try:
            child.send(head, data)
            reply = child.receive(self._seconds)
        except OSError:  # TimeoutError, FrameError
            self._end()
            return b"", b""
        except BaseException:
            self._end()
            raise
        return reply[:1], reply[1:]

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


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
    limit_process(more_bytes=MEMORY_BYTES)
    channel.end_with_parent()
    channel.send()  # ready
    while (data := channel.receive()) is not None:
        verdict, answer = _DONE, b""
        try:
            answer = function(data)
        except SimenvError as error:
            verdict, answer = _REFUSED, msgspec.msgpack.encode(refusal(error))
        except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
            wrong = ProgramError(f"the program cannot be read: {type(error).__name__}")
            verdict, answer = _REFUSED, msgspec.msgpack.encode(refusal(wrong))
        channel.send(verdict, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
