"""Strict conversion of values in calibration files: each error names its place in the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from noise_models.strict_json import SnapshotError, short_repr

NS_PER_UNIT = {  # "\u00b5" is the micro sign, "\u03bc" the Greek letter
    "s": 1e9, "ms": 1e6, "us": 1e3, "\u00b5s": 1e3, "\u03bcs": 1e3, "ns": 1.0, "ps": 1e-3,
}  # fmt: skip
GHZ_PER_UNIT = {"hz": 1e-9, "khz": 1e-6, "mhz": 1e-3, "ghz": 1.0}
_MAX_TEXT = 10_000


def key_text(key: str) -> str:
    """Return a key from outside as part of the name of a place: printable ASCII, cut to 40
    characters."""
    return ascii(key)[1:-1][:40]


def mapping(value: object, field: str) -> dict[str, Any]:
    """Return a JSON object. Raises SnapshotError."""
    if not isinstance(value, dict):
        raise SnapshotError(field, f"{short_repr(value)} is not an object")
    return value


def items(value: object, field: str) -> Iterator[tuple[str, Any]]:
    """Return the entries of a JSON array with the place of each. Raises SnapshotError."""
    if not isinstance(value, list):
        raise SnapshotError(field, f"{short_repr(value)} is not a list")
    return ((f"{field}[{index}]", each) for index, each in enumerate(value))


def text(value: object, field: str) -> str:
    """Return a string. Raises SnapshotError."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise SnapshotError(field, f"{short_repr(value)} is not a text")
    return value


def number(value: object, field: str) -> float:
    """Return a finite number. Raises SnapshotError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SnapshotError(field, f"{short_repr(value)} is not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise SnapshotError(field, f"{short_repr(value)} is not a finite number")
    return result


def integer(value: object, field: str) -> int:
    """Return a whole number of at most 64 bits. Raises SnapshotError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise SnapshotError(field, f"{short_repr(value)} is not a whole number")
    return value


def parsed_number(value: str, field: str) -> float:
    """Parse a finite number from text. Raises SnapshotError."""
    try:
        result = float(value)
    except ValueError:
        raise SnapshotError(field, f"{short_repr(value)} is not a number") from None
    return number(result, field)


def qubit_index(value: object, field: str) -> int:
    """Return the number of a qubit from a number or from digits. Raises SnapshotError."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)
    result = integer(value, field)
    if result < 0:
        raise SnapshotError(field, f"{short_repr(value)} is not the number of a qubit")
    return result


def probability(value: object, field: str) -> float:
    """Return a number from 0 to 1. Raises SnapshotError."""
    result = number(value, field)
    if not 0.0 <= result <= 1.0:
        raise SnapshotError(field, f"{short_repr(value)} is not a probability", hint="0 to 1")
    return result


def infidelity(value: object, field: str) -> float:
    """Return 1 - F for a fidelity F, rounded to 15 digits. Raises SnapshotError."""
    return round(1.0 - probability(value, field), 15)


Convert = Callable[[object, str], float]  # (value of the source, its place) -> number
FieldTable = Mapping[str, tuple[str, Convert]]  # key of the source -> field of the snapshot


def times(factor: float) -> Convert:
    """Return the conversion that multiplies a number by a factor, which is rounded once."""
    return lambda value, field: number(value, field) * factor


def units(factor: float) -> Convert:
    """Return the conversion of a number by a factor between units; see `scaled`."""
    return lambda value, field: scaled(number(value, field), factor)


def qubit_tuple(value: object, field: str) -> tuple[int, ...]:
    """Return the numbers of the qubits in a JSON array. Raises SnapshotError."""
    return tuple(qubit_index(each, place) for place, each in items(value, field))


def time_factor(unit: object, field: str, factors: Mapping[str, float] = NS_PER_UNIT) -> float:
    """Return the nanoseconds of a unit of time, or its entry in another table. Raises
    SnapshotError."""
    result = factors.get(unit.lower()) if isinstance(unit, str) else None
    if result is None:
        hint = f"known: {', '.join(factors)}"
        raise SnapshotError(field, f"the unit {short_repr(unit)} is unknown", hint=hint)
    return result


def frequency_factor(unit: object, field: str) -> float:
    """Return the gigahertz of a unit of frequency. Raises SnapshotError."""
    return time_factor(unit, field, GHZ_PER_UNIT)


def scaled(value: float, factor: float) -> float:
    """Return value * factor; a factor such as 1e-3 divides by 1e3, which rounds once only."""
    return value * factor if factor >= 1.0 else value / round(1.0 / factor)
