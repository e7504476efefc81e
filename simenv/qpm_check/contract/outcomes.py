"""Outcomes of a check, and how it expects something."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simenv.qpm_check.harness.session import CheckSession

    Check = Callable[[CheckSession], None]


class Broken(Exception):
    """The promise is not kept; the text says what came instead."""


class Omitted(Exception):
    """It cannot be shown here; the text says why."""


def expect(kept: object, words: str) -> None:
    """Broken, with `words`, unless `kept`."""
    if not kept:
        raise Broken(words)


def shown(value: Any) -> str:
    """A value as a line can carry it."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"
