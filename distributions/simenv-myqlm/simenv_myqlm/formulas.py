"""Formulas of classical bits: prefix notation of myQLM, over outcomes of measurements.

A formula is a truth value, the index of an outcome, or an operator with formulas. Invariant: it has
MAX_NODES nodes at most, though classical bits are replaced by what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from simenv_myqlm.errors import UnsupportedError

MAX_NODES = 200
_OPERATORS = {"AND": 2, "OR": 2, "XOR": 2, "NOT": 1}
_CONSTANTS = {"TRUE": True, "FALSE": False}
_TEXTS = {"AND": "&&", "OR": "||", "XOR": "!="}

Formula = bool | int | tuple[str, "Formula"] | tuple[str, "Formula", "Formula"]


def parse(text: str, bits: Mapping[int, Formula], where: str) -> Formula:
    """Read prefix notation, such as `AND 0 NOT 1`. `bits`: what each classical bit is; one without
    is 0. Raises UnsupportedError that names `where`."""
    words = text.split()
    stack: list[Formula] = []
    for word in reversed(words[: MAX_NODES + 1]):
        if word in _CONSTANTS:
            stack.append(_CONSTANTS[word])
        elif word.isdecimal():
            stack.append(bits.get(int(word), False))
        elif word in _OPERATORS and len(stack) >= _OPERATORS[word]:
            stack.append(_combined(word, [stack.pop() for _ in range(_OPERATORS[word])]))
        else:
            stack.clear()
            break
    if len(stack) != 1 or len(words) > MAX_NODES:
        hint = f"AND, OR, XOR, NOT and indices in prefix notation, {MAX_NODES} words at most"
        raise UnsupportedError(f"the formula {text[:80]!r} of {where} cannot be read", hint)
    return _bounded(stack[0], where)


def conjunction(parts: Iterable[Formula], where: str) -> Formula:
    """Return that all formulas hold. Raises UnsupportedError that names `where`."""
    result: Formula = True
    for _, part in dict.fromkeys((type(part), part) for part in parts):  # True is no index 1
        result = _bounded(_combined("AND", [result, part]), where)
    return result


def _bounded(formula: Formula, where: str) -> Formula:
    if _size(formula) > MAX_NODES:
        text = f"the formula of {where} has more than {MAX_NODES} parts of measured bits"
        raise UnsupportedError(text, "fewer classical bits that depend on one another")
    return formula


def _combined(name: str, parts: list[Formula]) -> Formula:
    """Return an operator with its parts; constants are worked out."""
    first = parts[0]
    if name == "NOT":
        return not first if isinstance(first, bool) else (name, first)
    second = parts[1]
    if isinstance(second, bool):
        first, second = second, first
    if not isinstance(first, bool):
        return (name, first, second)
    if name == "AND":
        return second if first else False
    if name == "OR":
        return True if first else second
    return _combined("NOT", [second]) if first else second


def _size(formula: Formula) -> int:
    return 1 + sum(map(_size, formula[1:])) if isinstance(formula, tuple) else 1


def written(formula: Formula) -> str:
    """Return the formula in OpenQASM 3, over bits of register r."""
    if isinstance(formula, bool):
        return str(formula).lower()
    if isinstance(formula, int):
        return f"r[{formula}]"
    if len(formula) == 2:
        return f"!({written(formula[1])})"
    return f"(({written(formula[1])}) {_TEXTS[formula[0]]} ({written(formula[2])}))"


def evaluate(formula: Formula, bits: Sequence[bool]) -> bool:
    """Return whether a formula holds for outcomes."""
    if isinstance(formula, bool):
        return formula
    if isinstance(formula, int):
        return bits[formula]
    first = evaluate(formula[1], bits)
    if len(formula) == 2:
        return not first
    second = evaluate(formula[2], bits)
    if formula[0] == "AND":
        return first and second
    return first or second if formula[0] == "OR" else first is not second
