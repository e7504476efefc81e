"""Times as people type them."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
import typer

from simenv.cli.output.formats import format_time, since


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1.5h", 5400), ("1w", 604_800)],
)
def test_duration_is_read_as_time_before_now(text: str, ago_s: float) -> None:
    assert since(text) == pytest.approx(time.time() - ago_s, abs=5)


def test_time_of_day_and_iso_time_are_read_as_timestamps() -> None:
    assert since("") == 0.0
    today = datetime.now().astimezone().replace(hour=7, minute=5, second=0, microsecond=0)
    assert since("7:05") == since("07:05:00") == today.timestamp()
    local = datetime(2026, 1, 31, 12, 0).astimezone().timestamp()
    assert since("2026-01-31T12:00") == local
    assert since("2026-01-31T12:00:00+00:00") == 1_769_860_800
    assert since(format_time(local)) == local
    assert format_time(0.0) == "-"


@pytest.mark.parametrize("text", ["h", "1x", "-1h", "25:00", "12:61", "soon", "1h 30m", "\uff19h"])
def test_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        since(text)
