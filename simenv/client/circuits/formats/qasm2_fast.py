"""Reader of plain OpenQASM 2 without Qiskit.

The import of Qiskit takes 0.6 s, and its parser takes twice the time of this reader. Plain: the
gates of `qelib1.inc`, registers, measurements, resets, barriers, and angles that are products and
quotients of numbers and pi. Invariant: the program is, bit for bit, that of Qiskit's parser and
encoder (`pack`), or None: then the text is not plain, or wrong, and that parser handles it. No
error is raised here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from simenv.client.circuits.common.text_checks import SourceText
from simenv.client.circuits.encode.program_builder import ProgramBuilder
from simenv.errors import SimenvError
from simenv.model import Program

MAX_CHARACTERS = 2**20  # text that is not plain is read twice
MAX_BITS = 2**18  # qubits of all operations, summed

# Gates of qelib1.inc by their numbers of qubits and angles.
_SHAPES = {
    (1, 0): ("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg"),
    (1, 1): ("u1", "p", "rx", "ry", "rz"),
    (1, 2): ("u2",),
    (1, 3): ("u3", "u"),
    (2, 0): ("cx", "cz", "cy", "swap", "ch", "csx"),
    (2, 1): ("crx", "cry", "crz", "cu1", "cp", "rxx", "rzz"),
    (2, 3): ("cu3",),
    (2, 4): ("cu",),
    (3, 0): ("ccx", "cswap", "rccx"),
    (4, 0): ("rc3x", "c3x", "c3sqrtx"),
    (5, 0): ("c4x",),
}
_PROGRAM_NAMES = {"rc3x": "rcccx", "c3x": "mcx", "c3sqrtx": "c3sx", "c4x": "mcx"}  # other names
_GATES = {
    name: (_PROGRAM_NAMES.get(name, name), *shape)
    for shape, names in _SHAPES.items()
    for name in names
}
# Names that no register of plain text has: keywords, and gates that are not above.
_RESERVED = frozenset(
    {
        *("barrier", "creg", "delay", "gate", "if", "include", "measure", "opaque", "qreg"),
        *("reset", "u0", "pi", "sin", "cos", "tan", "asin", "acos", "atan", "exp", "ln", "sqrt"),
    }
)
_SPACE = " \t\n"
_HEAD = re.compile(r'[ \t\n]*OPENQASM[ \t\n]+2\.0[ \t\n]*;[ \t\n]*include[ \t\n]*"qelib1\.inc"')
_STATEMENT = re.compile(
    r"([a-z][A-Za-z0-9_]*)(?:[ \t\n]*\(([^()]*)\)[ \t\n]*|[ \t\n]+)([a-z].*)", re.DOTALL
)
_OPERAND = re.compile(
    r"([a-z][A-Za-z0-9_]*)[ \t\n]*(?:\[[ \t\n]*(0|[1-9][0-9]{0,5})[ \t\n]*\][ \t\n]*)?"
)
_FACTOR = re.compile(
    r"[ \t\n]*(?:(pi)|(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,20})?(?:e-?[0-9]{1,2})?)[ \t\n]*([*/]|\Z)"
)

Registers = dict[str, tuple[int, int]]  # first bit and size


class _NotPlainText(Exception):
    """The text is not plain."""


def program(source: SourceText) -> Program | None:
    """Return the program of a plain text of at most MAX_CHARACTERS; else None."""
    return read(source.text) if len(source.text) <= MAX_CHARACTERS else None


def read(text: str) -> Program | None:
    """Return the program of a plain text of OpenQASM 2 that passed `text_checks`; else None."""
    head = _HEAD.match(text)
    statements = text[head.end() :].split(";") if head is not None else []
    if len(statements) < 2 or statements[0].strip(_SPACE) or statements[-1].strip(_SPACE):
        return None
    reader = _Reader()
    try:
        reader.add_statements(statements[1:-1])
        return reader.program()
    except (_NotPlainText, SimenvError):
        return None


class _Reader:
    """Reader of one text, by statements; raises _NotPlain at the first that is not plain."""

    def __init__(self) -> None:
        self._tape = ProgramBuilder()
        self._qubits: Registers = {}
        self._clbits: Registers = {}
        self._cached_operands: dict[str, Sequence[int]] = {}  # of gates, by their text
        self._bits: dict[str, int] = {}  # those of them that are one qubit
        self._rows: dict[str, tuple[int, int]] = {}  # of gates without angles: row, width
        self._statements: dict[str, Callable[[str], None]] = {
            "qreg": lambda rest: self._register(self._qubits, rest),
            "creg": lambda rest: self._register(self._clbits, rest),
            "measure": self._measure,
            "reset": self._reset,
            "barrier": self._barrier,
        }

    def add_statements(self, statements: list[str]) -> None:
        ops, qubits, bits, rows = self._tape.ops, self._tape.qubits, self._bits, self._rows
        for text in statements:
            statement = text.strip(_SPACE)
            name, _, rest = statement.partition(" ")
            if name in rows:  # almost all statements: no regular expression
                row, width = rows[name]
                operands = [bits.get(operand, -1) for operand in rest.split(",")]
                if len(operands) == width and -1 not in operands and len(set(operands)) == width:
                    ops.append(row)
                    qubits += operands
                    continue
            self._add_statement(statement)

    def _add_statement(self, statement: str) -> None:
        result = _STATEMENT.fullmatch(statement)
        if result is None:
            raise _NotPlainText
        name, angles, rest = result.groups()
        gate = _GATES.get(name)
        if gate is not None:
            self._gate(gate, angles, rest)
            if angles is None:
                self._rows[name] = self._tape.row(gate[0], gate[1], 0, 0), gate[1]
        elif angles is None and name in self._statements:
            self._statements[name](rest)
        else:
            raise _NotPlainText
        if len(self._tape.qubits) > MAX_BITS:
            raise _NotPlainText

    def program(self) -> Program:
        if not self._qubits or len(self._tape.qubits) > MAX_BITS:
            raise _NotPlainText
        registers = tuple([(name, size) for name, (_, size) in self._clbits.items()])
        return self._tape.program(_end(self._qubits), _end(self._clbits), registers)

    def _register(self, registers: Registers, rest: str) -> None:
        result = _OPERAND.fullmatch(rest)
        name = "" if result is None else result[1]
        is_declared = (
            name in self._qubits or name in self._clbits or name in _GATES or name in _RESERVED
        )
        size = 0 if result is None or result[2] is None else int(result[2])
        if is_declared or not size:
            raise _NotPlainText
        registers[name] = _end(registers), size

    def _gate(self, gate: tuple[str, int, int], angles: str | None, rest: str) -> None:
        name, width, params = gate
        values = [_angle(text) for text in angles.split(",")] if angles is not None else []
        if len(values) != params:
            raise _NotPlainText
        operands = self._gate_operands(rest)
        tape = self._tape
        if width == 1 and len(operands) == 1:
            row = tape.row(name, 1, 0, params)
            for qubit in operands[0]:
                tape.ops.append(row)
                tape.qubits.append(qubit)
                tape.params += values
            return
        qubits = [bits[0] for bits in operands if len(bits) == 1]
        if len(operands) != width or len(set(qubits)) != width:
            raise _NotPlainText  # perhaps a whole register is an operand
        tape.ops.append(tape.row(name, width, 0, params))
        tape.qubits += qubits
        tape.params += values

    def _gate_operands(self, rest: str) -> list[Sequence[int]]:
        """Return the cached `_operands` of a gate: the same text always means the same bits."""
        cached = self._cached_operands
        try:
            return [cached[operand] for operand in rest.split(",")]
        except KeyError:
            operands = _operands(self._qubits, rest)
            operands_by_text = dict(zip(rest.split(","), operands, strict=True))
            cached.update(operands_by_text)
            self._bits.update(
                (text, bits[0]) for text, bits in operands_by_text.items() if len(bits) == 1
            )
            return operands

    def _measure(self, rest: str) -> None:
        measured, arrow, stored = rest.partition("->")
        qubits = _operands(self._qubits, measured.rstrip(_SPACE))
        clbits = _operands(self._clbits, stored.lstrip(_SPACE)) if arrow else []
        if len(qubits) != 1 or len(clbits) != 1 or len(qubits[0]) != len(clbits[0]):
            raise _NotPlainText
        if type(qubits[0]) is not type(clbits[0]):  # a bit and a register, perhaps of one bit
            raise _NotPlainText
        row = self._tape.row("measure", 1, 1, 0)
        self._tape.ops += [row] * len(qubits[0])
        self._tape.qubits += qubits[0]
        self._tape.clbits += clbits[0]

    def _reset(self, rest: str) -> None:
        operands = _operands(self._qubits, rest)
        if len(operands) != 1:
            raise _NotPlainText
        row = self._tape.row("reset", 1, 0, 0)
        self._tape.ops += [row] * len(operands[0])
        self._tape.qubits += operands[0]

    def _barrier(self, rest: str) -> None:
        qubits = [qubit for bits in _operands(self._qubits, rest) for qubit in bits]
        if len(set(qubits)) < len(qubits):
            raise _NotPlainText
        self._tape.ops.append(self._tape.row("barrier", len(qubits), 0, 0))
        self._tape.qubits += qubits


def _end(registers: Registers) -> int:
    return sum(size for _, size in registers.values())


def _operands(registers: Registers, text: str) -> list[Sequence[int]]:
    """Return the bits of each operand: one bit, or all bits of a register."""
    results: list[Sequence[int]] = []
    for item in text.split(","):
        operand = _OPERAND.fullmatch(item.strip(_SPACE))
        if operand is None:
            raise _NotPlainText
        name, index = operand.groups()
        start, size = registers.get(name, (0, 0))
        if index is None and size:
            results.append(range(start, start + size))
        elif index is not None and int(index) < size:
            results.append((start + int(index),))
        else:
            raise _NotPlainText
    return results


def _angle(text: str) -> float:
    """Evaluate [-] FACTOR (* or / FACTOR)... from the left, in float64 as the parser does."""
    text = text.strip(_SPACE)
    is_negative = text.startswith("-")
    position, before, value = int(is_negative), "", 1.0
    while position < len(text) or not before:
        result = _FACTOR.match(text, position)
        if result is None:
            raise _NotPlainText
        factor = math.pi if result[1] else float(result[0].rstrip(_SPACE + "*/"))
        if before == "/" and not factor:
            raise _NotPlainText
        value = factor if not before else value * factor if before == "*" else value / factor
        position, before = result.end(), result[2] or "."
    if before != "." or not math.isfinite(value):
        raise _NotPlainText
    return -value if is_negative else value
