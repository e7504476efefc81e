"""OpenQASM 2 to a QuantumCircuit, by Qiskit's parser.

Invariant: the parser gets only text that passed `limits`, may read no file, and whatever it raises
comes out as ProgramError or LimitExceeded with line and column.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from simenv.client.circuits import staying
from simenv.client.circuits.limits import Source, label, place
from simenv.client.circuits.statements import check_volume, statement_of, statements
from simenv.errors import LimitExceeded, ProgramError

_PLACE = re.compile(r"(?:[^:\n]*):(\d+),(\d+): (.*)", re.DOTALL)
_SEARCHED_BYTES = 2**20  # beyond this an error without a place keeps none: the search parses again


def parse(source: Source) -> Any:
    """The circuit. ProgramError says where the text is wrong."""
    check_volume(source)
    try:
        return _loads(source.text)
    except MemoryError as error:
        raise LimitExceeded(f"{label(source.name)}no memory left to parse the text") from error
    except Exception as error:
        raise _refusal(source, error) from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise _refusal(source, error) from error


def position(source: Source, instruction: int) -> tuple[int, int]:
    """Line and column of the statement that made the n-th instruction of the circuit."""
    return source.position(statement_of(source, instruction))


def _loads(text: str) -> Any:
    staying.qiskit()
    from qiskit import qasm2

    return qasm2.loads(
        text,
        include_path=(),
        custom_instructions=_instructions(),
        custom_classical=qasm2.LEGACY_CUSTOM_CLASSICAL,
    )


@cache
def _instructions() -> tuple[Any, ...]:
    """The gates that old files use undeclared. `u0` is an idle, not a loop of its parameter."""
    from qiskit import qasm2
    from qiskit.circuit.library import IGate

    def idle(_cycles: float) -> Any:
        return IGate()

    return tuple(
        qasm2.CustomInstruction("u0", 1, 1, idle, builtin=True) if legacy.name == "u0" else legacy
        for legacy in qasm2.LEGACY_CUSTOM_INSTRUCTIONS
    )


def _refusal(source: Source, error: BaseException) -> ProgramError:
    text = str(getattr(error, "message", "")) or str(error) or type(error).__name__
    if isinstance(error, TypeError):
        text = "the wrong number of parameters for this gate"
    found = _PLACE.fullmatch(text)
    if found:
        line, column = int(found.group(1)), int(found.group(2)) + 1
        return ProgramError(
            place(source.name, line, column) + found.group(3), line=line, column=column
        )
    line, column = source.position(_first_failing(source.text))
    return ProgramError(place(source.name, line, column) + text, line=line, column=column)


def _first_failing(text: str) -> int:
    """Where the first statement begins without which the text would be read."""
    if len(text) > _SEARCHED_BYTES:
        return 0
    found = list(statements(text))
    low, high = 0, len(found) - 1
    while low < high:
        middle = (low + high) // 2
        if _fails(text[: found[middle].end]):
            high = middle
        else:
            low = middle + 1
    return found[low].start if found else 0


def _fails(text: str) -> bool:
    try:
        _loads(text)
    except Exception:  # noqa: BLE001  which one is known already; here only where
        return True
    except BaseException as error:
        if not _is_panic(error):
            raise
        return True
    return False


def _is_panic(error: BaseException) -> bool:
    """A panic of the parser's compiled part, which Python sees as no Exception."""
    return type(error).__name__ == "PanicException"
