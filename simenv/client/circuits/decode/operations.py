"""Decoding of a Program's arrays: operations, and expressions as those of Qiskit.

Invariant: every index is checked here, so that callers need no checks; tokens that are no
expression are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from simenv.errors import ProgramError
from simenv.model import (
    MARKERS,
    MAX_CLBITS,
    MAX_QUBITS,
    MAX_UNITARY_QUBITS,
    MAX_VARIABLES,
    READ_FORMATS,
    Program,
    Token,
)


@dataclass(frozen=True, slots=True)
class DecodedOperation:
    """One operation. `slots[k]` is the slot of parameter k, -1 if `params[k]` is its value.

    `matrix`: complex128 [2**qubits, 2**qubits] of a `unitary`, row by row.
    """

    name: str
    qubits: tuple[int, ...]
    clbits: tuple[int, ...]
    params: tuple[float, ...]
    slots: tuple[int, ...]
    matrix: bytes = b""


def operations(program: Program) -> Iterator[DecodedOperation]:
    """Iterate over the operations in order. Raises ProgramError if the arrays do not agree."""
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
        operation = DecodedOperation(
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
    """Raise ProgramError for another format, or for impossible numbers of bits."""
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
    """Decode little-endian numbers (`H`, `i` or `d`). Raises ProgramError for another length."""
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
    """Return the matrix of each row of the operation table that has one."""
    rows = [row for row, name in enumerate(program.names) if name == "unitary"]
    if len(rows) != len(program.matrices):
        raise ProgramError(f"{len(rows)} kinds of unitary, but {len(program.matrices)} matrices")
    for row, matrix in zip(rows, program.matrices, strict=True):
        width = arities[3 * row]
        if not 0 < width <= MAX_UNITARY_QUBITS or len(matrix) != 16 << 2 * width:
            raise ProgramError(f"a matrix of {len(matrix)} bytes for {width} qubits")
    return dict(zip(rows, program.matrices, strict=True))


def _check_bits(operation: DecodedOperation, at: int, program: Program) -> None:
    if any(qubit >= program.num_qubits for qubit in operation.qubits) or any(
        clbit >= program.num_clbits for clbit in operation.clbits
    ):
        raise ProgramError(f"operation {at} ({operation.name}): a bit that does not exist")
    if operation.name in (*MARKERS, "store") and (
        operation.qubits or operation.clbits or operation.params
    ):
        raise ProgramError(f"operation {at}: the marker {operation.name!r} has operands")


Result = TypeVar("Result")


class ExpressionReader:
    """Reader of the expressions of a program, in order."""

    def __init__(
        self, program: Program, registers: list[Any], clbits: list[Any], variables: list[Any]
    ) -> None:
        """`registers`: of Qiskit, or lists of loose clbits; `variables`: of Qiskit."""
        self._tokens = array(program.conditions, "i")
        self._registers = registers
        self._clbits = clbits
        self._variables = variables
        self._constants = [int.from_bytes(value, "little") for value in program.constants]
        self._at = 0

    def value(self) -> Any:
        """Read the next expression, which has one value."""
        return self._next(self._value)

    def integers(self) -> list[int]:
        """Read the next expression, which consists of constants."""
        return self._next(self._read_constants)

    def store(self) -> tuple[Any, Any]:
        """Read the next expression; return the target of the store and the stored value."""
        return self._next(self._store)

    def _next(self, read: Callable[[list[tuple[int, int, int]]], Result]) -> Result:
        tokens: list[tuple[int, int, int]] = []
        try:
            while True:
                token, operand, width = self._tokens[self._at : self._at + 3]
                self._at += 3
                if token == Token.END:
                    return read(tokens)
                if operand < 0 or not 0 <= width < 1 << 16:
                    raise IndexError(operand)
                tokens.append((token, operand, width))
        except (IndexError, ValueError, TypeError) as error:
            raise ProgramError(f"an expression's tokens make none ({error})") from error

    def _read_constants(self, tokens: list[tuple[int, int, int]]) -> list[int]:
        if not tokens or any(token != Token.VALUE for token, _, _ in tokens):
            raise ValueError("no constants")
        return [self._constants[operand] for _, operand, _ in tokens]

    def _value(self, tokens: list[tuple[int, int, int]]) -> Any:
        stack: list[Any] = []
        for token, operand, width in tokens:
            self._push(stack, Token(token), operand, width)
        (result,) = stack
        return result

    def _store(self, tokens: list[tuple[int, int, int]]) -> tuple[Any, Any]:
        token, operand, width = tokens.pop()
        reference = {
            Token.SET_CLBIT: Token.CLBIT,
            Token.SET_REGISTER: Token.REGISTER,
            Token.SET_VARIABLE: Token.VARIABLE,
        }.get(Token(token))
        if reference is None:
            raise ValueError("nothing is stored")
        return self._value([(reference, operand, width)]), self._value(tokens)

    def _push(self, stack: list[Any], token: Token, operand: int, width: int) -> None:
        from qiskit.circuit.classical import expr, types

        kind = types.Uint(width) if width else types.Bool()
        if token == Token.CLBIT:
            stack.append(expr.Var(self._clbits[operand], types.Bool()))
        elif token == Token.REGISTER:
            register = self._registers[operand]
            if isinstance(register, list):
                raise ValueError("loose bits are no register")
            stack.append(expr.Var(register, kind))
        elif token == Token.VARIABLE:
            stack.append(self._variables[operand])
        elif token == Token.VALUE:
            value = self._constants[operand]
            stack.append(expr.Value(value if width else bool(value), kind))
        elif token == Token.CAST:
            stack.append(expr.Cast(stack.pop(), kind))
        elif token in (Token.BIT_NOT, Token.LOGIC_NOT):
            stack.append(expr.Unary(expr.Unary.Op[token.name], stack.pop(), kind))
        else:
            right, left = stack.pop(), stack.pop()
            if token == Token.INDEX:
                stack.append(expr.Index(left, right, kind))
            else:
                stack.append(expr.Binary(expr.Binary.Op[token.name], left, right, kind))
