"""Builder of the flat arrays of one Program, and the concatenation of two.

Invariant: rows of the operation table, constants and slots are numbered in the order of first use,
so that equal circuits give equal bytes.

Concatenated programs have the same qubits. Classical registers of one name and size are the same
bits; others are appended. The tables of the first program are a prefix of the joined ones, so its
operations keep their arrays.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from simenv.client.circuits import text_checks
from simenv.errors import LimitExceededError, ProgramError
from simenv.model import (
    MAX_CLBITS,
    MAX_MATRIX_BYTES,
    PROGRAM_FORMAT,
    Program,
    Token,
)

_MAX_ROWS = 65_535


class ProgramBuilder:
    """Append-only arrays; the encoder writes to `ops`, `qubits`, `clbits`, `params` directly."""

    __slots__ = (
        *("_constants", "_expressions", "_has_labels", "_matrices", "_matrix_bytes", "_rows"),
        *("clbits", "conditions", "ops", "params", "qubits", "slots", "variables"),
    )

    def __init__(self) -> None:
        self.ops: list[int] = []
        self.qubits: list[int] = []
        self.clbits: list[int] = []
        self.params: list[float] = []
        self.slots: list[int] = []
        self.conditions: list[int] = []
        self.variables: list[int] = []  # width of each
        self._rows: dict[tuple[str, int, int, int, int, str], int] = {}
        self._has_labels = False
        self._matrices: dict[bytes, int] = {}
        self._matrix_bytes = 0
        self._constants: dict[bytes, int] = {}
        self._expressions: dict[Any, int] = {}

    @property
    def expressions(self) -> tuple[Any, ...]:
        """The distinct parameter expressions; slot k is the k-th."""
        return tuple(self._expressions)

    def row(
        self,
        name: str,
        qubits: int,
        clbits: int,
        params: int,
        matrix: int = 0,
        label: str | None = None,
    ) -> int:
        """Return the table's row of an operation with this name and these arities. `label`: its
        name in noise models; None: the same."""
        if label is None:
            label = name
        elif label != name:
            self._has_labels = True
        signature = (name, qubits, clbits, params, matrix, label)
        row = self._rows.get(signature)
        if row is None:
            row = len(self._rows)
            if row == _MAX_ROWS:
                hint = "split it"
                raise LimitExceededError(f"more than {_MAX_ROWS} kinds of operations", hint=hint)
            self._rows[signature] = row
        return row

    def unitary(self, matrix: bytes, qubits: int, label: str | None = None) -> int:
        """Return the table's row for a matrix, complex128 [2**qubits, 2**qubits]. `label`: see
        `row`."""
        number = self._matrices.get(matrix)
        if number is None:
            self._matrix_bytes += len(matrix)
            if self._matrix_bytes > MAX_MATRIX_BYTES:
                message = f"the unitary matrices have more than {MAX_MATRIX_BYTES} bytes in all"
                raise LimitExceededError(message, hint="split the circuit, or decompose the gates")
            number = self._matrices[matrix] = len(self._matrices)
        return self.row("unitary", qubits, 0, 0, number, label)

    def marker(self, name: str) -> int:
        """Append a marker of control flow. Return the argument for `unmark`."""
        rows = len(self._rows)
        self.ops.append(self.row(name, 0, 0, 0))
        return rows

    def unmark(self, rows: int) -> None:
        """Remove the marker that was appended last."""
        self.ops.pop()
        if len(self._rows) > rows:
            self._rows.popitem()

    def slot(self, expression: Any) -> None:
        """Record that the value of this expression becomes the next parameter at run time."""
        number = self._expressions.setdefault(expression, len(self._expressions))
        self.slots += (len(self.params), number)

    def token(self, token: Token, operand: int = 0, width: int = 0) -> None:
        """Append a token of an expression."""
        self.conditions += (token, operand, width)

    def value(self, value: int, width: int) -> None:
        """Append a constant of an expression; width 0: a Bool."""
        size = max(1, (value.bit_length() + 7) // 8)
        constant = value.to_bytes(size, "little")
        number = self._constants.setdefault(constant, len(self._constants))
        self.token(Token.VALUE, number, width)

    def check(self) -> None:
        """Raise LimitExceededError if the arrays have become too long."""
        if len(self.ops) > text_checks.MAX_OPERATIONS:
            raise text_checks.too_many_operations()
        if len(self.qubits) > text_checks.MAX_OPERANDS:
            raise text_checks.too_many_operands()
        if len(self.conditions) > 3 * text_checks.MAX_TOKENS:
            message = f"the expressions have more than {text_checks.MAX_TOKENS} terms in all"
            raise LimitExceededError(message, hint="split the circuit")

    def program(
        self, num_qubits: int, num_clbits: int, registers: tuple[tuple[str, int], ...]
    ) -> Program:
        """Return the Program of the arrays."""
        rows = self._rows
        arities = [number for signature in rows for number in signature[1:4]]
        return Program(
            PROGRAM_FORMAT,
            num_qubits,
            num_clbits,
            registers,
            tuple([signature[0] for signature in rows]),
            struct.pack(f"<{len(arities)}H", *arities),
            struct.pack(f"<{len(self.ops)}H", *self.ops),
            struct.pack(f"<{len(self.qubits)}H", *self.qubits),
            struct.pack(f"<{len(self.clbits)}H", *self.clbits),
            struct.pack(f"<{len(self.params)}d", *self.params),
            len(self._expressions),
            struct.pack(f"<{len(self.slots)}i", *self.slots),
            struct.pack(f"<{len(self.conditions)}i", *self.conditions),
            tuple(self._constants),
            tuple(self.variables),
            self._row_matrices(),
            tuple([signature[5] for signature in rows]) if self._has_labels else (),
        )

    def _row_matrices(self) -> tuple[bytes, ...]:
        """Return the matrix of each row `unitary`: rows with different labels may share one."""
        matrices = tuple(self._matrices)
        if not self._has_labels:
            return matrices
        return tuple([matrices[each[4]] for each in self._rows if each[0] == "unitary"])


_BITS = (Token.CLBIT, Token.SET_CLBIT)
_REGISTERS = (Token.REGISTER, Token.SET_REGISTER)
_VARIABLES = (Token.VARIABLE, Token.SET_VARIABLE)
_UNITARY = "unitary"  # each row of this name has its own matrix
_ARITY = struct.Struct("<3H")
_TOKEN = struct.Struct("<3i")


def joined(first: Program, then: Program) -> Program:
    """Return the program that runs `first`, then `then`. Raises ProgramError if their qubits or
    registers differ, or `first` has free parameters; LimitExceededError."""
    if first.num_qubits != then.num_qubits:
        message = f"a part of {then.num_qubits} qubits, after one of {first.num_qubits}"
        raise ProgramError(message, hint="all parts of a circuit have the same qubits")
    if first.num_slots:
        hint = "circuit.assign_parameters(...)"
        raise ProgramError(f"a part with {first.num_slots} free parameters", hint=hint)
    registers, places = _registers(first.registers, then.registers)
    names, labels, arities, rows = _table(first, then)
    offset = len(first.params) // 8
    return msgspec.structs.replace(
        then,
        format=max(first.format, then.format),
        num_clbits=sum(size for _, size in registers),
        registers=registers,
        names=names,
        arities=arities,
        ops=first.ops + _mapped(then.ops, rows),
        qubits=first.qubits + then.qubits,
        clbits=first.clbits + _mapped(then.clbits, _bits(then.registers, registers, places)),
        params=first.params + then.params,
        slots=b"".join(
            struct.pack("<2i", position + offset, slot)
            for position, slot in struct.iter_unpack("<2i", then.slots)
        ),
        conditions=first.conditions + _conditions(first, then, registers, places),
        constants=first.constants + then.constants,
        variables=first.variables + then.variables,
        matrices=first.matrices + then.matrices,
        labels=labels if first.labels or then.labels else (),
    )


def stores_bits(program: Program) -> bool:
    """Return whether a program stores a value into a classical bit or a register."""
    stored = (Token.SET_CLBIT, Token.SET_REGISTER)
    return any(token in stored for token, _, _ in _TOKEN.iter_unpack(program.conditions))


Registers = tuple[tuple[str, int], ...]


def _registers(first: Registers, then: Registers) -> tuple[Registers, list[int]]:
    """Return all registers, and the number of each register of the second program among them."""
    index_of = {name: number for number, (name, _) in enumerate(first)}
    result = list(first)
    places: list[int] = []
    for name, size in then:
        number = index_of.get(name)
        if number is None:
            number = len(result)
            result.append((name, size))
        elif result[number][1] != size:
            raise ProgramError(
                f"register {name[:64]!r} has {size} bits, and {result[number][1]} in the part"
                " before",
                hint="a register of a part before is the same one; give another another name",
            )
        places.append(number)
    if any(not name for name, _ in result[:-1]):
        message = "a new register in a part, after one with classical bits outside registers"
        raise ProgramError(message, hint="give all classical bits a ClassicalRegister")
    if sum(size for _, size in result) > MAX_CLBITS:
        raise LimitExceededError(f"more than {MAX_CLBITS} classical bits in all parts")
    return tuple(result), places


def _bits(then: Registers, registers: Registers, places: list[int]) -> list[int]:
    """Return the clbit in the joined program of each clbit of the second program."""
    starts = [*itertools.accumulate((size for _, size in registers), initial=0)]
    return [
        starts[place] + k
        for (_, size), place in zip(then, places, strict=True)
        for k in range(size)
    ]


def _table(
    first: Program, then: Program
) -> tuple[tuple[str, ...], tuple[str, ...], bytes, list[int]]:
    """Return names, labels and arities of both programs, and the new row of each row of `then`."""
    table = list(_rows(first))
    row_of = {each: row for row, each in enumerate(table)}
    rows: list[int] = []
    for each in _rows(then):
        row = row_of.get(each)
        if row is None or each[0] == _UNITARY:
            row = len(table)
            table.append(each)
        rows.append(row)
    names, labels, arities = zip(*table, strict=True) if table else ((), (), ())
    return names, labels, b"".join(_ARITY.pack(*arity) for arity in arities), rows


def _rows(program: Program) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Iterate over name, label and arities of each row of the table."""
    arities = _ARITY.iter_unpack(program.arities)
    return zip(program.names, program.noise_names, arities, strict=True)


def _mapped(packed: bytes, into: list[int]) -> bytes:
    """Replace each uint16 number by its entry in `into`."""
    old = struct.unpack(f"<{len(packed) // 2}H", packed)
    return struct.pack(f"<{len(old)}H", *(into[number] for number in old))


def _conditions(first: Program, then: Program, registers: Registers, places: list[int]) -> bytes:
    """Return the tokens of the second program, with operands in the joined tables."""
    bits = _bits(then.registers, registers, places)

    def moved() -> Iterator[bytes]:
        for token, operand, width in _TOKEN.iter_unpack(then.conditions):
            if token in _BITS:
                operand = bits[operand]
            elif token in _REGISTERS:
                operand = places[operand]
            elif token in _VARIABLES:
                operand += len(first.variables)
            elif token == Token.VALUE:
                operand += len(first.constants)
            yield _TOKEN.pack(token, operand, width)

    return b"".join(moved())
