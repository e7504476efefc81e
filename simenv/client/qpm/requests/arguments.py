"""Arguments of hosts, checked one by one; what is wrong raises ExecutionError and changes nothing.

Whatever a host's transport decodes may arrive here: every type and value must be expected.
"""

from __future__ import annotations

from typing import Any

from simenv.qpm.errors import ExecutionError

MAX_TEXT_CHARS = 4_096  # of an id, a name, a reason
MAX_RESERVATION = 2**64 - 1
MAX_SECONDS = 10**8  # three years; in nanoseconds far within 64 bits


def wrong(what: str, value: Any, wanted: str) -> ExecutionError:
    """The error of one argument."""
    return ExecutionError(f"{what}={_shown(value)}", hint=f"{what} is {wanted}")


def text(what: str, value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise wrong(what, value, f"a text of 1 to {MAX_TEXT_CHARS} characters")
    return value


def optional_text(what: str, value: Any) -> str | None:
    """None, or a text that is not empty."""
    return None if value is None else text(what, value)


def travelling(what: str, value: Any) -> str:
    """As `text`, and the service can be told it."""
    result = text(what, value)
    try:
        result.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise wrong(what, value, "text in Unicode") from error
    return result


def integer(what: str, value: Any, low: int, high: int) -> int:
    """A whole number in low .. high; no bool, no float."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(what, value, f"a whole number from {low} to {high}")
    return int(value)


def truth(what: str, value: Any) -> bool:
    """True or False, and nothing like them."""
    if not isinstance(value, bool):
        raise wrong(what, value, "true or false")
    return value


def seconds(what: str, value: Any) -> float | None:
    """None, or a time that is not negative."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:
        raise wrong(what, value, f"seconds from 0 to {MAX_SECONDS}, or nothing")
    return float(value)


def table(what: str, value: Any) -> dict[str, Any]:
    """A dict with text for keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise wrong(what, value, "a table with names for keys")
    return value


def optional_table(what: str, value: Any) -> dict[str, Any]:
    """As `table`; empty for None."""
    return {} if value is None else table(what, value)


def reservation(value: Any) -> int | None:
    """None, or a number that a reservation could have."""
    return None if value is None else integer("reservation_id", value, 1, MAX_RESERVATION)


def _shown(value: Any) -> str:
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else ""
    if not shown or len(shown) > 60:
        return f"<{type(value).__name__}>"
    return shown
