"""Registrations of completion events and of device events.

`CompletionNotifier` pushes the completions of one registry. Invariant: an event is put to a
registration at most once. In revision 1 a completion is either in delivery to the one registration
or can be read, never both, unless the endpoint is overdue (`event_delivery`).

`DeviceEventNotifier` pushes the events of devices: calibrations, changes of the noise, outages.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.qpm import requests
from simenv.client.qpm.circuit_run import CircuitRun
from simenv.client.qpm.completion_queues import CircuitRegistry
from simenv.client.qpm.event_delivery import Delivery, EndpointSender
from simenv.errors import SimenvError
from simenv.model import Event
from simenv.qpm import contract, envelopes
from simenv.wire.messages import client as m

COMPLETION_EVENTS = (1, "completion")
MAX_REGISTRATIONS = 1_024  # of one QPM: each endpoint may have a thread
log = logging.getLogger("simenv.qpm")

Plain = dict[str, Any]
Make = Callable[[CircuitRun], Plain]


class EventSubscription(msgspec.Struct, frozen=True, eq=False):
    """Registration for events. `filters`: completion fields with the value, or values, to match;
    `reservation`: only circuits of this reservation; 0: all."""

    endpoint: contract.EventEndpoint
    evtype: int | str
    class_id: str
    filters: Plain
    reservation: int = 0

    @staticmethod
    def of(
        ep: Any, evtype: Any, class_id: Any, filters: Any = None, reservation: int = 0
    ) -> EventSubscription:
        """Check the arguments of a registration. Raises ExecutionError."""
        if not callable(getattr(ep, "put", None)):
            raise requests.wrong("ep", ep, "an endpoint with a method put(event)")
        if not isinstance(evtype, str):
            requests.integer("evtype", evtype, 0, 2**31 - 1)
        name = requests.text("class_id", class_id)
        return EventSubscription(ep, evtype, name, requests.filters(filters), reservation)

    def wants(self, record: Plain) -> bool:
        for name, wanted in self.filters.items():
            result = record.get(name)
            if result != wanted and not (isinstance(wanted, list) and result in wanted):
                return False
        return True

    def concerns(self, run: CircuitRun) -> bool:
        """Return whether the completion of a run may match; `wants` decides."""
        if self.evtype not in COMPLETION_EVENTS:
            return False
        return not self.reservation or run.reservation == self.reservation


class CompletionNotifier:
    """Pushes the completions of a registry; an `event_delivery.CompletionSource`. `alone`: the last
    registration is the only one, and a pushed completion is not queued (revision 1); else all
    registrations count, and a pushed completion is queued too."""

    def __init__(
        self,
        session: ServiceSession,
        registry: CircuitRegistry,
        make: Make,
        delivery: Delivery,
        *,
        alone: bool,
    ) -> None:
        self._session = session
        self.registry = registry
        self._make = make
        self._delivery = delivery
        self.alone = alone
        self._registered: list[tuple[EventSubscription, EndpointSender]] = []
        registry.offer = self.offer

    def register(self, registration: EventSubscription) -> int:
        """Add a registration and return their number. An equal registration counts once. In
        revision 1 it replaces all others, else that of the same queue; a replaced one gets no more
        events. Raises OutOfResourcesError for more than MAX_REGISTRATIONS."""
        with self._session.channel.lock:
            if not any(_alike(existing, registration) for existing, _ in self._registered):
                replaced = [r for r, _ in self._registered if self.alone or _same(r, registration)]
                check_registrations(len(self._registered) - len(replaced))
                outlet = self._delivery.join(self, registration.endpoint)
                self._registered.append((registration, outlet))
                for existing in replaced:
                    self._drop(existing)
            return len(self._registered)

    def close(self) -> None:
        """End all registrations."""
        with self._session.channel.lock:
            self._delivery.end(self)
            for registration, _ in list(self._registered):
                self._drop(registration)

    def envelopes_of(self, run: CircuitRun) -> _LazyRecord:
        """Completion record of a run, computed when it is needed."""
        return _LazyRecord(run, self._make)

    def lost(self, registration: EventSubscription) -> None:
        """End a registration whose endpoint has failed. Called with the lock held."""
        if any(existing is registration for existing, _ in self._registered):
            self._drop(registration)

    def offer(self, run: CircuitRun) -> bool:
        """Push the completion to the registrations; return whether it must not be queued. Called
        with the lock held."""
        is_held = False
        settings = _LazyRecord(run, self._make)
        for registration, outlet in self._registered:
            if registration.concerns(run):
                parcel = _Parcel(self, registration, settings)
                is_held = outlet.push(parcel)
                if not is_held:
                    parcel.forget()
        return is_held and self.alone

    @property
    def is_waiting(self) -> bool:
        return bool(self._registered) and not self.registry.is_idle

    def ask_again(self, now: float) -> None:
        self.registry.ask_again(now)

    def _drop(self, registration: EventSubscription) -> None:
        (outlet,) = (outlet for existing, outlet in self._registered if existing is registration)
        self._registered = [pair for pair in self._registered if pair[0] is not registration]
        for parcel in outlet.discard(
            lambda p: isinstance(p, _Parcel) and p.registration is registration
        ):
            parcel.shelve()
        if all(other is not outlet for _, other in self._registered):
            self._delivery.leave(self, registration.endpoint)


class _LazyRecord:
    """Completion record that the first sender that needs it computes."""

    def __init__(self, run: CircuitRun, make: Make) -> None:
        self.run = run
        self._make = make
        self._making = threading.Lock()
        self._record: Plain | None = None

    def record(self) -> Plain:
        with self._making:
            if self._record is None:
                self._record = self._make(self.run)
            return self._record


class _Parcel:
    """An `EventDelivery`: a completion for one registration. One that waits for long
    keeps the cid only, so that the registry alone keeps the circuit."""

    def __init__(
        self, notifier: CompletionNotifier, registration: EventSubscription, completion: _LazyRecord
    ) -> None:
        self._notifier = notifier
        self.registration = registration
        self._cid = completion.run.cid
        self._completion: _LazyRecord | None = completion

    def forget(self) -> None:
        """Keep the cid only: the completion can be read, and is pushed if it is still registered in
        its turn."""
        self._completion = None

    def claim(self) -> bool:
        settings = self._completion
        if settings is None or self._notifier.alone:
            run = self._notifier.registry.hold(self._cid, unread=self._notifier.alone)
            if run is None:
                return False
            if settings is None:
                self._completion = self._notifier.envelopes_of(run)
            return True
        return settings.run.queued  # it was not deleted

    def put(self) -> bool:
        assert self._completion is not None
        try:
            record = self._completion.record()
        except Exception:  # this completion cannot be delivered: others can
            log.exception("circuit %s cannot be told of", self._cid)
            return False
        if self.registration.wants(record):
            self.registration.endpoint.put(
                envelopes.EventEnvelope(self.registration.evtype, record)
            )
        return True

    def shelve(self) -> None:
        if self._completion is not None and self._notifier.alone:
            self._notifier.registry.queue(self._completion.run)

    def delivered(self) -> None:
        if self._completion is not None and self._notifier.alone:
            self._notifier.registry.drop(self._completion.run)

    def failed(self) -> None:
        self.shelve()
        self._notifier.lost(self.registration)


def check_registrations(count: int) -> None:
    """Raise OutOfResourcesError if no registration may be added to this number of them."""
    if count >= MAX_REGISTRATIONS:
        message = f"{count} registrations for events; the limit is {MAX_REGISTRATIONS}"
        hint = "one registration for each queue, with filters"
        raise contract.OutOfResourcesError(message, hint=hint)


def _alike(subscription: EventSubscription, other: EventSubscription) -> bool:
    return _same(subscription, other) and subscription.filters == other.filters


def _same(subscription: EventSubscription, other: EventSubscription) -> bool:
    return (
        subscription.endpoint is other.endpoint
        and subscription.class_id == other.class_id
        and subscription.evtype == other.evtype
        and subscription.reservation == other.reservation
    )


DEVICE_EVENTS = ("calibration-update", "noise-fluctuation", "outage")
LOOK_S = 0.25  # between two questions to the service
PAGE = 500


class DeviceEventNotifier:
    """`CompletionSource` without completions. `pool`: the pool whose events are delivered; "": all
    pools.

    One thread reads the service's events while a queue is registered for them. An event is put to
    each registration once, in order, by the sender of its endpoint.
    """

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
            queue = (registration.endpoint, registration.class_id, registration.evtype)
            for existing, _ in list(self._registered):
                if (existing.endpoint, existing.class_id, existing.evtype) == queue:
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

    @property
    def is_waiting(self) -> bool:
        return False  # its own thread reads

    def ask_again(self, now: float) -> None:
        return None

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
        return self._session.request(m.GetEvents(0, since, limit))


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
        envelope = envelopes.EventEnvelope(self._registration.evtype, dict(self._record))
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
