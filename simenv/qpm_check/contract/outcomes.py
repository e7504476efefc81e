"""Exceptions that state the outcome of a check, and the assertion that raises them."""

from __future__ import annotations

from typing import Any


class CheckFailed(Exception):
    """The checked promise does not hold; the message states the actual behaviour."""


class CheckSkipped(Exception):
    """The check cannot run on this target; the message states the reason."""


def expect(condition: object, message: str) -> None:
    """Raise `CheckFailed(message)` unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def short_repr(value: Any) -> str:
    """Return the `repr` of a value, shortened to fit one line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
