"""Conversion of OpenQASM 2 to a QuantumCircuit by Qiskit's parser.

Invariant: the parser gets only text that passed `text_checks`, may read no file, and its errors are
raised as ProgramError or LimitExceededError with line and column.

The statements of a text are scanned to count operations and to locate instructions. Invariant: the
scan is one linear pass and repeats no check of the parser. On a malformed statement it is at worst
a wrong column: the parser refuses the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from simenv.client.circuits.common.text_checks import (
    MAX_OPERANDS,
    MAX_OPERATIONS,
    SourceText,
    label,
    location,
    too_many_operands,
    too_many_operations,
)
from simenv.errors import LimitExceededError, ProgramError
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


def check_volume(source: SourceText) -> None:
    """Raise LimitExceededError at the statement with which the circuit becomes too long."""
    text = source.text
    sizes = {name: int(size) for name, size in _REGISTER.findall(text)}
    # Fast estimates first, each tighter than the one before.
    count = text.count(";")
    if count * max(sizes.values(), default=1) <= MAX_OPERATIONS:
        return
    if count > MAX_OPERATIONS:
        count = sum(1 for _ in _ENDS.finditer(text))
        if count > MAX_OPERATIONS:
            raise too_many_operations(f"{label(source.name)}{count} statements: ")
    # Only a register named without an index can stand for many operations.
    if count + sum(sizes.get(name[1], 0) for name in _NAME.finditer(text) if name[2]) <= (
        MAX_OPERATIONS
    ):
        return
    operations = operands = 0
    for statement in statements(source.text):
        operations += statement.operations
        operands += statement.operands
        if operations > MAX_OPERATIONS or operands > MAX_OPERANDS:
            prefix = location(source.name, *source.position(statement.start))
            if operations > MAX_OPERATIONS:
                raise too_many_operations(prefix)
            raise too_many_operands(prefix)


def statement_of(source: SourceText, instruction: int) -> int:
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


def parse(source: SourceText) -> Any:
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


def position(source: SourceText, instruction: int) -> tuple[int, int]:
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


def _refusal(source: SourceText, error: BaseException) -> ProgramError:
    text = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    if isinstance(error, TypeError):
        text = "the wrong number of parameters for this gate"
    result = _PLACE.fullmatch(text)
    if result:
        line, column = int(result.group(1)), int(result.group(2)) + 1
        return ProgramError(
            location(source.name, line, column) + result.group(3), line=line, column=column
        )
    line, column = source.position(_first_failing(source.text))
    return ProgramError(location(source.name, line, column) + text, line=line, column=column)


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
