"""Clients of a QPM under check, with and without an event queue.

Invariant: each answer is tested for values that are not plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simenv.qpm_check.contract.event_inbox import ReceivedEvent
from simenv.qpm_check.contract.outcomes import expect, short_repr
from simenv.qpm_check.contract.plain_data import impurities
from simenv.qpm_check.targets.target import ClientConnection, ClientEventSink


class CheckedClient:
    """Methods of a client; each answer is tested for values that are not plain data."""

    def __init__(self, link: ClientConnection, impure: dict[str, str]) -> None:
        self.link = link
        self._impure = impure

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.link.methods, name)

        def call(*args: Any, **named_ones: Any) -> Any:
            answer = method(*args, **named_ones)
            for place in impurities(answer):
                self._impure.setdefault(name, place)
            return answer

        return call


class EventListener:
    """A client and its event queue. `register` registers it with the QPM."""

    def __init__(self, client: CheckedClient, sink: ClientEventSink, wait_s: float) -> None:
        self.q = client
        self.sink = sink
        self._wait_s = wait_s

    def register(self, evtype: Any, **more: Any) -> Any:
        return self.q.register_event_notification(self.sink.ep, evtype, self.sink.class_id, **more)

    def taken(self) -> ReceivedEvent:
        """Return the next event. Raises CheckFailed if none comes in time."""
        event = self.sink.take(self._wait_s)
        expect(event is not None, f"no event within {self._wait_s:g} s")
        assert event is not None
        return event

    @property
    def seen(self) -> int:
        return self.sink.seen()


def counts_of(record: Any) -> dict[str, int]:
    """Counts of a record of either revision."""
    result = record.get("result") if isinstance(record, dict) else None
    if isinstance(result, dict) and isinstance(result.get("counts"), dict):
        result = result["counts"]
    expect(isinstance(result, dict), f"the record has no counts: {short_repr(record)}")
    counts: dict[str, int] = result  # type: ignore[assignment]
    return counts
