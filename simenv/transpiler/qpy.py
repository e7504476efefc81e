"""QPY files as QuantumCircuits, those of other users in a sandbox.

Conversion of QPY, Qiskit's file format of circuits, to a QuantumCircuit. Invariant: Qiskit's reader
gets only a file whose header announces one circuit within the limits, and no block beyond them;
headers of definitions inside it are checked by Qiskit. Only versions of QPY that hold plain data
are read: before 13 a file may hold formulas as serialized objects or as code of another library.
Files of other users are first read by a separate process (`simenv.sandbox.function_process`).
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from typing import Any

from simenv.errors import LimitExceededError, ProgramError
from simenv.model import MAX_CLBITS, MAX_QUBITS
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler import qiskit_runtime
from simenv.transpiler.qiskit_runtime import label

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
        QPY_PROCESS.convert(data, name)
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


QPY_PROCESS = SandboxProcess(__name__, "checked")


def checked(data: bytes) -> bytes:
    """Read a file as `parse` does."""
    parse(data)
    return b""
