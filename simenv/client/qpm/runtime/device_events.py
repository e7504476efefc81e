"""Device events for the queues of hosts: calibrations, changes of the noise, outages.

One thread for each QPM reads the service's events while a queue is registered for them. An event is
put to each registration once, in order, by the sender of its endpoint.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from simenv.client.connection.session import ServiceSession
from simenv.client.qpm.runtime.event_delivery import Delivery, EndpointSender
from simenv.client.qpm.runtime.notifications import EventSubscription, check_registrations
from simenv.errors import SimenvError
from simenv.model import Event
from simenv.qpm.envelopes import EventEnvelope
from simenv.wire.messages import client as m

DEVICE_EVENTS = ("calibration-update", "noise-fluctuation", "outage")
LOOK_S = 0.25  # between two questions to the service
PAGE = 500
Plain = dict[str, Any]


class DeviceEventNotifier:
    """`CompletionSource` without completions. `pool`: the pool whose events are delivered; "": all
    pools."""

    def __init__(self, session: ServiceSession, delivery: Delivery, pool: str) -> None:
        self._session = session
        self._delivery = delivery
        self._pool = pool
        self._registered: list[tuple[EventSubscription, EndpointSender]] = []
        self._thread: threading.Thread | None = None
        self._seen = 0  # the number of the last event that was read
        self._wake = threading.Event()

    def register(self, registration: EventSubscription) -> int:
        """Add a registration and return their number; one of the same queue is replaced. Later
        events are delivered. Raises ServiceLostError, and OutOfResourcesError for too many."""
        newest = self._events(0, 0).newest
        with self._session.channel.lock:
            for existing, _ in list(self._registered):
                if _same(existing, registration):
                    self.lost(existing)
            check_registrations(len(self._registered))
            outlet = self._delivery.join(self, registration.endpoint)
            if not self._registered:
                self._seen = newest
            self._registered.append((registration, outlet))
            if self._thread is None or not self._thread.is_alive():
                self._wake.clear()
                self._thread = threading.Thread(
                    target=self._serve, name="simenv-qpm-devices", daemon=True
                )
                self._thread.start()
            return len(self._registered)

    def close(self) -> None:
        """End all registrations."""
        with self._session.channel.lock:
            for registration, _ in list(self._registered):
                self.lost(registration)
            self._delivery.end(self)
        self._wake.set()

    def lost(self, registration: EventSubscription) -> None:
        """End a registration whose endpoint has failed. Called with the lock held."""
        kept = [pair for pair in self._registered if pair[0] is not registration]
        gone = len(kept) < len(self._registered)
        self._registered = kept
        endpoint = registration.endpoint
        if gone and all(existing.endpoint is not endpoint for existing, _ in kept):
            self._delivery.leave(self, endpoint)

    # --- a source of deliveries -----------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        return False  # its own thread reads

    def ask_again(self, now: float) -> None:  # noqa: ARG002 - the thread asks again by itself
        return None

    # --- the thread -----------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self._session.channel.closed:
            if self._wake.wait(LOOK_S) or not self._registered:
                return
            try:
                page = self._events(self._seen, PAGE)
            except SimenvError:  # no answer, or closed: missed events are read later
                continue
            with self._session.channel.lock:
                for event in page.events:
                    self._seen = event.seq
                    self._tell(event)

    def _tell(self, event: Event) -> None:
        if event.kind not in DEVICE_EVENTS or self._pool not in ("", event.subject):
            return
        record = payload(event)
        for registration, outlet in self._registered:
            if registration.evtype == event.kind and registration.wants(record):
                outlet.push(_DeviceParcel(self, registration, record))

    def _events(self, since: int, limit: int) -> m.Events:
        return self._session.request(m.Events, partial(m.GetEvents, since=since, limit=limit))


class _DeviceParcel:
    """A `EventDelivery`: an event of a device for one registration."""

    def __init__(
        self, notifier: DeviceEventNotifier, registration: EventSubscription, record: Plain
    ) -> None:
        self._notifier = notifier
        self._registration = registration
        self._record = record

    def claim(self) -> bool:
        return True

    def put(self) -> bool:
        envelope = EventEnvelope(self._registration.evtype, dict(self._record))
        self._registration.endpoint.put(envelope)
        return True

    def shelve(self) -> None:
        return None

    def delivered(self) -> None:
        return None

    def failed(self) -> None:
        self._notifier.lost(self._registration)


def payload(event: Event) -> Plain:
    """Event of a device as a host reads it."""
    entries: Plain = {
        "event": event.kind,
        "target_id": event.subject,
        "timestamp_ns": round(event.time_s * 1e9),
        "details": event.message,
    }
    if event.kind != "outage":
        entries["calibration_set_id"] = event.message.partition(" ")[0]
    return entries


def _same(subscription: EventSubscription, other: EventSubscription) -> bool:
    return (subscription.endpoint, subscription.class_id, subscription.evtype) == (
        other.endpoint,
        other.class_id,
        other.evtype,
    )
