"""Queue, log and times of the event loop."""

import logging
import sys
import time
from concurrent.futures import wait

import pytest
from failing import fails
from service import ServiceHarness

from simenv.service import fair_queue
from simenv.service.__main__ import LogFormatter
from simenv.service.fair_queue import FairQueue
from simenv.service.service import PassTimes
from simenv.service.workers import endpoints
from simenv.service.workers.endpoints import LINES, WINDOW_S, RateLimitedLog
from simenv.wire.messages import client as m


def test_an_owner_with_many_connections_gets_one_turn_in_two() -> None:
    turns: FairQueue[str] = FairQueue()
    for peer in range(100):
        for item in range(3):
            turns.put("crowd", b"%d" % peer, f"crowd {peer} {item}")
    for item in range(3):
        turns.put("one", b"single", f"one {item}")
    order = []
    while turns:
        _, _, item = turns.first()
        order.append(item)
        turns.end_turn(done=True)
    assert order[:6:2] == ["crowd 0 0", "crowd 1 0", "crowd 2 0"]
    assert (order[1:7:2], len(order)) == (["one 0", "one 1", "one 2"], 303)
    for peer in range(100):  # each connection's own in their order
        assert [text for text in order if text.startswith(f"crowd {peer} ")] == [
            f"crowd {peer} {item}" for item in range(3)
        ]
    fails(IndexError, "", turns.first)


def test_items_put_back_precede_items_added_since() -> None:
    turns: FairQueue[int] = FairQueue()
    for number in range(3):
        turns.put("ana", b"a", number)
    result = turns.remove_connection()
    assert not turns
    turns.put("ana", b"a", 3)
    turns.restore_connection("ana", b"a", result)
    assert turns.of("ana", b"a") == 4
    entries = []
    while turns:
        entries.append(turns.first()[2])
        turns.end_turn(done=True)
    assert entries == [0, 1, 2, 3]


def shown(words: str, *details: object) -> str:
    record = logging.LogRecord("simenv", logging.INFO, "", 0, words, details, None)
    return LogFormatter("%(asctime)s %(levelname)s %(message)s").format(record)


def test_log_text_is_unchanged_but_escaped() -> None:
    text = shown("task %s ended", "x\n2026-11-21 10:00:00,000 INFO keys.revoked ana\x1b[2J\x9b1A\r")
    first, second = text.split("\n")
    assert first.endswith("INFO task x")
    assert second == "  2026-11-21 10:00:00,000 INFO keys.revoked ana\\x1b[2J\\x9b1A\\r ended"
    assert shown("Zürich ψ 量子\tend").endswith("INFO Zürich ψ 量子\tend")


def test_line_limits(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(endpoints.time, "monotonic", lambda: now)
    rate_limited_log = RateLimitedLog(logging.getLogger("test"))
    for k in range(5_000):
        rate_limited_log.warning("nonsense %d", k)
    assert [r.getMessage() for r in caplog.records] == [f"nonsense {k}" for k in range(LINES)]
    now += WINDOW_S
    caplog.clear()
    rate_limited_log.warning("again")
    more = f"{5_000 - LINES} more like that in the minute before"
    assert [record.getMessage() for record in caplog.records] == [more, "again"]


def test_pass_ends_when_the_loop_waits_again_and_includes_what_came_between() -> None:
    times = PassTimes()
    times.wait_begins()
    assert times.longest_ns == 0
    begin_ns = times.wait_ends()
    times.had_messages = False
    while time.monotonic_ns() - begin_ns < 1_000_000:
        pass
    times.wait_begins()
    assert times.longest_ns >= 1_000_000
    assert times.p99_ms() == 0.0, "passes without messages are no samples"
    times.restart()
    assert times.longest_ms() == 0.0


def test_status_shows_the_longest_pass(bench: ServiceHarness) -> None:
    first = bench.get(m.Status, m.GetStatus(1))
    second = bench.get(m.Status, m.GetStatus(2))
    longest_ms = bench.loop.monitoring.pass_times.longest_ms()
    assert longest_ms >= second.info.longest_pass_ms >= first.info.longest_pass_ms > 0.0


@pytest.mark.parametrize("ends", ["with a result", "with an error"])
def test_checks_give_the_interpreter_back_soon_and_others_as_before(ends: str) -> None:
    checks, before = fair_queue.FairThreads(), sys.getswitchinterval()

    def check() -> float:
        if ends == "with an error":
            raise ValueError(f"{sys.getswitchinterval():.6f}")
        return sys.getswitchinterval()

    future = checks.submit("ana", check)
    wait([future], 10.0)
    during = future.exception() or future.result()
    assert float(str(during)) == pytest.approx(fair_queue.SWITCH_S, abs=1e-6)
    checks.submit("ana", int).result(10.0)  # the check before is over
    assert sys.getswitchinterval() == pytest.approx(before, abs=1e-6)
