"""Waiting for what nobody is notified of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 120.0
LOOK_S = 0.01
T = TypeVar("T")


def until(
    condition: Callable[[], T],
    timeout_s: float = PATIENCE_S,
    *,
    message: str | Callable[[], object] = "it never comes",
    look_s: float = LOOK_S,
) -> T:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, message() if callable(message) else message
        time.sleep(look_s)
    return result
