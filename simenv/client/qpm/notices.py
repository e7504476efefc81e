"""Completions pushed to registered endpoints, by one thread that is started at the first one.

Invariant: an event is put to a registration at most once, and never with a lock held. While nothing
is open and nothing is to be sent the thread sleeps and leaves the socket to others.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from simenv.client.link import Link
from simenv.client.qpm.book import Book
from simenv.client.qpm.run import Run
from simenv.errors import SimenvError
from simenv.qpm.bindings import Endpoint
from simenv.qpm.envelopes import Event

COMPLETION_EVENTS = (1, "completion")
PAUSE_S = 0.5  # while the service is silent
log = logging.getLogger("simenv.qpm")

Make = Callable[[Run], dict[str, Any]]


class Registration(msgspec.Struct, frozen=True, eq=False):
    """Who wants to hear of what. `filters`: fields of a completion and the value, or values;
    `reservation`: of its circuits alone; 0: of all."""

    endpoint: Endpoint
    evtype: int | str
    class_id: str
    filters: dict[str, Any]
    reservation: int = 0

    def wants(self, record: dict[str, Any]) -> bool:
        if self.reservation and record.get("reservation_id") != self.reservation:
            return False
        for name, wanted in self.filters.items():
            found = record.get(name)
            if found != wanted and not (isinstance(wanted, list) and found in wanted):
                return False
        return True


class Notices:
    """A `book.Reader`. `alone`: the last registration is the only one, and what is pushed is not
    queued (revision 1); else every registration counts and what is pushed is queued too."""

    def __init__(self, link: Link, book: Book, make: Make, *, alone: bool) -> None:
        self._link = link
        self._book = book
        self._make = make
        self._alone = alone
        self._registrations: list[Registration] = []
        self._outgoing: deque[Run] = deque()
        self._thread: threading.Thread | None = None
        book.reader = self

    def register(self, registration: Registration) -> int:
        """How many registrations there are now; the same endpoint asking again counts once."""
        with self._link.channel.lock:
            kept = (
                []
                if self._alone
                else [r for r in self._registrations if not _same(r, registration)]
            )
            self._registrations = [*kept, registration]
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="simenv-qpm", daemon=True)
                self._thread.start()
            return len(self._registrations)

    def offer(self, run: Run) -> bool:
        """With the lock held: is it pushed instead of being queued?"""
        if not any(r.evtype in COMPLETION_EVENTS for r in self._registrations):
            return False
        self._outgoing.append(run)
        self._link.channel.changed.notify_all()
        return self._alone

    def _serve(self) -> None:
        channel = self._link.channel
        while not channel.closed:
            with channel.lock:
                channel.changed.wait_for(
                    lambda: channel.closed or self._outgoing or not self._book.is_idle
                )
            try:
                if not self._outgoing:
                    channel.wait(self._has_news, repeat=self._book.ask_again)
            except SimenvError:  # closed, or silent: then whoever waits for a result is told
                with channel.lock:
                    channel.changed.wait_for(lambda: channel.closed, PAUSE_S)
            while self._outgoing:
                run = self._outgoing.popleft()
                try:
                    self._push(run)
                except Exception:  # of one that cannot be told of: the others can
                    log.exception("circuit %s cannot be told of", run.cid)
                    self._keep(run)

    def _has_news(self) -> bool:
        return bool(self._outgoing) or self._book.is_idle

    def _push(self, run: Run) -> None:
        if not run.queued:
            return  # it was deleted meanwhile
        record = self._make(run)
        taken = False
        for registration in list(self._registrations):
            if registration.evtype in COMPLETION_EVENTS and registration.wants(record):
                taken = self._put(registration, record) or taken
        if not taken:
            self._keep(run)
        elif self._alone:
            self._book.drop(run)

    def _keep(self, run: Run) -> None:
        """Nobody took it: it is read instead, unless it was deleted meanwhile."""
        with self._link.channel.lock:
            if self._alone and run.queued:
                self._book.queue(run)

    def _put(self, registration: Registration, record: dict[str, Any]) -> bool:
        try:
            registration.endpoint.put(Event(registration.evtype, record))
        except Exception:  # noqa: BLE001 - a stranger's endpoint may raise anything: it is gone
            with self._link.channel.lock:
                self._registrations = [r for r in self._registrations if r is not registration]
            return False
        return True


def _same(one: Registration, other: Registration) -> bool:
    return (
        one.endpoint is other.endpoint
        and one.class_id == other.class_id
        and one.evtype == other.evtype
        and one.reservation == other.reservation
    )
