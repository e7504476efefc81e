"""Readers of OpenQASM 2: Qiskit's parser, and a fast reader of plain text.

Invariant: Qiskit's parser gets only text that passed `text_checks`, may read no file, and its
errors are raised as ProgramError or LimitExceededError with line and column. The statements of a
text are scanned to count operations and to locate instructions. Invariant: the scan is one linear
pass and repeats no check of the parser. On a malformed statement it is at worst a wrong column: the
parser refuses the text.

Plain OpenQASM 2 is read without Qiskit, whose import takes 0.6 s, and whose parser takes twice the
time of this reader. Plain: the gates of `qelib1.inc`, registers, measurements, resets, barriers,
and angles that are products and quotients of numbers and pi. Invariant: the program is, bit for
bit, that of Qiskit's parser and encoder (`pack`), or None: then the text is not plain, or wrong,
and that parser handles it. No error is raised here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from simenv.client.circuits import parser_hints, text_checks
from simenv.client.circuits.program_builder import ProgramBuilder
from simenv.client.circuits.text_checks import label
from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simenv.model import Program
from simenv.transpiler import qiskit_runtime

# Possessive quantifiers and an alternative that always matches: no text makes this quadratic.
_ENDS = re.compile(r";[\s;{}]*+")
_STATEMENT = re.compile(r"[\s;{}]*+(gate\b[^;{}]*+\{[^{}]*+\}|[^;{}]*+(?:[;{}]|\Z))")
_KEYWORD = re.compile(r"[A-Za-z_]\w*")
_CONDITION = re.compile(r"if\s*\([^)]*\)\s*")
_OPERAND = re.compile(r"[A-Za-z_]\w*\s*(\[)?")
_NAME = re.compile(r"([A-Za-z_]\w*+)\s*+([,;-]?)")  # and what may follow a register
_COMMENT = re.compile(r"//[^\n]*")
_DEFINITION = re.compile(r"\bgate\s+(\w+)")
_REGISTER = re.compile(r"\b[qc]reg\s+(\w+)\s*\[\s*(\d{1,9})\s*\]")
_IGNORED = frozenset(("OPENQASM", "include", "qreg", "creg", "gate", "opaque", ""))


@dataclass(frozen=True, slots=True)
class Statement:
    """Range of one top-level statement, and the operations that it adds to the circuit."""

    start: int
    end: int
    operations: int
    operands: int  # qubits and clbits of these operations, summed


def statements(text: str) -> Iterator[Statement]:
    """Iterate over the top-level statements in order."""
    sizes = {name: int(size) for name, size in _REGISTER.findall(text)}
    for match in _STATEMENT.finditer(text):
        operations, operands = _volume(match.group(1), sizes)
        yield Statement(match.start(1), match.end(1), operations, operands)


def check_volume(source: text_checks.SourceText) -> None:
    """Raise LimitExceededError at the statement with which the circuit becomes too long."""
    text = source.text
    sizes = {name: int(size) for name, size in _REGISTER.findall(text)}
    # Fast estimates first, each tighter than the one before.
    count = text.count(";")
    if count * max(sizes.values(), default=1) <= text_checks.MAX_OPERATIONS:
        return
    if count > text_checks.MAX_OPERATIONS:
        count = sum(1 for _ in _ENDS.finditer(text))
        if count > text_checks.MAX_OPERATIONS:
            raise text_checks.too_many_operations(f"{label(source.name)}{count} statements: ")
    # Only a register named without an index can stand for many operations.
    if count + sum(sizes.get(name[1], 0) for name in _NAME.finditer(text) if name[2]) <= (
        text_checks.MAX_OPERATIONS
    ):
        return
    operations = operands = 0
    for statement in statements(source.text):
        operations += statement.operations
        operands += statement.operands
        if operations > text_checks.MAX_OPERATIONS or operands > text_checks.MAX_OPERANDS:
            prefix = text_checks.location(source.name, *source.position(statement.start))
            if operations > text_checks.MAX_OPERATIONS:
                raise text_checks.too_many_operations(prefix)
            raise text_checks.too_many_operands(prefix)


def statement_of(source: text_checks.SourceText, instruction: int) -> int:
    """Return the offset of the statement that made the n-th instruction of the circuit."""
    operations = 0
    for statement in statements(source.text):
        operations += statement.operations
        if operations > instruction:
            return statement.start
    return 0


def _volume(statement: str, sizes: dict[str, int]) -> tuple[int, int]:
    condition = _CONDITION.match(statement)
    if condition:
        statement = statement[condition.end() :]
    keyword = _KEYWORD.match(statement)
    if keyword is None or keyword.group() in _IGNORED:
        return 0, 0
    begin = keyword.end()
    if keyword.group() not in ("measure", "barrier", "reset"):
        begin = max(begin, statement.rfind(")") + 1)
    widths = [
        1 if match.group(1) else sizes.get(match.group().rstrip(), 1)
        for match in _OPERAND.finditer(statement, begin)
    ]
    if keyword.group() == "barrier":
        return 1, sum(widths)
    operations = max(widths, default=1)
    return operations, operations * max(len(widths), 1)


_PLACE = re.compile(r"(?:[^:\n]*):(\d+),(\d+): (.*)", re.DOTALL)
_SEARCHED_BYTES = 2**20  # most text to search for the place of an error: the search parses it again


def parse(source: text_checks.SourceText) -> Any:
    """Parse the text to a QuantumCircuit. Raises ProgramError with the place of the error."""
    check_volume(source)
    try:
        return _loads(source.text)
    except MemoryError as error:
        raise LimitExceededError(f"{label(source.name)}no memory left to parse the text") from error
    except Exception as error:
        raise _refusal(source, error) from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise _refusal(source, error) from error


def position(source: text_checks.SourceText, instruction: int) -> tuple[int, int]:
    """Return line and column of the statement that made the n-th instruction of the circuit."""
    return source.position(statement_of(source, instruction))


def _loads(text: str) -> Any:
    qiskit_runtime.qiskit()
    from qiskit import qasm2

    # The parser takes these without a look at a definition in the text.
    defined = set(_DEFINITION.findall(_COMMENT.sub("", text)))
    return qasm2.loads(
        text,
        include_path=(),
        custom_instructions=[each for each in _instructions() if each.name not in defined],
        custom_classical=qasm2.LEGACY_CUSTOM_CLASSICAL,
    )


@cache
def _instructions() -> tuple[Any, ...]:
    """Return the gates that old files use undeclared. `u0` is one idle gate, not several."""
    from qiskit import qasm2
    from qiskit.circuit.library import IGate

    def idle(_cycles: float) -> Any:
        return IGate()

    return tuple(
        qasm2.CustomInstruction("u0", 1, 1, idle, builtin=True) if legacy.name == "u0" else legacy
        for legacy in qasm2.LEGACY_CUSTOM_INSTRUCTIONS
    )


def _refusal(source: text_checks.SourceText, error: BaseException) -> ProgramError:
    text = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    if isinstance(error, TypeError):
        text = "the wrong number of parameters for this gate"
    result = _PLACE.fullmatch(text)
    if result:
        line, column = int(result.group(1)), int(result.group(2)) + 1
        return ProgramError(
            text_checks.location(source.name, line, column) + result.group(3),
            hint=parser_hints.hint(source, result.group(3), GATE_NAMES),
            line=line,
            column=column,
        )
    line, column = source.position(_first_failing(source.text))
    return ProgramError(
        text_checks.location(source.name, line, column) + text, line=line, column=column
    )


def _first_failing(text: str) -> int:
    """Return the offset of the first statement whose text, with all before it, cannot be parsed."""
    if len(text) > _SEARCHED_BYTES:
        return 0
    result = list(statements(text))
    low, high = 0, len(result) - 1
    while low < high:
        middle = (low + high) // 2
        if _fails(text[: result[middle].end]):
            high = middle
        else:
            low = middle + 1
    return result[low].start if result else 0


def _fails(text: str) -> bool:
    try:
        _loads(text)
    except Exception:  # noqa: BLE001  the error is known; only its place is searched
        return True
    except BaseException as error:
        if not _is_panic(error):
            raise
        return True
    return False


def _is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of the parser's compiled part, which is no Exception."""
    return type(error).__name__ == "PanicException"


MAX_CHARACTERS = 2**20  # text that is not plain is read twice
MAX_BITS = 2**18  # qubits of all operations, summed

# Gates of qelib1.inc by their numbers of qubits and angles.
_SHAPES = {
    (1, 0): ("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg"),
    (1, 1): ("u1", "p", "rx", "ry", "rz"), (1, 2): ("u2",), (1, 3): ("u3", "u"),
    (2, 0): ("cx", "cz", "cy", "swap", "ch", "csx"),
    (2, 1): ("crx", "cry", "crz", "cu1", "cp", "rxx", "rzz"), (2, 3): ("cu3",), (2, 4): ("cu",),
    (3, 0): ("ccx", "cswap", "rccx"), (4, 0): ("rc3x", "c3x", "c3sqrtx"), (5, 0): ("c4x",),
}  # fmt: skip
_PROGRAM_NAMES = {"rc3x": "rcccx", "c3x": "mcx", "c3sqrtx": "c3sx", "c4x": "mcx"}  # other names
_GATES = {
    name: (_PROGRAM_NAMES.get(name, name), *shape)
    for shape, names in _SHAPES.items()
    for name in names
}
GATE_NAMES = frozenset(_GATES)
# Names that no register of plain text has: keywords, and gates that are not above.
_RESERVED = frozenset(
    {
        *("barrier", "creg", "delay", "gate", "if", "include", "measure", "opaque", "qreg"),
        *("reset", "u0", "pi", "sin", "cos", "tan", "asin", "acos", "atan", "exp", "ln", "sqrt"),
    }
)
_SPACE = " \t\n"
_HEAD = re.compile(r'[ \t\n]*OPENQASM[ \t\n]+2\.0[ \t\n]*;[ \t\n]*include[ \t\n]*"qelib1\.inc"')
_PLAIN_STATEMENT = re.compile(
    r"([a-z][A-Za-z0-9_]*)(?:[ \t\n]*\(([^()]*)\)[ \t\n]*|[ \t\n]+)([a-z].*)", re.DOTALL
)
_PLAIN_OPERAND = re.compile(
    r"([a-z][A-Za-z0-9_]*)[ \t\n]*(?:\[[ \t\n]*(0|[1-9][0-9]{0,5})[ \t\n]*\][ \t\n]*)?"
)
_FACTOR = re.compile(
    r"[ \t\n]*(?:(pi)|(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{0,20})?(?:e-?[0-9]{1,2})?)[ \t\n]*([*/]|\Z)"
)

Registers = dict[str, tuple[int, int]]  # first bit and size


class _NotPlainText(Exception):
    """The text is not plain."""


def program(source: text_checks.SourceText) -> Program | None:
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
    """Reader of one text, by statements; raises _NotPlainText at the first that is not plain."""

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
        result = _PLAIN_STATEMENT.fullmatch(statement)
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
        result = _PLAIN_OPERAND.fullmatch(rest)
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
        operand = _PLAIN_OPERAND.fullmatch(item.strip(_SPACE))
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


def angle(text: str) -> float | None:
    """Return the value of an angle such as -3*pi/4; None if it is no product or quotient of numbers
    and pi."""
    try:
        return _angle(text)
    except _NotPlainText:
        return None


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
