"""The event queue behind an endpoint, used by both kinds of `ClientEventSink`."""

from __future__ import annotations

import queue
import uuid
from typing import Any

import msgspec


class ReceivedEvent(msgspec.Struct, frozen=True):
    """Event that reached a client. `impure`: places in it that are not plain data."""

    evtype: Any
    payload: Any


class EventInbox:
    """A `target.Sink` without its endpoint; the endpoint calls `arrived` with each event."""

    def __init__(self) -> None:
        self.class_id = str(uuid.uuid4())
        self._events: queue.SimpleQueue[ReceivedEvent] = queue.SimpleQueue()
        self._seen = 0
        self._fails = False

    def arrived(self, event: ReceivedEvent) -> bool:
        """Return whether the event was taken. False simulates a client that has gone."""
        self._seen += 1
        if not self._fails:
            self._events.put(event)
        return not self._fails

    def take(self, timeout_s: float) -> ReceivedEvent | None:
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def seen(self) -> int:
        return self._seen

    def fail(self) -> None:
        self._fails = True
