"""One owner's large messages take no more than a share of the loop."""

from __future__ import annotations

import pytest

from simenv.errors import ProtocolError, QueueFullError
from simenv.model import TaskOptions, TaskSpec
from simenv.service.admission import decode_budget
from simenv.service.admission.decode_budget import LARGE_BYTES, Decoding
from simenv.service.support.fair_thread import FairThread
from simenv.wire import codec
from simenv.wire.messages import client as m

LARGE = codec.encode(m.Submit(1, "~k", 0, TaskOptions(), [TaskSpec(bytes(LARGE_BYTES), 1, 1)]))
SMALL = codec.encode(m.Ping(1))


class Clock:
    """Each message takes `cost_ns`; time passes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = self.busy_ns = 0
        self.cost_ns = 0
        monkeypatch.setattr(decode_budget.time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(decode_budget.time, "thread_time_ns", self._busy)

    def _busy(self) -> int:
        self.busy_ns += self.cost_ns  # once before and once after a message
        return self.busy_ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def taken(decode: Decoding, owner: str, most: int = 1_000) -> int:
    """Large messages until one is refused."""
    for count in range(most):
        try:
            decode.of(owner, LARGE)
        except QueueFullError:
            return count
    return most


def test_owner_beyond_its_decode_budget_is_refused_and_others_are_not(clock: Clock) -> None:
    decode = Decoding(FairThread())
    clock.cost_ns = 5_000_000
    assert taken(decode, "mallory") == 21
    assert isinstance(decode.of("ana", LARGE), m.Submit)
    assert isinstance(decode.of("mallory", SMALL), m.Ping)
    assert taken(decode, "", 100) == 100  # the environment's own user
    with pytest.raises(QueueFullError, match="25%") as caught:
        decode.of("mallory", LARGE)
    assert caught.value.retry_after_s == pytest.approx(0.02)
    clock.now_ns += 1_000_000_000  # a quarter of it is paid back, which is more than all
    assert taken(decode, "mallory") == 21


def test_decode_budget_counts_decoding_time_of_each_message(clock: Clock) -> None:
    decode = Decoding(FairThread())
    clock.cost_ns = 300_000_000
    assert taken(decode, "mallory") == 1
    clock.now_ns += 40_000_000_000
    assert taken(decode, "mallory") == 0
    clock.now_ns += 10_000_000_000
    assert taken(decode, "mallory") == 1


def test_invalid_messages_count_in_decode_budget(clock: Clock) -> None:
    decode = Decoding(FairThread())
    clock.cost_ns = 60_000_000
    with pytest.raises(ProtocolError):
        decode.of("mallory", b"\xc1" * (LARGE_BYTES + 1))
    with pytest.raises(QueueFullError):
        decode.of("mallory", b"\xc1" * (LARGE_BYTES + 1))


def test_checks_in_the_other_thread_count_in_decode_budget(clock: Clock) -> None:
    checks = FairThread()
    decode = Decoding(checks)
    checks._spent_ns["mallory"] = 300_000_000
    with pytest.raises(QueueFullError) as caught:
        decode.of("mallory", LARGE)
    assert caught.value.retry_after_s == pytest.approx(0.8)
    with pytest.raises(QueueFullError):  # the time is counted once, and not forgotten
        decode.of("mallory", LARGE)
    assert isinstance(decode.of("ana", LARGE), m.Submit)
    clock.now_ns += 1_000_000_000
    assert isinstance(decode.of("mallory", LARGE), m.Submit)


def test_checks_are_paid_back_by_the_time_since_the_last_large_message(clock: Clock) -> None:
    checks = FairThread()
    decode = Decoding(checks)
    assert isinstance(decode.of("ana", LARGE), m.Submit)
    checks._spent_ns["ana"] = 300_000_000
    clock.now_ns += 2_000_000_000
    assert isinstance(decode.of("ana", LARGE), m.Submit)
