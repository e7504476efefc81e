"""QPY files as QuantumCircuits, those of other users in a sandbox.

Conversion of QPY, Qiskit's file format of circuits, to a QuantumCircuit. Invariant: Qiskit's reader
gets only a file whose header announces one circuit within the limits, and no block beyond them;
headers of definitions inside it are checked by Qiskit. Only versions of QPY that hold plain data
are read: before 13 a file may hold formulas as serialized objects or as code of another library.

Sandbox for QPY files of other users: a process with bounds of memory and time reads them. Qiskit's
reader trusts the sizes in a file: a kilobyte may request gigabytes, and the process ends if these
are not available. The same is true of the definitions of gates. So an untrusted file is given to a
function in a separate process, which returns bytes. The sandbox gets only files whose headers `qpy`
has passed, as older versions hold code. The process is started with the first file, kept, and
restarted after a file that ended it.

python -m simenv.transpiler.qpy MODULE FUNCTION  # reads files, writes answers
"""

from __future__ import annotations

import io
import os
import re
import select
import struct
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec

from simenv.config import interpreter
from simenv.errors import ConfigError, LimitExceededError, ProgramError, SimenvError
from simenv.model import MAX_CLBITS, MAX_QUBITS
from simenv.process import limit_memory
from simenv.transpiler import qiskit_runtime
from simenv.transpiler.qiskit_runtime import label
from simenv.wire.codec import error_of, refusal
from simenv.wire.messages.client import MAX_MESSAGE_BYTES, Refusal

MAGIC = b"QISKIT"
OLDEST = 13

# The file: magic, version of QPY, version of Qiskit (3), number of programs, encoding of formulas;
# then the kind of the programs, and since version 16 the offset of each.
_FILE = struct.Struct("!6sBBBBQcc")
_OFFSET = struct.Struct("!Q")
_TABLE_SINCE = 16
# A circuit: sizes of name and global phase, its qubits, clbits, bytes of metadata, registers,
# instructions, variables.
_CIRCUIT = struct.Struct("!HcHIIQIQI")
# A block's circuit among the parameters of an instruction: its kind, its size, and its own header,
# of which the global phase is a float.
_BLOCK = re.compile(rb"q(.{8})(?=(..f\x00\x08.{32}))", re.DOTALL)


def parse(data: bytes, name: str = "", *, trusted: bool = True) -> Any:
    """Return the circuit of a QPY file. Raises ProgramError and LimitExceededError with the reason.
    A file that is not `trusted` is first read by a separate process, as its sizes are only
    claims."""
    check_header(data, name)
    if not trusted:
        CONFINED.convert(data, name)
    from qiskit import qpy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files of a later Qiskit
            (circuit,) = qpy.load(io.BytesIO(data))
    except MemoryError as error:
        raise LimitExceededError(f"{label(name)}no memory left to read the circuit") from error
    except Exception as error:
        raise _refusal(name, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _refusal(name, error) from error
    return circuit


def write_qpy(circuit: Any, newest: int = 255) -> bytes:
    """Return a QuantumCircuit as a QPY file of version `newest`, or of this Qiskit's newest if that
    is older. Raises the errors of Qiskit."""
    from qiskit import qpy
    from qiskit.qpy.common import QPY_VERSION

    out = io.BytesIO()
    qpy.dump(circuit, out, version=min(newest, QPY_VERSION))
    return out.getvalue()


def _refusal(name: str, error: BaseException) -> ProgramError:
    text = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    hint = "write it anew with qiskit.qpy.dump, or give the circuit itself"
    return ProgramError(f"{label(name)}the QPY file cannot be read: {text}", hint=hint)


def check_header(data: bytes, name: str = "") -> None:
    """Check the announced sizes of a file. Raises ProgramError, LimitExceededError."""
    qiskit_runtime.qiskit()
    from qiskit.qpy import common

    newest = common.QPY_VERSION
    try:
        _, version, *_, programs, _, kind = _FILE.unpack_from(data)
        if not OLDEST <= version <= newest:
            text = f"{label(name)}QPY of version {version}; {OLDEST} to {newest} are read"
            hint = "load it with the Qiskit that wrote it, and dump it with Qiskit 1.3 or later"
            raise ProgramError(text, hint=hint)
        if programs != 1 or kind != b"q":
            raise ProgramError(
                f"{label(name)}a QPY file with {programs} programs, of kind {kind.decode('latin')}",
                hint="a file holds one circuit; load several with qiskit.qpy and submit_many",
            )
        at = _FILE.size
        if version >= _TABLE_SINCE:
            (at,) = _OFFSET.unpack_from(data, at)
        if at > len(data):
            raise struct.error(f"the circuit begins behind the end, at {at}")
        _check_sizes(_CIRCUIT.unpack_from(data, at), name)
    except struct.error as error:
        hint = "write it anew"
        raise ProgramError(f"{label(name)}the QPY file is torn: {error}", hint=hint) from error
    for match in _BLOCK.finditer(data):
        (size,) = _OFFSET.unpack(match.group(1))
        if match.end() + size <= len(data):
            _check_sizes(_CIRCUIT.unpack(match.group(2)), name)


def _check_sizes(header: tuple[Any, ...], name: str) -> None:
    _, _, _, qubits, clbits, _, _, instructions, _ = header
    if qubits > MAX_QUBITS:
        raise qiskit_runtime.too_many_bits("qubits", qubits, MAX_QUBITS, label(name))
    if clbits > MAX_CLBITS:
        raise qiskit_runtime.too_many_bits("clbits", clbits, MAX_CLBITS, label(name))
    if instructions > qiskit_runtime.MAX_OPERATIONS:
        raise qiskit_runtime.too_many_operations(label(name))


MEMORY_BYTES = 2**30  # in addition to the memory of Qiskit itself
SECONDS = 10.0
QUEUE_SECONDS = 60.0  # longest wait for the files of other callers
START_SECONDS = 120.0  # longest wait until Qiskit is loaded
_LENGTH = struct.Struct("!Q")
_READY, _DONE, _REFUSED = b"r", b"d", b"w"


class SandboxProcess:
    """Sandbox process. Thread-safe; one file at a time. A forked child starts its own process."""

    def __init__(
        self,
        module: str = __name__,
        function: str = "checked",
        subject: str = "QPY file",
        verbs: tuple[str, str] = ("reading", "read"),
        seconds: float | None = None,
    ) -> None:
        """`function` of `module`: converts the bytes of a file, and raises SimenvError. `subject`,
        `verbs`: names of what is read and of what is done with it, for messages. `seconds`: for one
        file; None: SECONDS."""
        self._function, self._subject, self._verbs = (module, function), subject, verbs
        self._own_seconds = seconds
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def _seconds(self) -> float:
        return SECONDS if self._own_seconds is None else self._own_seconds

    def convert(self, data: bytes, name: str = "", *, head: bytes = b"") -> bytes:
        """Return what the function returns for a file, with `head` before its bytes. Raises its
        errors, LimitExceededError for a file that exceeds the limits or gets no turn within
        QUEUE_SECONDS, ConfigError if there is no Python interpreter for it."""
        prefix = label(name)
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

    def _start_process(self) -> subprocess.Popen[bytes]:
        if self._pid != os.getpid():
            self._pid, self._process = os.getpid(), None
        if self._process is None:
            python, path = _interpreter()
            argv = [python, "-P", "-m", __name__, *self._function]
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
                text = "QPY cannot be read here: the process that reads it first does not start"
                hint = "send OpenQASM; or see that `python -c 'import qiskit.qpy'` works"
                raise ProgramError(text, hint=hint)
        return self._process

    def _answer(self, head: bytes, data: bytes) -> tuple[bytes, bytes]:
        """Return the verdict, and the function's result or its error. The verdict is b"" if the
        process ended or took too long. The process is ended if its answer was not read completely,
        because the rest would be taken for the next answer."""
        process = self._start_process()
        try:
            verdict, answer = self._exchange(process, head, data)
        except (OSError, TimeoutError, struct.error):
            verdict, answer = b"", b""
        except BaseException:
            self._end()
            raise
        if verdict not in (_DONE, _REFUSED):
            self._end()
        return verdict, answer

    def _exchange(
        self, process: subprocess.Popen[bytes], before: bytes, data: bytes
    ) -> tuple[bytes, bytes]:
        assert process.stdin is not None
        end_s = monotonic() + self._seconds
        process.stdin.write(_LENGTH.pack(len(before) + len(data)) + before)
        process.stdin.write(data)
        process.stdin.flush()
        head = self._read(process, 1 + _LENGTH.size, end_s - monotonic())
        (size,) = _LENGTH.unpack(head[1:])
        if size > MAX_MESSAGE_BYTES:
            return b"", b""
        answer = self._read(process, size, end_s - monotonic())
        return head[:1] if len(answer) == size else b"", answer

    def _read(self, process: subprocess.Popen[bytes], size: int, seconds: float) -> bytes:
        """Read `size` bytes, or fewer if the process ends. Raises TimeoutError."""
        assert process.stdout is not None
        descriptor, end = process.stdout.fileno(), monotonic() + seconds
        result = bytearray()
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(descriptor, select.POLLIN)
        while len(result) < size:
            if not poll.poll(max(0.0, end - monotonic()) * 1e3):
                raise TimeoutError
            part = os.read(descriptor, size - len(result))
            if not part:
                break
            result += part
        return bytes(result)

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


CONFINED = SandboxProcess()


def checked(data: bytes) -> bytes:
    """Read a file as `parse` does."""
    parse(data)
    return b""


def _end_with_input() -> None:
    """End this process when its starter has ended, also amid a file that takes for ever."""
    watch = select.poll()
    watch.register(sys.stdin.fileno(), 0)  # nothing but the end of the other side
    watch.poll()
    os._exit(1)


def main() -> int:
    """Convert files until the input ends. Arguments: module and name of the function."""
    import importlib

    from qiskit import qpy as _  # noqa: F401 - its memory is not the file's

    function = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
    limit_memory(MEMORY_BYTES)
    threading.Thread(target=_end_with_input, daemon=True).start()
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(_READY)
    answers.flush()
    while head := source.read(_LENGTH.size):
        data = source.read(_LENGTH.unpack(head)[0])
        verdict, answer = _DONE, b""
        try:
            answer = function(data)
        except SimenvError as error:
            verdict, answer = _REFUSED, msgspec.msgpack.encode(refusal(error))
        except BaseException as error:  # noqa: BLE001 - a Rust panic is no Exception
            wrong = ProgramError(f"the program cannot be read: {type(error).__name__}")
            verdict, answer = _REFUSED, msgspec.msgpack.encode(refusal(wrong))
        answers.write(verdict + _LENGTH.pack(len(answer)) + answer)
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
