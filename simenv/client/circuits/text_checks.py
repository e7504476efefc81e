"""Limits on programs, and checks of raw text before it is parsed.

Invariant: each check is linear in the text and reads nothing from disk. No parser is called on text
that is too large, too deeply nested, names a file, or declares more bits than a program can have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from typing import NoReturn

from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simenv.model import MAX_CLBITS, MAX_QUBITS
from simenv.transpiler import qiskit_runtime

MAX_OPERATIONS, label = qiskit_runtime.MAX_OPERATIONS, qiskit_runtime.label
too_many_bits = qiskit_runtime.too_many_bits
too_many_operations = qiskit_runtime.too_many_operations
MAX_TEXT_BYTES = 16 * 2**20
MAX_TEXT3_BYTES = 2**20  # OpenQASM 3: its parser reads about 40 kB/s
MAX_NESTING = 200  # brackets in text; definitions within definitions
MAX_BLOCKS = 100  # blocks within blocks
MAX_OPERANDS = 2**23  # qubits of all operations, summed
MAX_TOKENS = 1_000_000  # tokens of all conditions, summed
MAX_PACKED_BYTES = 64 * 2**20
MAX_OPERATORS = 1000  # in a statement of OpenQASM 3: its parser fails at about 240, slowly
MAX_DEFINITIONS = 4096  # the OpenQASM 2 parser keeps a table of all earlier gates for each gate

_INCLUDES = ("qelib1.inc", "stdgates.inc")
_STRING = r"\"[^\"\n]*\"|'[^'\n]*'"
_LINE = r"//[^\n]*+"
_BLOCK = r"/\*[\s\S]*?(?:\*/|(\Z))"  # the group matches if the comment never ends
_STRIP = re.compile(rf"{_STRING}|(?:{_LINE}|{_BLOCK})(?:\s*+(?:{_LINE}|{_BLOCK}))*+")
_VERSION = re.compile(r"\s*OPENQASM\s+([23])(?:\.\d{1,3})?\s*;")
_OTHER_VERSION = re.compile(r"\s*OPENQASM\b([^;\n]{0,20})")
# What only version 3 has, whose version line is optional.
_VERSION_3 = re.compile(
    r"include\s*+[\"']stdgates\.inc[\"']|\$\d|(?:\A|[;{}])\s*+"
    r"(?:qubit|bit|bool|int|uint|float|angle|complex|duration|stretch|array|const|input|output|let|"
    r"def|defcal|defcalgrammar|cal|extern|box|for|while|switch|gphase|delay|nop|pragma|"
    r"ctrl|negctrl|inv|pow|@\w|\#)(?!\w)"
)
# No pattern for a whole text begins with \\b: it would be ten times as slow.
_INCLUDE = re.compile(r"include\s*(?:\"([^\"\n]*)\"|'([^'\n]*)')")
_QUOTE = re.compile(r"[\"']")
_LONG_INDEX = re.compile(r"\[\s*\d{10}")
_DEFINITION = re.compile(r"\b(?:gate|opaque)\b")
_REGISTER_2 = re.compile(r"([qc])reg\s+\w+\s*\[\s*(\d+)")
_REGISTER_3 = re.compile(r"\b(q?)(?:u?bit)\s*\[\s*([\d_]+)\s*\]\s*[^\W\d]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"()[]{}")
_STEP = [1 if byte in b"([{" else -1 if byte in b")]}" else 0 for byte in range(256)]
_STATEMENT = re.compile(r"[^;{}]++")
_OPERATOR = re.compile(r"[-+*/%^&|<>=!~@]")
_DIGITS = bytes(48 if byte in b"0123456789_" else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 4000  # Python converts no more than 4300 digits
_PAD = 200  # most columns preserved for a comment that ends within a line


@dataclass(frozen=True, slots=True)
class SourceText:
    """Text that passed the checks. Comments are blank; lines and columns are those of the file."""

    name: str  # of the file; "": text given in the call
    text: str
    version: int  # 2 or 3

    def position(self, offset: int) -> tuple[int, int]:
        """Return line and column, both from 1."""
        return _position(self.text, offset)


def inspect(text: str, name: str = "") -> SourceText:
    """Check raw text. Raises LimitExceededError or ProgramError, with line and column if known."""
    _check_characters(text, name)
    if text.startswith("\ufeff"):
        text = text[1:]
    stripped = _blanked(text.replace("\r\n", "\n"), name)
    source = SourceText(name, stripped, _version(stripped, name))
    if source.version == 3 and len(stripped) > MAX_TEXT3_BYTES:
        raise LimitExceededError(
            f"{label(name)}{len(stripped)} characters of OpenQASM 3, more than {MAX_TEXT3_BYTES}",
            hint="its parser is slow: give OpenQASM 2, or the QuantumCircuit",
        )
    _check_nesting(source)
    _check_includes(source)
    _check_registers(source)
    _check_numbers(source)
    return source


def too_large(size_bytes: int, name: str) -> LimitExceededError:
    message = f"{label(name)}{size_bytes} bytes of text; the limit is {MAX_TEXT_BYTES}"
    return LimitExceededError(message, hint="split the circuit, or give it as a QuantumCircuit")


def location(name: str, line: int, column: int) -> str:
    """Return the prefix of a message about one place in a text."""
    return f"{name}:{line}:{column}: " if name else f"line {line}, column {column}: "


def refuse(name: str, text: str, offset: int, message: str, *, hint: str = "") -> NoReturn:
    """Raise ProgramError at a place in the text."""
    line, column = _position(text, offset)
    raise ProgramError(location(name, line, column) + message, hint=hint, line=line, column=column)


def relocate(error: SimenvError, name: str, line: int, column: int) -> SimenvError:
    """Add the place in the text to an error; return the same object."""
    error.message = location(name, line, column) + error.message
    error.args = (error.message,)
    if isinstance(error, ProgramError):
        error.line, error.column = line, column
    return error


def too_many_operands(prefix: str = "") -> LimitExceededError:
    """Return the error for a circuit whose operations name too many qubits."""
    message = f"{prefix}the operations name more than {MAX_OPERANDS} qubits in all"
    hint = "split the circuit; barriers on all qubits are the usual cause"
    return LimitExceededError(message, hint=hint)


def _position(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _check_characters(text: str, name: str) -> None:
    if len(text) > MAX_TEXT_BYTES:
        raise too_large(len(text), name)
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        line, column = _position(text, error.start)
        message = location(name, line, column) + "a lone surrogate, which is no character"
        hint = "OpenQASM is UTF-8 text"
        raise ProgramError(message, hint=hint, line=line, column=column) from error
    if size_bytes > MAX_TEXT_BYTES:
        raise too_large(size_bytes, name)
    nul = text.find("\0")
    if nul >= 0:
        refuse(name, text, nul, "a NUL character; OpenQASM is plain text")


def _blanked(text: str, name: str) -> str:
    if "//" not in text and "/*" not in text:
        return text

    def blank(match: re.Match[str]) -> str:
        comment = match.group()
        if comment[0] != "/":
            return comment
        if match.group(1) is not None or match.group(2) is not None:
            refuse(name, text, match.start(), "this comment never ends")
        tail = len(comment) - comment.rfind("\n") - 1 if comment.endswith("*/") else 0
        return "\n" * comment.count("\n") + " " * min(tail, _PAD)

    return _STRIP.sub(blank, text)


def _version(text: str, name: str) -> int:
    match = _VERSION.match(text)
    if match:
        return int(match.group(1))
    other = _OTHER_VERSION.match(text)
    if other is None and _VERSION_3.search(text):
        return 3
    start = len(text) - len(text.lstrip())
    values = f"OpenQASM version {other.group(1).strip()!r}" if other else "no version line"
    refuse(
        name,
        text,
        min(start, max(len(text) - 1, 0)),
        f"{values}; the first statement must be 'OPENQASM 2.0;' or 'OPENQASM 3.0;'",
        hint="" if name or other else "text in a call is OpenQASM; a path has no ';' in it",
    )


def _check_nesting(source: SourceText) -> None:
    text = source.text
    # The fast check first: valid text needs no other.
    brackets = text.encode().translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) <= MAX_NESTING:
        return
    depth = 0
    for match in re.finditer(r"[()\[\]{}]", text):
        depth += _STEP[ord(match.group())]
        if depth > MAX_NESTING:
            message = f"brackets are nested more than {MAX_NESTING} deep"
            hint = "write the expression in steps"
            refuse(source.name, text, match.start(), message, hint=hint)


def _check_includes(source: SourceText) -> None:
    text = source.text
    standard: set[int] = set()
    for match in _INCLUDE.finditer(text):
        file = match.group(1) if match.group(1) is not None else match.group(2)
        if file not in _INCLUDES:
            refuse(
                source.name,
                text,
                match.start(),
                f"include {file!r}; only {' and '.join(map(repr, _INCLUDES))} can be included",
                hint="no other file is read: paste its gates into this one",
            )
        standard.update((match.end() - 1, match.end() - len(file) - 2))
    if source.version == 2:  # there strings only name files
        for match in _QUOTE.finditer(text):
            if match.start() not in standard:
                refuse(source.name, text, match.start(), "a string outside of an include")


def _check_registers(source: SourceText) -> None:
    totals = {"qubits": 0, "clbits": 0}
    limits = {"qubits": MAX_QUBITS, "clbits": MAX_CLBITS}
    result: Iterable[re.Match[str]] = _REGISTER_2.finditer(source.text)
    if source.version == 3:
        result = chain(result, _REGISTER_3.finditer(source.text))
    for number, match in enumerate(result):
        kind = "qubits" if match.group(1) == "q" else "clbits"
        digits = match.group(2).replace("_", "").lstrip("0") or "0"
        totals[kind] += int(digits[:9])
        if len(digits) > 9 or totals[kind] > limits[kind]:
            prefix = location(source.name, *source.position(match.start()))
            settings = digits[:9] + "..." if len(digits) > 9 else str(totals[kind])
            raise too_many_bits(kind, settings, limits[kind], prefix)
        if number == MAX_CLBITS:
            raise LimitExceededError(
                f"{location(source.name, *source.position(match.start()))}"
                f"more than {MAX_CLBITS} registers",
                hint="join them",
            )


def _check_numbers(source: SourceText) -> None:
    text = source.text
    data = text.encode()
    at = data.translate(_DIGITS).find(_LONG_NUMBER)
    if at >= 0:
        refuse(source.name, text, len(data[:at].decode()), "a number of 4000 digits or more")
    if source.version == 3:
        _check_operators(source)
        return
    match = _LONG_INDEX.search(text)
    if match:
        refuse(source.name, text, match.start(), "this index has ten digits or more")
    if text.count("gate") + text.count("opaque") <= MAX_DEFINITIONS:
        return
    match = next(islice(_DEFINITION.finditer(text), MAX_DEFINITIONS, None), None)
    if match:
        raise LimitExceededError(
            f"{location(source.name, *source.position(match.start()))}"
            f"more than {MAX_DEFINITIONS} gate definitions",
            hint="give the circuit as a QuantumCircuit",
        )


def _check_operators(source: SourceText) -> None:
    for match in _STATEMENT.finditer(source.text):
        if len(match[0]) > MAX_OPERATORS and len(_OPERATOR.findall(match[0])) > MAX_OPERATORS:
            refuse(
                source.name,
                source.text,
                match.start() + len(match[0]) - len(match[0].lstrip()),
                f"a statement with more than {MAX_OPERATORS} operators",
                hint="write long expressions in steps",
            )
