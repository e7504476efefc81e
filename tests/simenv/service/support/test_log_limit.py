"""The service's log, when somebody sends nonsense without end."""

from __future__ import annotations

import logging

import pytest

from simenv.service.support import log_limit
from simenv.service.support.log_limit import LINES, WINDOW_S, RateLimitedLog


def test_repeated_log_lines_are_limited_and_their_number_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(log_limit.time, "monotonic", lambda: now)
    rate_limited_log = RateLimitedLog(logging.getLogger("test"))
    for k in range(5_000):
        rate_limited_log.warning("nonsense %d", k)
    assert [record.getMessage() for record in caplog.records] == [
        f"nonsense {k}" for k in range(LINES)
    ]
    now += WINDOW_S
    caplog.clear()
    rate_limited_log.warning("again")
    assert [record.getMessage() for record in caplog.records] == [
        f"{5_000 - LINES} more like that in the minute before",
        "again",
    ]
