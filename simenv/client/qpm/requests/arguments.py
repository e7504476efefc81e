"""Checks of single arguments of hosts; an invalid argument raises ExecutionError and changes
nothing.

Values come from a host's transport, so every type and value must be expected.
"""

from __future__ import annotations

from typing import Any

from simenv.model.task_rules import MAX_REASON_CHARS, MAX_SECONDS
from simenv.qpm.errors import ExecutionError
from simenv.text import short_repr

MAX_TEXT_CHARS = 4_096  # of an id, a name, a reason
MAX_RESERVATION = 2**64 - 1
MAX_REASON_CODE = 2**32 - 1
MAX_FILTER_VALUES = 4_096


def wrong(what: str, value: Any, wanted: str) -> ExecutionError:
    """Make the error of one invalid argument."""
    return ExecutionError(f"{what}={short_repr(value)}", hint=f"{what} is {wanted}")


def text(what: str, value: Any) -> str:
    """Check a text that is not empty."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT_CHARS:
        raise wrong(what, value, f"a text of 1 to {MAX_TEXT_CHARS} characters")
    return value


def optional_text(what: str, value: Any) -> str | None:
    """Check None or a text that is not empty."""
    return None if value is None else text(what, value)


def reason_text(value: Any) -> str:
    """Read a `reason` as text for the service, cut to MAX_REASON_CHARS; "" for None. A reason code,
    which schedulers send, becomes `code N`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"code {integer('reason', value, 0, MAX_REASON_CODE)}"
    result = "" if value is None else text("reason", value)
    return result[:MAX_REASON_CHARS].encode("utf-8", "replace").decode()


def travelling(what: str, value: Any) -> str:
    """Check a text as `text` does, and that it can be encoded as UTF-8 for the service."""
    result = text(what, value)
    try:
        result.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise wrong(what, value, "text in Unicode") from error
    return result


def integer(what: str, value: Any, low: int, high: int) -> int:
    """Check a whole number in low .. high; bool and float are refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise wrong(what, value, f"a whole number from {low} to {high}")
    return int(value)


def truth(what: str, value: Any) -> bool:
    """Check a bool; no other type is accepted."""
    if not isinstance(value, bool):
        raise wrong(what, value, "true or false")
    return value


def seconds(what: str, value: Any) -> float | None:
    """Check None or a time in 0 .. MAX_SECONDS."""
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SECONDS:
        raise wrong(what, value, f"seconds from 0 to {MAX_SECONDS}, or nothing")
    return float(value)


def table(what: str, value: Any) -> dict[str, Any]:
    """Check a dict with text keys."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise wrong(what, value, "a table with names for keys")
    return value


def optional_table(what: str, value: Any) -> dict[str, Any]:
    """Check a dict as `table` does; {} for None."""
    return {} if value is None else table(what, value)


def filters(value: Any) -> dict[str, Any]:
    """Check a table of single values and lists of them; {} for None. Tables that are nested would
    take any time to compare."""
    result = optional_table("filters", value)
    for wanted in result.values():
        items = wanted if isinstance(wanted, list) else [wanted]
        scalars = all(isinstance(each, str | int | float | None) for each in items)
        if not scalars or len(items) > MAX_FILTER_VALUES:
            raise wrong("filters", value, "a table of values, or lists of values")
    return dict(result)


def reservation(value: Any) -> int | None:
    """Check None or a possible reservation number."""
    return None if value is None else integer("reservation_id", value, 1, MAX_RESERVATION)
