"""Concatenation of two programs, which have the same qubits.

Classical registers of one name and size are the same bits; others are appended. Invariant: the
tables of the first program are a prefix of the joined ones, so its operations keep their arrays.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator

import msgspec

from simenv.errors import LimitExceededError, ProgramError
from simenv.model import MAX_CLBITS, Program, Token

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
