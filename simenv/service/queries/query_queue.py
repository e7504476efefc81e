"""Queue of queries, answered within a time slice of each pass of the event loop.

Invariant: a pass spends its slice and one step on queries. Owners take turns, and so do the
connections of each. The queries of one connection are answered in order, except a Ping while a
program is checked in the other thread. A connection that does not read its answers gets no more
until it does, and the bytes of an owner's waiting queries are bounded.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any

import msgspec

from simenv.errors import QueueFullError, SimenvError
from simenv.service.fair_queue import FairQueue
from simenv.service.internal_errors import InternalErrors
from simenv.service.journal.finished import DamagedRecord
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.rights import Identity

MAX_QUERIES_PER_CONNECTION = 1_024  # waiting queries of one connection
MAX_OWNER_BYTES = 32 * 2**20  # of the waiting queries of one owner
QUERY_BYTES = 512  # memory of a query besides its message
TURN_NS = 2_000_000
RETRY_AFTER_S = 1.0
RECHECK_NS = 10_000_000  # between two checks whether held connections read again

# Packed answers; None: nothing to send yet, check the clock; a future: wait until it is done.
ReplySteps = Generator[bytes | Future[Any] | None, None, None]


class PendingQuery(msgspec.Struct, eq=False):
    """A query, and the state of its answer."""

    identity: Identity
    message: m.FromClient
    size_bytes: int
    steps: ReplySteps | None = None
    background_check: Future[Any] | None = None  # the check in another thread that it waits for


class QueryQueue:
    """Queries whose answers are incomplete. Used from the loop's thread. `answer` returns the steps
    of an answer. `on_damaged_record` is called for a journal record that cannot be read; then the
    query starts again."""

    def __init__(
        self,
        answer: Callable[[bytes, Identity, m.FromClient], ReplySteps],
        on_damaged_record: Callable[[DamagedRecord], None],
        send: Callable[[bytes, bytes], object],
        is_ready: Callable[[m.FromClient], bool] = lambda _: True,
        can_answer: Callable[[bytes, Identity], bool] = lambda *_: True,
        internal_errors: InternalErrors | None = None,
    ) -> None:
        """`is_ready`: returns whether a query can be answered yet; else it waits for `resume`.
        `can_answer`: returns whether an answer can be sent to a connection now."""
        self._is_ready = is_ready
        self._can_answer = can_answer
        self._deferred: dict[bytes, list[PendingQuery]] = {}  # queries that wait for `resume`
        self._answer = answer
        self._internal_errors = internal_errors or InternalErrors()
        self._on_damaged_record = on_damaged_record
        self._send = send
        self._waiting: FairQueue[PendingQuery] = FairQueue()
        # Queries of connections without room, or whose first query waits for the other thread.
        self._blocked: dict[bytes, tuple[str, deque[PendingQuery]]] = {}
        self._parked: set[bytes] = set()  # connections whose first query waits for a check
        self._departed: set[bytes] = set()  # those with queries whose clients have left
        self.pending_bytes: dict[str, int] = {}  # by owner; empty: no query waits
        self._next_poll_ns = 0

    @property
    def busy(self) -> bool:
        """True if a query can be answered now."""
        return bool(self._waiting)

    @property
    def holds(self) -> bool:
        """True if queries wait whose connections do not read their answers."""
        return bool(self._blocked)

    @property
    def parked(self) -> bool:
        """True if queries wait for checks in the other thread. Continuous polling would take the
        processor from that thread."""
        return bool(self._parked)

    def enqueue(
        self, peer: bytes, identity: Identity, message: m.FromClient, size_bytes: int = 0
    ) -> None:
        """Queue a query for `process`. `size_bytes`: of its message. Raises QueueFullError if too
        many queries of the connection, or too many bytes of the owner, wait already."""
        if peer in self._parked and type(message) is m.Ping:  # it tests that the service is alive
            self._advance(peer, PendingQuery(identity, message, 0), time.monotonic_ns() + TURN_NS)
            return
        owner, size = identity.owner, size_bytes + QUERY_BYTES
        blocked = self._blocked.get(peer)
        count = self._waiting.of(owner, peer) + (0 if blocked is None else len(blocked[1]))
        count += len(self._deferred.get(peer, ()))
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
            self._deferred.setdefault(peer, []).append(query)
        elif blocked is not None:
            blocked[1].append(query)
        else:
            self._waiting.put(owner, peer, query)

    def resume(self) -> None:
        """Queue the queries that were not ready when they arrived."""
        deferred, self._deferred = self._deferred, {}
        for peer, queries in deferred.items():
            blocked = self._blocked.get(peer)
            for query in queries:
                if blocked is not None:
                    blocked[1].append(query)
                else:
                    self._waiting.put(query.identity.owner, peer, query)

    def process(self, deadline_ns: int) -> None:
        """Answer queries until the deadline."""
        self._release_connections()
        while self._waiting:
            owner, peer, query = self._waiting.first()
            if not self._can_answer(peer, query.identity):
                self._hold_connection(owner, peer)
                continue
            turn_ns = min(deadline_ns, time.monotonic_ns() + TURN_NS)
            done = self._advance(peer, query, turn_ns)
            if query.background_check is not None and peer in self._departed:
                _close(query)
                done = True
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
        """Hold the connection whose turn it is, until it is released."""
        blocked = self._blocked.setdefault(peer, (owner, deque()))
        blocked[1].extend(self._waiting.remove_connection())

    def _release_connections(self) -> None:
        """Release held connections that read again or whose check has ended."""
        for peer in list(self._parked):
            owner, items = self._blocked[peer]
            future, has_left = items[0].background_check, peer in self._departed
            if future is None or future.done() or has_left:
                items[0].background_check = None
                if has_left:
                    _close(items[0])
                    self._forget(items.popleft())
                self._parked.remove(peer)
                del self._blocked[peer]
                if items:
                    self._waiting.restore_connection(owner, peer, items)
        now_ns = time.monotonic_ns()
        if not self._blocked or now_ns < self._next_poll_ns:
            return
        self._next_poll_ns = now_ns + RECHECK_NS
        for peer, (owner, items) in list(self._blocked.items()):
            if peer not in self._parked and self._can_answer(peer, items[0].identity):
                del self._blocked[peer]
                self._waiting.restore_connection(owner, peer, items)

    def clients_left(self, peers: Iterable[bytes]) -> None:
        """Drop the queries of clients that have left once they wait for a check."""
        self._departed = {
            each
            for each in self._departed.union(peers)
            if each in self._blocked or self._waiting.has(each)
        }

    def _forget(self, query: PendingQuery) -> None:
        owner = query.identity.owner
        remaining = self.pending_bytes[owner] - query.size_bytes
        if remaining:
            self.pending_bytes[owner] = remaining
        else:
            del self.pending_bytes[owner]

    def _advance(self, peer: bytes, query: PendingQuery, deadline_ns: int) -> bool:
        """Do some steps of one answer. Returns True when the answer is complete, or refused because
        the journal cannot be read or the service fails."""

        def refuse(error: SimenvError) -> None:
            request = getattr(query.message, "request", 0)
            self._send(peer, codec.encode(m.Refused(request, [codec.refusal(error)])))

        what = f"the answer to {type(query.message).__name__}"
        with self._internal_errors.guarded(what, refuse):
            try:
                if query.steps is None:
                    query.steps = self._answer(peer, query.identity, query.message)
                for answer in query.steps:
                    if isinstance(answer, Future):
                        query.background_check = answer
                        return False
                    if answer is not None:
                        self._send(peer, answer)
                        if not self._can_answer(peer, query.identity):
                            return False
                    if time.monotonic_ns() >= deadline_ns:
                        return False
            except DamagedRecord as error:
                query.steps = None
                self._on_damaged_record(error)
                return False
        return True


def _close(query: PendingQuery) -> None:
    """End the steps of an answer, which forget the check that they wait for."""
    if query.steps is not None:
        query.steps.close()
    query.background_check = None
