"""Registrations of completion events of one registry.

Invariant: an event is put to a registration at most once. In revision 1 a completion is either in
delivery to the one registration or can be read, never both, unless the endpoint is overdue
(`event_delivery`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.client.qpm.runtime.completion_queues import CircuitRegistry
from simenv.client.qpm.runtime.event_delivery import Delivery, EndpointSender
from simenv.qpm.bindings import EventEndpoint
from simenv.qpm.envelopes import EventEnvelope
from simenv.qpm.errors import OutOfResourcesError

COMPLETION_EVENTS = (1, "completion")
MAX_REGISTRATIONS = 1_024  # of one QPM: each endpoint may have a thread
log = logging.getLogger("simenv.qpm")

Plain = dict[str, Any]
Make = Callable[[CircuitRun], Plain]


class EventSubscription(msgspec.Struct, frozen=True, eq=False):
    """Registration for events. `filters`: completion fields with the value, or values, to match;
    `reservation`: only circuits of this reservation; 0: all."""

    endpoint: EventEndpoint
    evtype: int | str
    class_id: str
    filters: Plain
    reservation: int = 0

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
    """A `completion_queues.Reader` and an `event_delivery.CompletionSource`.

    `alone`: the last registration is the only one, and a pushed completion is not queued (revision
    1); else all registrations count, and a pushed completion is queued too.
    """

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
        registry.reader = self

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

    # --- a reader of the registry, a source of deliveries; with the lock held ---------------------

    def offer(self, run: CircuitRun) -> bool:
        """Push the completion to the registrations; return whether it must not be queued."""
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
            self.registration.endpoint.put(EventEnvelope(self.registration.evtype, record))
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
        raise OutOfResourcesError(
            f"{count} registrations for events; the limit is {MAX_REGISTRATIONS}",
            hint="one registration for each queue, with filters",
        )


def _alike(subscription: EventSubscription, other: EventSubscription) -> bool:
    return _same(subscription, other) and subscription.filters == other.filters


def _same(subscription: EventSubscription, other: EventSubscription) -> bool:
    return (
        subscription.endpoint is other.endpoint
        and subscription.class_id == other.class_id
        and subscription.evtype == other.evtype
        and subscription.reservation == other.reservation
    )
