"""Sandbox for QPY files of other users: a process with bounds of memory and time reads them first.

Qiskit's reader trusts the sizes in a file: a kilobyte may request gigabytes, and the process ends
if these are not available. So an untrusted file is read once in a separate process; a file that can
be read there within the limits can be read here. The sandbox gets only files whose headers `qpy`
has passed, as older versions hold code. The process is started with the first file, kept, and
restarted after a file that ended it.

    python -m simenv.transpiler.qpy_sandbox  # reads files, writes verdicts
"""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from time import monotonic

from simenv.config import interpreter
from simenv.errors import ConfigError, LimitExceededError, ProgramError

MEMORY_BYTES = 2**30  # in addition to the memory of Qiskit itself
SECONDS = 10.0
QUEUE_SECONDS = 60.0  # longest wait for the files of other callers
START_SECONDS = 120.0  # longest wait until Qiskit is loaded
_LENGTH = struct.Struct("!Q")
_READY, _SOUND, _WRONG = b"r", b"s", b"w"
_MOST_WORDS = 500


class SandboxProcess:
    """Sandbox process. Thread-safe; one file at a time. A forked child starts its own process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, data: bytes, name: str = "") -> None:
        """Check that the sandbox process can read a file.

        Raises ProgramError for a file that Qiskit refuses, LimitExceededError for one that exceeds
        the limits or gets no turn within QUEUE_SECONDS, ConfigError if there is no Python
        interpreter for it.
        """
        prefix = f"{name}: " if name else ""
        if not self._lock.acquire(timeout=QUEUE_SECONDS):
            raise LimitExceededError(
                f"{prefix}another QPY file is being read, and has been for {QUEUE_SECONDS:g} s",
                hint="send it again, or OpenQASM",
            )
        try:
            verdict, reason = self._check(data)
        finally:
            self._lock.release()
        if verdict == _SOUND:
            return
        if verdict == _WRONG:
            raise ProgramError(
                f"{prefix}the QPY file cannot be read: {reason}",
                hint="write it anew with qiskit.qpy.dump, or send OpenQASM",
            )
        raise LimitExceededError(
            f"{prefix}reading the QPY file of {len(data)} bytes takes more than "
            f"{MEMORY_BYTES >> 20} MiB or {SECONDS:g} s",
            hint="a smaller circuit, or OpenQASM",
        )

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._end()

    def _start_process(self) -> subprocess.Popen[bytes]:
        if self._pid != os.getpid():
            self._pid, self._process = os.getpid(), None
        if self._process is None:
            python, path = _interpreter()
            argv = [python, "-P", "-m", __name__]
            environ = {**os.environ, **path, "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
            self._process = subprocess.Popen(
                argv,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            if self._read(self._process, 1, START_SECONDS) != _READY:
                self._end()
                raise ProgramError(
                    "QPY cannot be read here: the process that reads it first does not start",
                    hint="send OpenQASM; or see that `python -c 'import qiskit.qpy'` works",
                )
        return self._process

    def _check(self, data: bytes) -> tuple[bytes, str]:
        """Return the verdict, and Qiskit's message if it refuses the file.

        The verdict is b"" if the process ended or took too long. The process is ended if its answer
        was not read completely, because the rest would be taken for the next answer.
        """
        process = self._start_process()
        try:
            verdict = self._verdict(process, data)
            reason = self._read_reason(process) if verdict == _WRONG else ""
        except (OSError, TimeoutError, struct.error):
            verdict, reason = b"", ""
        except BaseException:
            self._end()
            raise
        if verdict not in (_SOUND, _WRONG):
            self._end()
        return verdict, reason

    def _verdict(self, process: subprocess.Popen[bytes], data: bytes) -> bytes:
        assert process.stdin is not None
        process.stdin.write(_LENGTH.pack(len(data)) + data)
        process.stdin.flush()
        return self._read(process, 1, SECONDS)

    def _read_reason(self, process: subprocess.Popen[bytes]) -> str:
        (size,) = _LENGTH.unpack(self._read(process, _LENGTH.size, SECONDS))
        return self._read(process, min(size, 4 * _MOST_WORDS), SECONDS).decode(errors="replace")

    def _read(self, process: subprocess.Popen[bytes], size: int, seconds: float) -> bytes:
        """Read `size` bytes, or fewer if the process ends. Raises TimeoutError."""
        assert process.stdout is not None
        descriptor, result, end = process.stdout.fileno(), b"", monotonic() + seconds
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(descriptor, select.POLLIN)
        while len(result) < size:
            if not poll.poll(max(0.0, end - monotonic()) * 1e3):
                raise TimeoutError
            part = os.read(descriptor, size - len(result))
            if not part:
                break
            result += part
        return result

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # input that it has not read
                    pipe.close()


def _interpreter() -> tuple[str, dict[str, str]]:
    """Return a Python interpreter and the variables with which it finds Qiskit.

    In a program with embedded Python, such as DEFw's, it is the interpreter of the same
    installation, with the search path of this process. Raises ConfigError if there is none.
    """
    try:
        return interpreter(), {}
    except ConfigError:
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for prefix in (sys.prefix, sys.base_prefix):
            if os.access(program := f"{prefix}/bin/{name}", os.X_OK):
                return program, {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        raise


CONFINED = SandboxProcess()


def main() -> int:
    """Read files and write verdicts until the input ends."""
    import io
    import resource
    import warnings

    from qiskit import qpy

    warnings.simplefilter("ignore")
    with open("/proc/self/statm", encoding="ascii") as settings:
        has_bytes = int(settings.read().split()[0]) * resource.getpagesize()
    limit = has_bytes + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(_READY)
    answers.flush()
    while head := source.read(_LENGTH.size):
        data = source.read(_LENGTH.unpack(head)[0])
        try:
            qpy.load(io.BytesIO(data))
        except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
            message = (str(getattr(error, "message", "")) or str(error))[:_MOST_WORDS].encode()
            answers.write(_WRONG + _LENGTH.pack(len(message)) + message)
        else:
            answers.write(_SOUND)
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
