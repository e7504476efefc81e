"""Checks of single arguments of submits and reservations: seconds, whole numbers, lists, keys,
engine options."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

from simenv.errors import OptionError
from simenv.model import EngineOptions
from simenv.model.task_rules import MAX_NAME_CHARS, MAX_SECONDS

MAX_KEY_CHARS = 256
APP = "app"  # metadata key of a reservation: the run of the application that made it


def checked_key(key: object) -> str:
    """Check a user's idempotency key. Raises OptionError."""
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS or key.startswith("~"):
        raise OptionError(
            f"idempotency_key={str(key)[:80]!r} is not allowed",
            hint=f"1 to {MAX_KEY_CHARS} characters, not beginning with ~",
        )
    return key


def checked_integer(name: str, value: SupportsIndex, low: int, high: int, more: str = "") -> int:
    """Check a whole number and its range. `more`: added to the hint. Raises OptionError."""
    if type(value) is int and low <= value <= high:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        hint = f"a whole number from {low} to {high}" + (f"; {more}" if more else "")
        raise OptionError(f"{name}={value!r:.80}", hint=hint)
    return number


def checked_seconds(name: str, value: object, more: str = "") -> float:
    """Check a time in seconds. `more`: added to the hint. Raises OptionError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= MAX_SECONDS:  # type: ignore[operator]
        hint = f"seconds, above 0, up to {MAX_SECONDS}" + (f"; {more}" if more else "")
        raise OptionError(f"{name}={value!r:.80}", hint=hint)
    return float(value)  # type: ignore[arg-type]


def checked_list(name: str, value: Any, expected: str) -> tuple[Any, ...]:
    """Elements of a list. Raises OptionError for anything else; `expected`: its hint."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise OptionError(f"{name}={value!r:.80}", hint=expected)
    return tuple(value)


def checked_engine_options(settings: Mapping[str, Any]) -> EngineOptions:
    """Check the values and sort by name; the service knows the names that an engine has. Raises
    OptionError."""
    if not isinstance(settings, Mapping):
        raise OptionError(f"options={settings!r:.80}", hint='for example {"bond": 64}')
    for name, value in settings.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not 0 < len(str(name)) <= MAX_NAME_CHARS:
            raise OptionError(
                f"options: {str(name)[:64]!r} = {value!r:.80}",
                hint='a name and a finite number, for example options={"bond": 64}',
            )
    return tuple(sorted((str(name), value) for name, value in settings.items()))
