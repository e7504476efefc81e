"""Text forms of node lists, such as gpu[07-08,11], and of times, such as `--since 1h30m`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime

import typer

_NUMBERED = re.compile(r"(.*?)(\d{1,18})(\D*)\Z")


def folded(names: Iterable[str]) -> str:
    """Fold names of nodes: gpu07 gpu08 gpu11 login to gpu[07-08,11],login; order of first
    appearance."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for name in dict.fromkeys(names):
        result = _NUMBERED.match(name)
        if result is None:
            groups[(name, "", -1)] = []
            continue
        before, digits, after = result.groups()
        width = len(digits) if digits.startswith("0") and len(digits) > 1 else 0
        kind = (before, after, width)
        # 099 and 100 belong to one series of three digits.
        padded = (before, after, len(digits))
        groups.setdefault(padded if padded in groups else kind, []).append(int(digits))
    return ",".join(_word(*kind, indices) for kind, indices in groups.items())


def _word(before: str, after: str, width: int, indices: list[int]) -> str:
    if width < 0:
        return before
    if len(indices) == 1:
        return f"{before}{indices[0]:0{width}d}{after}"
    return f"{before}[{','.join(_ranges(sorted(indices), width))}]{after}"


def _ranges(indices: list[int], width: int) -> Iterable[str]:
    start = last = indices[0]
    for number in [*indices[1:], -2]:
        if number == last + 1:
            last = number
            continue
        first = f"{start:0{width}d}"
        yield first if start == last else f"{first}-{last:0{width}d}"
        start = last = number


_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+\Z")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?\Z")


def since(text: str) -> float:
    """Parse a time into seconds since 1970; 0.0 for "".

    Forms: an age (`90s`, `1h30m`, `2d`), a time of today (`12:00`), or ISO 8601 in local time.
    Raises typer.BadParameter for other texts.
    """
    if not text:
        return 0.0
    if _SPAN.match(text):
        span_s = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        return max(0.0, time.time() - span_s)
    try:
        if _CLOCK.match(text):
            text = f"{datetime.now().astimezone().date()}T{text.zfill(5)}"
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        hint = "try 90s, 1h30m, 2d, 12:00 or 2026-01-31T12:00"
        raise typer.BadParameter(f"{text!r} is no time: {hint}") from error


def format_time(time_s: float) -> str:
    """Format a time as ISO 8601 in local time, to the millisecond; "-" for 0.0."""
    if not time_s:
        return "-"
    moment = datetime.fromtimestamp(time_s).astimezone()
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
