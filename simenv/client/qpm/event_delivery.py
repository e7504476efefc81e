"""Event delivery: a bounded queue and a sender thread for each endpoint, so that a slow endpoint
does not delay others.

Invariant: only its own sender calls the `put` of an endpoint, never with a lock held. A `put` that
has not returned after PUT_S suspends its endpoint: its undelivered events can be polled until the
`put` returns (then the unread events are put) or raises (then its registration ends). Queues and
states change under the session's lock.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from simenv.client.connection.session import ServiceSession
from simenv.errors import SimenvError
from simenv.qpm.contract import EventEndpoint

PUT_S = 2.0  # a `put` that takes longer suspends its endpoint
QUEUE = 1_024  # completions kept for one endpoint in addition to the registry
NAMES = 65_536  # undelivered events of one endpoint; further completions can only be polled
LOOK_S = 0.5  # between two checks of endpoints with a `put` in progress
IDLE_S = 10.0  # a sender without work ends after this time
PAUSE_S = 0.5  # while the service does not answer
log = logging.getLogger("simenv.qpm")


class EventDelivery(Protocol):
    """One event on its way to one endpoint. All methods but `put` are called with the lock held."""

    def claim(self) -> bool:
        """Prepare the delivery; False if the event is no longer wanted."""

    def put(self) -> bool:
        """Call the endpoint's `put` and return when it has returned; called without the lock. False
        if the event cannot be delivered and must be polled."""

    def shelve(self) -> None:
        """Make the event readable by polling while it waits."""

    def delivered(self) -> None:
        """Note that the endpoint took the event."""

    def failed(self) -> None:
        """Note that the endpoint refused the event; no further attempt is made."""


class CompletionSource(Protocol):
    """Source of events for endpoints."""

    @property
    def is_waiting(self) -> bool:
        """True if a circuit is open whose end is to be delivered. Exact with the lock held, else a
        hint."""

    def ask_again(self, now: float) -> None:
        """Request overdue results again, because messages may have been lost. Called with the lock
        held."""


class EndpointSender:
    """Sender of one endpoint, and its queue. Guarded by the session's lock."""

    def __init__(
        self,
        session: ServiceSession,
        endpoint: EventEndpoint,
        began: Callable[[EndpointSender], None],
    ) -> None:
        self._session = session
        self.endpoint = endpoint
        self._began = began
        self._queue: deque[EventDelivery] = deque()
        self._thread: threading.Thread | None = None
        self._wake = threading.Condition(session.channel.lock)
        self._under_way: EventDelivery | None = None
        self._since_s = 0.0
        self._retired = False
        self.suspended = False
        self.sources: set[CompletionSource] = set()  # sources with a registration of the endpoint

    def push(self, parcel: EventDelivery) -> bool:
        """Append an event to the queue. False if its delivery takes long or never happens, so that
        the caller must not keep the event for it."""
        waiting = len(self._queue)
        if self._retired or waiting >= NAMES:
            return False
        self._queue.append(parcel)
        if self._thread is not None and self._thread.is_alive():
            self._wake.notify()
        else:
            self._wake = threading.Condition(self._session.channel.lock)  # a forked child's is new
            self._thread = threading.Thread(
                target=self._serve, args=(self._wake,), name="simenv-qpm-send", daemon=True
            )
            self._thread.start()
        return waiting < QUEUE and not self.suspended

    def discard(self, unwanted: Callable[[EventDelivery], bool]) -> list[EventDelivery]:
        """Remove unwanted events from the queue; return them in order."""
        results = [parcel for parcel in self._queue if unwanted(parcel)]
        self._queue = deque(parcel for parcel in self._queue if not unwanted(parcel))
        return results

    def retire(self) -> None:
        """Stop the delivery; queued events become readable by polling."""
        self._retired = True
        for parcel in self.discard(lambda _: True):
            parcel.shelve()
        self._wake.notify()

    def check(self, now: float) -> bool:
        """Return whether a `put` is in progress; suspend the endpoint if it is overdue."""
        if self._under_way is None:
            return False
        if not self.suspended and now - self._since_s >= PUT_S:
            log.warning("a client has not taken its event for %g s: it is suspended", PUT_S)
            self.suspended = True
            for parcel in (self._under_way, *self._queue):
                parcel.shelve()
        return True

    def _serve(self, wake: threading.Condition) -> None:
        while True:
            with wake:
                parcel = self._next(wake)
                if parcel is None:
                    self._thread = None
                    return
                self._under_way, self._since_s = parcel, monotonic()
                self._began(self)
            done = parcel.failed
            try:
                done = parcel.delivered if parcel.put() else parcel.shelve
            except Exception as error:  # noqa: BLE001 - a host's endpoint may raise anything
                log.info("an event is not taken: %s", error)
            with wake:
                self._under_way, self.suspended = None, False
                done()

    def _next(self, wake: threading.Condition) -> EventDelivery | None:
        """Next event that is still wanted; None if this thread may end."""
        channel = self._session.channel
        while True:
            if not self._queue and not self._retired:
                wake.wait_for(lambda: bool(self._queue) or self._retired or channel.closed, IDLE_S)
            if not self._queue or self._retired or channel.closed:
                return None
            parcel = self._queue.popleft()
            if parcel.claim():
                return parcel


class Delivery:
    """All outlets of one connection to the service, with one thread that reads the socket while a
    circuit is open whose end is to be delivered."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session
        self._sources: dict[CompletionSource, None] = {}
        self._outlets: dict[int, EndpointSender] = {}  # by the identity of their endpoints
        self._sending: set[EndpointSender] = set()
        self._thread: threading.Thread | None = None
        self._timed = False  # the thread looks again by itself
        self._requested_s = self._looked_s = 0.0

    def join(self, source: CompletionSource, endpoint: EventEndpoint) -> EndpointSender:
        """Connect a source with an endpoint and return the outlet. Called with the lock held."""
        self._sources[source] = None
        outlet = self._outlets.get(id(endpoint))
        if outlet is None:
            outlet = EndpointSender(self._session, endpoint, self._watch)
            self._outlets[id(endpoint)] = outlet
        outlet.sources.add(source)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._serve, name="simenv-qpm", daemon=True)
            self._thread.start()
        self._session.channel.notify()
        return outlet

    def leave(self, source: CompletionSource, endpoint: EventEndpoint) -> None:
        """Disconnect a source from an endpoint; an endpoint without a source is retired. Called
        with the lock held."""
        outlet = self._outlets.get(id(endpoint))
        if outlet is not None:
            outlet.sources.discard(source)
            if not outlet.sources:
                del self._outlets[id(endpoint)]
                outlet.retire()

    def end(self, source: CompletionSource) -> None:
        """Remove a source. Called with the lock held."""
        self._sources.pop(source, None)

    def _watch(self, outlet: EndpointSender) -> None:
        self._sending.add(outlet)
        if not self._timed:
            self._session.channel.notify()

    def _serve(self) -> None:
        channel = self._session.channel
        while not channel.closed:
            try:
                self._read()
            except SimenvError:  # closed, or no answer: threads that wait for results get the error
                self._pause()
            except Exception:  # no other thread reads for the endpoints of this connection
                log.exception("events are not read; tried again in %g s", PAUSE_S)
                self._pause()
            self._check()

    def _read(self) -> None:
        """Wait until there is something to read for, then read for LOOK_S at most."""
        channel = self._session.channel
        with channel.lock:
            self._timed = bool(self._sending)
            channel.changed.wait_for(self._has_work, LOOK_S if self._timed else None)
            waiting = self._is_waiting()
            self._timed = True
        if waiting:
            channel.wait(lambda: not self._is_waiting(), LOOK_S, self._repeat)

    def _pause(self) -> None:
        channel = self._session.channel
        with channel.lock:
            channel.changed.wait_for(lambda: channel.closed, PAUSE_S)

    def _has_work(self) -> bool:
        return (
            self._session.channel.closed
            or self._is_waiting()
            or (bool(self._sending) and not self._timed)
        )

    def _is_waiting(self) -> bool:
        return any(source.is_waiting for source in tuple(self._sources))  # also without the lock

    def _repeat(self, now: float) -> None:
        if now - self._requested_s >= LOOK_S:
            self._requested_s = now
            for source in tuple(self._sources):
                source.ask_again(now)

    def _check(self) -> None:
        """Suspend overdue endpoints, and call `forsake` of those whose client may have gone."""
        with self._session.channel.lock:
            now = monotonic()
            if now - self._looked_s < LOOK_S / 2:
                return
            self._looked_s = now
            self._sending = {outlet for outlet in self._sending if outlet.check(now)}
            late = [outlet.endpoint for outlet in self._sending if outlet.suspended]
        for endpoint in late:
            forsake: Any = getattr(endpoint, "forsake", None)
            if forsake is not None:
                with suppress(Exception):  # a host's endpoint may raise anything; retried later
                    forsake()
