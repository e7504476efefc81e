"""Conversion of OpenQASM 3 to a QuantumCircuit by Qiskit's importer (an optional package).

Invariant: the parser gets only text that passed `text_checks`; errors of the parser and importer
are raised as ProgramError or LimitExceededError, with line and column if they are known.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from simenv.client.circuits.common.text_checks import SourceText, label, location, too_many_bits
from simenv.errors import LimitExceededError, ProgramError, SimenvError
from simenv.model import MAX_QUBITS
from simenv.transpiler import qiskit_runtime

if TYPE_CHECKING:
    from simenv.client.circuits.formats.qasm3_importer import ParsedQasm3

_SHOWN = 160  # characters of a parser's message; some list all tokens
_PHYSICAL = re.compile(r"\$(\d+)")


def parse(source: SourceText) -> ParsedQasm3:
    """Parse the text. Raises ProgramError with the place, or with the package to install."""
    _check_physical(source)
    try:
        qiskit_runtime.qiskit()
        from simenv.client.circuits.formats import qasm3_importer
    except ImportError as error:
        raise ProgramError(
            f"{label(source.name)}OpenQASM 3 needs the package qiskit-qasm3-import ({error})",
            hint="pip install 'simenv[qasm3]'",
        ) from error
    try:
        return qasm3_importer.convert(source, _tree(source))
    except SimenvError:
        raise
    except RecursionError as error:
        raise ProgramError(
            f"{label(source.name)}nested too deeply for the OpenQASM 3 parser",
            hint="write long expressions and nested blocks in steps",
        ) from error
    except MemoryError as error:
        raise LimitExceededError(f"{label(source.name)}no memory left to parse the text") from error
    except Exception as error:
        text = str(error) or type(error).__name__
        raise ProgramError(f"{label(source.name)}the text cannot be parsed: {text}") from error


def _tree(source: SourceText) -> Any:
    """Return the syntax tree. The parser's own entry point prints errors and drops their text."""
    import openqasm3.parser
    from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]

    openqasm: Any = openqasm3.parser

    class Refuse(ErrorListener):  # type: ignore[misc]
        def syntaxError(  # noqa: N802  the parser calls it by this name
            self, _parser: Any, _symbol: Any, line: int, column: int, message: str, _error: Any
        ) -> None:
            settings = message if len(message) <= _SHOWN else message[:_SHOWN] + "..."
            text = location(source.name, line, column + 1) + settings
            raise ProgramError(text, line=line, column=column + 1)

    lexer = openqasm.qasm3Lexer(openqasm.InputStream(source.text))
    parser = openqasm.qasm3Parser(openqasm.CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(Refuse())
    try:
        return openqasm.QASMNodeVisitor().visitProgram(parser.program())
    except openqasm.QASM3ParsingError as error:
        result = re.fullmatch(r"L(\d+):C(\d+): (.*)", str(error), re.DOTALL)
        line, column = (int(result.group(1)), int(result.group(2)) + 1) if result else (1, 1)
        text = result.group(3) if result else str(error)
        raise ProgramError(
            location(source.name, line, column) + text, line=line, column=column
        ) from error


def _check_physical(source: SourceText) -> None:
    for match in _PHYSICAL.finditer(source.text):
        digits = match.group(1)
        if len(digits) > 9 or int(digits) >= MAX_QUBITS:
            prefix = location(source.name, *source.position(match.start()))
            raise too_many_bits("qubits", int(digits[:9]) + 1, MAX_QUBITS, prefix)
