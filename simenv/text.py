"""Format sizes, times and values of others as text."""

from __future__ import annotations

from collections.abc import Mapping

_SHOWN_ITEMS = 16  # most entries of a list or table that is shown
_SHOWN_CHARS = 60
_SHOWN_BITS = 128
_ERROR_CHARS = 300  # of an error's own text


def error_summary(error: BaseException) -> str:
    """Return class and text of an error whose class may be anybody's."""
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001 - of a user's own class
        text = f"(no text: {type(second).__name__})"
    return f"{type(error).__name__}: {text}"[:_ERROR_CHARS]


def elapsed(seconds: float) -> str:
    """Format a time as M:SS, H:MM:SS or D-HH:MM:SS."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}-{hour:02}:{minute:02}:{second:02}"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def run_time(seconds: float) -> str:
    """Format a time in seconds from one second on, below it in milliseconds."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def duration(seconds: float) -> str:
    """Format a time in seconds below two minutes, in minutes below two hours, else in hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Format bytes with a binary unit, as in "16.0 GiB"; from one exbibyte on as a power of two."""
    if number >= 2**60:
        return f"2^{number.bit_length() - 1} bytes"
    value = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def short_repr(value: object) -> str:
    """Represent a number, a short text, or a few of them; of other values return the type. The
    representation of a value that somebody sent may take any time and any size: aliases of YAML
    make a list of billions out of ten lists, and Python represents no number of 5,000 digits."""
    items: list[object] = [value]
    if isinstance(value, list | tuple) and len(value) <= _SHOWN_ITEMS:
        items = list(value)
    elif isinstance(value, Mapping) and len(value) <= _SHOWN_ITEMS:
        items = [*value.keys(), *value.values()]
    shown = repr(value) if all(map(_is_short, items)) else ""
    return shown if 0 < len(shown) <= _SHOWN_CHARS else f"<{type(value).__name__}>"


def _is_short(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= _SHOWN_BITS
    if isinstance(value, str):
        return len(value) <= _SHOWN_CHARS
    return value is None or isinstance(value, float)
