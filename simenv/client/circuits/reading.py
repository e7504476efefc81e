"""A Program's arrays read back, operation by operation.

Invariant: every index is checked here; what comes out can be used without looking twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simenv.errors import ProgramError
from simenv.model import (
    MARKERS,
    MAX_CLBITS,
    MAX_QUBITS,
    MAX_UNITARY_QUBITS,
    MAX_VARIABLES,
    READ_FORMATS,
    Program,
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. `slots[k]` is the slot of parameter k, -1 where `params[k]` is its value.

    `matrix`: complex128 [2**qubits, 2**qubits] of a `unitary`, row by row.
    """

    name: str
    qubits: tuple[int, ...]
    clbits: tuple[int, ...]
    params: tuple[float, ...]
    slots: tuple[int, ...]
    matrix: bytes = b""


def operations(program: Program) -> Iterator[Operation]:
    """The operations in order. ProgramError if the arrays do not fit one another."""
    arities = array(program.arities, "H", 3 * len(program.names))
    qubits = array(program.qubits, "H")
    clbits = array(program.clbits, "H")
    params = array(program.params, "d")
    slots = _slots(program, len(params))
    matrices = _matrices(program, arities)
    q = c = p = 0
    for at, row in enumerate(array(program.ops, "H")):
        if row >= len(program.names):
            raise ProgramError(f"operation {at} is row {row} of a table of {len(program.names)}")
        num_qubits, num_clbits, num_params = arities[3 * row : 3 * row + 3]
        operation = Operation(
            program.names[row],
            tuple(qubits[q : q + num_qubits]),
            tuple(clbits[c : c + num_clbits]),
            tuple(params[p : p + num_params]),
            tuple(slots.get(p + k, -1) for k in range(num_params)),
            matrices.get(row, b""),
        )
        q, c, p = q + num_qubits, c + num_clbits, p + num_params
        if max(q - len(qubits), c - len(clbits), p - len(params)) > 0:
            raise ProgramError(f"operation {at} ({operation.name}): its arrays end too early")
        _check_bits(operation, at, program)
        yield operation
    if (q, c, p) != (len(qubits), len(clbits), len(params)):
        raise ProgramError("the arrays are longer than the operations need")


def check_sizes(program: Program) -> None:
    """ProgramError if the format is another one, or the numbers of bits cannot be."""
    if program.format not in READ_FORMATS:
        read = " and ".join(map(str, READ_FORMATS))
        raise ProgramError(f"a program of format {program.format}; this reads {read}")
    sizes = [size for _, size in program.registers]
    if min(sizes, default=0) < 0 or sum(sizes) != program.num_clbits:
        raise ProgramError(f"registers of {sizes[:9]} bits for {program.num_clbits} clbits")
    if not (0 <= program.num_qubits <= MAX_QUBITS and program.num_clbits <= MAX_CLBITS):
        raise ProgramError(f"{program.num_qubits} qubits and {program.num_clbits} clbits")
    widths = program.variables
    if len(widths) > MAX_VARIABLES or not all(0 <= width <= MAX_CLBITS for width in widths):
        raise ProgramError(f"{len(widths)} variables of up to {max(widths)} bits")


def array(data: bytes, kind: str, length: int | None = None) -> Sequence[int]:
    """Little-endian numbers (`H`, `i` or `d`); ProgramError if the bytes are not so many."""
    size = struct.calcsize(f"<{kind}")
    if len(data) % size or (length is not None and len(data) != size * length):
        raise ProgramError(f"{len(data)} bytes are no array of {length or 'some'} {kind!r}")
    return struct.unpack(f"<{len(data) // size}{kind}", data)


def _slots(program: Program, num_params: int) -> dict[int, int]:
    pairs = array(program.slots, "i")
    if len(pairs) % 2:
        raise ProgramError("the table of slots is no table of pairs")
    slots = dict(zip(pairs[::2], pairs[1::2], strict=True))
    for position, slot in slots.items():
        if not (0 <= position < num_params and 0 <= slot < program.num_slots):
            raise ProgramError(f"slot {slot} of parameter {position} does not exist")
    return slots


def _matrices(program: Program, arities: Sequence[int]) -> dict[int, bytes]:
    """The matrix of each row of the table that has one."""
    rows = [row for row, name in enumerate(program.names) if name == "unitary"]
    if len(rows) != len(program.matrices):
        raise ProgramError(f"{len(rows)} kinds of unitary, but {len(program.matrices)} matrices")
    for row, matrix in zip(rows, program.matrices, strict=True):
        width = arities[3 * row]
        if not 0 < width <= MAX_UNITARY_QUBITS or len(matrix) != 16 << 2 * width:
            raise ProgramError(f"a matrix of {len(matrix)} bytes for {width} qubits")
    return dict(zip(rows, program.matrices, strict=True))


def _check_bits(operation: Operation, at: int, program: Program) -> None:
    if any(qubit >= program.num_qubits for qubit in operation.qubits) or any(
        clbit >= program.num_clbits for clbit in operation.clbits
    ):
        raise ProgramError(f"operation {at} ({operation.name}): a bit that does not exist")
    if operation.name in (*MARKERS, "store") and (
        operation.qubits or operation.clbits or operation.params
    ):
        raise ProgramError(f"operation {at}: the marker {operation.name!r} has operands")
