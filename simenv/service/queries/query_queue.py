"""Queue of queries, answered within a time slice of each pass of the event loop.

Invariant: a pass spends its slice and one step on queries. Owners take turns, and the connections
of each; the queries of one connection are answered in order, but a Ping while a program is examined
in another thread. A connection that does not read its answers gets no more until it does, and the
bytes of an owner's waiting queries are bounded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import msgspec

from simenv.errors import QueueFullError, SimenvError
from simenv.service.journal.reader import DamagedRecord
from simenv.service.support.fair_queue import FairQueue
from simenv.wire import codec
from simenv.wire.auth import Identity
from simenv.wire.messages import client as m
from simenv.wire.refusals import refusal

MAX_QUERIES_PER_CONNECTION = 1_024  # questions of one connection that wait
MAX_OWNER_BYTES = 32 * 2**20  # of one owner's questions that wait
QUERY_BYTES = 512  # what one takes beside its message
TURN_NS = 2_000_000
RETRY_AFTER_S = 1.0
RECHECK_NS = 10_000_000  # between two looks whether somebody reads again

# Packed answers; None: nothing to send yet, look at the clock; a future: nothing until it is done.
ReplySteps = Iterator[bytes | Future[Any] | None]


class PendingQuery(msgspec.Struct, eq=False):
    """A question, and how far its answer has come."""

    identity: Identity
    message: m.FromClient
    size_bytes: int
    steps: ReplySteps | None = None
    background_check: Future[Any] | None = None  # in another thread, without which it cannot go on


class QueryQueue:
    """Queries whose answers are incomplete. Used from the loop's thread.

    `answer` returns the steps of an answer. `on_damaged_record` is called for a journal record that
    cannot be read; then the query starts again.
    """

    def __init__(
        self,
        answer: Callable[[bytes, Identity, m.FromClient], ReplySteps],
        on_damaged_record: Callable[[DamagedRecord], None],
        send: Callable[[bytes, bytes], object],
        is_ready: Callable[[m.FromClient], bool] = lambda _: True,
        has_room: Callable[[bytes, Identity], bool] = lambda *_: True,
    ) -> None:
        """`is_ready`: whether a query can be answered yet; else it waits for `resume`. `has_room`:
        whether an answer can be sent to that connection now."""
        self._is_ready = is_ready
        self._has_room = has_room
        self._early: dict[bytes, list[PendingQuery]] = {}  # asked before they could be answered
        self._answer = answer
        self._on_damaged_record = on_damaged_record
        self._send = send
        self._waiting: FairQueue[PendingQuery] = FairQueue()
        # Of connections without room, or whose first question waits for another thread.
        self._held: dict[bytes, tuple[str, deque[PendingQuery]]] = {}
        self._parked: set[bytes] = set()  # the latter of these
        self.pending_bytes: dict[str, int] = {}  # by owner; empty: nobody waits for an answer
        self._next_look_ns = 0

    @property
    def busy(self) -> bool:
        """Does anybody wait for an answer that could be given?"""
        return bool(self._waiting)

    @property
    def holds(self) -> bool:
        """Does anybody wait for an answer who does not read those he has got?"""
        return bool(self._held)

    @property
    def parked(self) -> bool:
        """Does anybody wait for a program that is examined in another thread? To ask again and
        again would take the processor from that thread."""
        return bool(self._parked)

    def enqueue(
        self, peer: bytes, identity: Identity, message: m.FromClient, size_bytes: int = 0
    ) -> None:
        """`process` will come to it; QueueFullError if too many wait already, or too large ones.
        `size_bytes`: of its message."""
        if peer in self._parked and type(message) is m.Ping:  # the service lives, whatever it does
            for step in self._answer(peer, identity, message):
                if isinstance(step, bytes):
                    self._send(peer, step)
            return
        owner, size = identity.owner, size_bytes + QUERY_BYTES
        held = self._held.get(peer)
        count = self._waiting.of(owner, peer) + (0 if held is None else len(held[1]))
        count += len(self._early.get(peer, ()))
        if count >= MAX_QUERIES_PER_CONNECTION:
            raise QueueFullError(
                f"{count} queries of this connection wait for an answer; "
                f"the limit is {MAX_QUERIES_PER_CONNECTION}",
                hint="wait for the answers",
                retry_after_s=RETRY_AFTER_S,
            )
        waiting = self.pending_bytes.get(owner, 0)
        if waiting and waiting + size > MAX_OWNER_BYTES:
            raise QueueFullError(
                f"queries of {waiting} bytes wait for an answer; "
                f"the limit for an owner is {MAX_OWNER_BYTES}",
                hint="wait for the answers",
                retry_after_s=RETRY_AFTER_S,
            )
        self.pending_bytes[owner] = waiting + size
        query = PendingQuery(identity, message, size)
        if not self._is_ready(message):
            self._early.setdefault(peer, []).append(query)
        elif held is not None:
            held[1].append(query)
        else:
            self._waiting.put(owner, peer, query)

    def resume(self) -> None:
        """What was asked too early can be answered now."""
        early, self._early = self._early, {}
        for peer, queries in early.items():
            held = self._held.get(peer)
            for query in queries:
                if held is not None:
                    held[1].append(query)
                else:
                    self._waiting.put(query.identity.owner, peer, query)

    def process(self, deadline_ns: int) -> None:
        """Answer until the deadline."""
        self._release_connections()
        while self._waiting:
            owner, peer, query = self._waiting.first()
            if not self._has_room(peer, query.identity):
                self._hold_connection(owner, peer)
                continue
            turn_ns = min(deadline_ns, time.monotonic_ns() + TURN_NS)
            done = self._advance(peer, query, turn_ns)
            if query.background_check is not None:
                self._hold_connection(owner, peer)
                self._parked.add(peer)
            else:
                self._waiting.end_turn(done=done)
            if done:
                self._forget(query)
            if time.monotonic_ns() >= deadline_ns:
                return

    def _hold_connection(self, owner: str, peer: bytes) -> None:
        """The connection whose turn it is has none until it is let go."""
        held = self._held.setdefault(peer, (owner, deque()))
        held[1].extend(self._waiting.remove_connection())

    def _release_connections(self) -> None:
        """Those who read again, or whose program has been examined, are answered again."""
        for peer in list(self._parked):
            owner, items = self._held[peer]
            future = items[0].background_check
            if future is None or future.done():
                items[0].background_check = None
                self._parked.remove(peer)
                del self._held[peer]
                self._waiting.restore_connection(owner, peer, items)
        now_ns = time.monotonic_ns()
        if not self._held or now_ns < self._next_look_ns:
            return
        self._next_look_ns = now_ns + RECHECK_NS
        for peer, (owner, items) in list(self._held.items()):
            if peer not in self._parked and self._has_room(peer, items[0].identity):
                del self._held[peer]
                self._waiting.restore_connection(owner, peer, items)

    def _forget(self, query: PendingQuery) -> None:
        owner = query.identity.owner
        left = self.pending_bytes[owner] - query.size_bytes
        if left:
            self.pending_bytes[owner] = left
        else:
            del self.pending_bytes[owner]

    def _advance(self, peer: bytes, query: PendingQuery, deadline_ns: int) -> bool:
        """Some steps of one answer; True when that was all."""
        try:
            try:
                if query.steps is None:
                    query.steps = self._answer(peer, query.identity, query.message)
                for answer in query.steps:
                    if isinstance(answer, Future):
                        query.background_check = answer
                        return False
                    if answer is not None:
                        self._send(peer, answer)
                        if not self._has_room(peer, query.identity):
                            return False
                    if time.monotonic_ns() >= deadline_ns:
                        return False
            except DamagedRecord as error:
                query.steps = None
                self._on_damaged_record(error)
                return False
        except SimenvError as error:  # a journal that can't be read
            request = getattr(query.message, "request", 0)
            self._send(peer, codec.encode(m.Refused(request, [refusal(error)])))
        return True
