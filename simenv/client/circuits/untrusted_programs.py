"""Conversion of programs of other users, in a process with bounds of memory and time.

Invariant: this process sees the header of a QPY file, or a text, and its program, but never its
circuit: the definition of a gate may take a thousand times the memory and time of the gate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.circuits.decoder import to_qiskit
from simenv.client.circuits.load import load
from simenv.client.circuits.parameters import PackedCircuit, ParameterSlots
from simenv.errors import DECODE_ERRORS, LimitExceededError, ProgramError
from simenv.model import decode_program
from simenv.sandbox.function_process import SandboxProcess
from simenv.transpiler import qpy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Converted(msgspec.Struct, frozen=True, array_like=True):
    packed: bytes
    parameters: tuple[str, ...]


MAX_ROWS_BYTES = 48 * 2**20  # of the values of one program
PROGRAMS = SandboxProcess(__name__, "packed")


def load_untrusted(data: bytes, name: str) -> PackedCircuit:
    """Convert a QPY file. Angles of its parameters cannot be set. Raises ProgramError,
    LimitExceededError, ConfigError."""
    qpy.check_header(data, name)
    result = msgspec.msgpack.decode(PROGRAMS.convert(data, name), type=_Converted)
    program = decode_program(result.packed)
    measures, slots = program.measures, ParameterSlots(result.parameters, None)
    return PackedCircuit(result.packed, program.num_qubits, measures, result.parameters, slots)


def packed(data: bytes) -> bytes:
    """Convert a QPY file; called in the sandbox process."""
    loaded = load(qpy.parse(data))
    return msgspec.msgpack.encode(_Converted(loaded.packed, loaded.parameters))


class _Unbound(msgspec.Struct, frozen=True, array_like=True):
    """A program and the values of its parameters, for the sandbox process. `data`: a QPY file, or a
    packed Program; b"": there is `text`."""

    text: str
    data: bytes
    values: list[Any] | dict[str, Any] | None


class _Bound(msgspec.Struct, frozen=True, array_like=True):
    """`rows`: float64 [count, slots]; `plain`: slot k is parameter k."""

    packed: bytes
    parameters: tuple[str, ...]
    rows: bytes
    count: int
    plain: bool


class BoundCircuit(msgspec.Struct, frozen=True):
    """A circuit whose parameters are the slots of its program, and the values of the slots, float64
    [K, slots]; None: no values were given. `plain`: slot k is parameter k, so that gradients by
    slots are gradients by parameters."""

    circuit: PackedCircuit
    rows: NDArray[np.float64] | None
    plain: bool


def load_bound(
    source: bytes | str, values: Any, sandbox: SandboxProcess, head: bytes = b""
) -> BoundCircuit:
    """Convert text, a QPY file or a packed Program, and evaluate the expressions of its parameters.
    `values`: as for `PackedCircuit.bind`, as builtins; `sandbox`: of `bound`, or of a function that
    calls it when `head` stands before. Raises ProgramError, OptionError,
    LimitExceededError, ConfigError."""
    text, data = (source, b"") if isinstance(source, str) else ("", source)
    asked = msgspec.msgpack.encode(_Unbound(text, data, values))
    return bound_circuit(sandbox.convert(asked, head=head), values is not None)


def bound_circuit(answer: bytes, has_values: bool) -> BoundCircuit:
    """Return the circuit in an answer of `bound`. `has_values`: values were given."""
    result = msgspec.msgpack.decode(answer, type=_Bound)
    program = decode_program(result.packed)
    rows, names = None, result.parameters
    if has_values:
        import numpy as np

        rows = np.frombuffer(result.rows, np.float64).reshape(result.count, program.num_slots)
        names = tuple(f"p{slot}" for slot in range(program.num_slots))
    measures, slots = program.measures, ParameterSlots(names, None)
    circuit = PackedCircuit(result.packed, program.num_qubits, measures, names, slots)
    return BoundCircuit(circuit, rows, result.plain)


def bound(data: bytes) -> bytes:
    """Convert a program and its values; called in the sandbox process."""
    asked = msgspec.msgpack.decode(data, type=_Unbound)
    return bound_of(asked.text, asked.data, asked.values)


def bound_of(text: str, data: bytes, values: Any) -> bytes:
    """Convert a program, text or bytes, and its values; called in the sandbox process."""
    loaded = load(_circuit(data) if data else f"{text}\n")  # never a path
    slots = loaded.slots
    rows = None if values is None else slots.values(values)
    is_plain = slots.expressions is None or slots.expressions == slots.parameters
    if rows is not None and rows.nbytes > MAX_ROWS_BYTES:
        size = f"{len(rows)} sets of parameter values take {rows.nbytes} bytes"
        hint = "several requests with fewer sets"
        raise LimitExceededError(f"{size}; the limit is {MAX_ROWS_BYTES}", hint=hint)
    count, packed = (0, b"") if rows is None else (len(rows), rows.tobytes())
    answer = _Bound(loaded.packed, loaded.parameters, packed, count, is_plain)
    return msgspec.msgpack.encode(answer)


def _circuit(data: bytes) -> Any:
    """Return what `load` takes. Raises ProgramError for a packed Program whose arrays do not agree,
    which `load` would believe."""
    if data.startswith(qpy.MAGIC):
        return qpy.parse(data)
    try:
        program = decode_program(data)
    except DECODE_ERRORS as error:
        hint = "the bytes of simenv.model.Program.packed()"
        raise ProgramError(f"the bytes are no packed program: {error}", hint=hint) from error
    to_qiskit(program)
    return program
