"""Times of day as people type them: `--since 1h30m`, `--since 12:00`."""

from __future__ import annotations

import re
import time
from datetime import datetime

import typer

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+\Z")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?\Z")


def since(text: str) -> float:
    """Seconds since 1970: so long ago (`90s`, `1h30m`, `2d`), today at (`12:00`), or ISO 8601 in
    local time. typer.BadParameter for anything else; 0.0 for ""."""
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


def shown(time_s: float) -> str:
    """ISO 8601 in local time, to the millisecond; "-" for 0.0."""
    if not time_s:
        return "-"
    moment = datetime.fromtimestamp(time_s).astimezone()
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
