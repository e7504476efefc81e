"""Turns of owners: queues, the threads of checks, and the time that large messages take.

Invariants: an owner with a thousand connections gets no more turns than one with a single
connection; the items of a connection keep their order. The threads run one check of an owner before
the next one of the same owner, whatever the others have waiting. Decoding and checks of large
messages for the owner of one key take at most SHARE of the time, after a first BURST_NS.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from simenv.errors import QueueFullError
from simenv.wire import codec
from simenv.wire.messages import client as m

LARGE_BYTES = 2**14  # smaller messages take less time than the accounting
SHARE = 0.25
BURST_NS = 100_000_000
SOUND_NS = 10_000_000  # 8 MiB of one program take less
THREADS = 4  # of checks: owners that are served at once
COSTLY = 40  # factor by which time above SOUND_NS is charged
# Time after which a check gives the interpreter to the event loop, which asks for it again after
# each system call. At the 5 ms of Python a pass that makes many of them took half a second.
SWITCH_S = 0.000_5
T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items by owner and connection. The first item is that of the connection whose turn it is.
    Pure."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, OrderedDict[bytes, deque[T]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._owners)

    def of(self, owner: str, peer: bytes) -> int:
        """Return the number of waiting items of a connection."""
        peers = self._owners.get(owner)
        return len(peers.get(peer, ())) if peers is not None else 0

    def has(self, peer: bytes) -> bool:
        """Return whether items of a connection wait."""
        return any(peer in peers for peers in self._owners.values())

    def put(self, owner: str, peer: bytes, item: T) -> None:
        """Append an item behind those of the same connection."""
        peers = self._owners.get(owner)
        if peers is None:
            peers = self._owners[owner] = OrderedDict()
        items = peers.get(peer)
        if items is None:
            items = peers[peer] = deque()
        items.append(item)

    def first(self) -> tuple[str, bytes, T]:
        """Return the owner and connection whose turn it is, with their item. Raises IndexError if
        no item waits."""
        for owner, peers in self._owners.items():
            for peer, items in peers.items():
                return owner, peer, items[0]
        raise IndexError("nothing waits")

    def take(self, busy: Container[str]) -> tuple[str, T] | None:
        """Remove and return the first item of the first owner that is not `busy`, whose turn ends;
        None if there is none."""
        owner = next((each for each in self._owners if each not in busy), None)
        if owner is None:
            return None
        self._owners.move_to_end(owner, last=False)
        item = self.first()[2]
        self.end_turn(done=True)
        return owner, item

    def end_turn(self, *, done: bool) -> None:
        """End the turn of the first connection; `done`: also remove its item."""
        owner, peers = next(iter(self._owners.items()))
        peer, items = next(iter(peers.items()))
        if done:
            items.popleft()
        if items:
            peers.move_to_end(peer)
        else:
            del peers[peer]
            if not peers:
                del self._owners[owner]
                return
        self._owners.move_to_end(owner)

    def remove_connection(self) -> deque[T]:
        """Remove and return all items of the connection whose turn it is."""
        owner, peers = next(iter(self._owners.items()))
        _, items = peers.popitem(last=False)
        if peers:
            self._owners.move_to_end(owner)
        else:
            del self._owners[owner]
        return items

    def restore_connection(self, owner: str, peer: bytes, items: deque[T]) -> None:
        """Insert removed items of a connection before its later ones."""
        since = self._owners.setdefault(owner, OrderedDict()).setdefault(peer, deque())
        since.extendleft(reversed(items))


class FairThreads:
    """Threads for checks that are too long for the event loop. Each owner has one of them at a
    time, so that a check of another one begins at once while fewer than `threads` owners have any;
    beyond that, owners take turns. A check whose future is cancelled before its turn is not run.
    The CPU time of each owner's checks of large messages is counted, for `Decoding`."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = ThreadPoolExecutor(threads, "checks")
        self._lock = threading.Lock()
        self._waiting: FairQueue[tuple[Future[Any], Callable[[], Any], bool]] = FairQueue()
        self._running: set[str] = set()  # owners
        self._interval_s = 0.0  # between switches of threads while no check runs
        self._spent_ns: Counter[str] = Counter()

    def submit(self, owner: str, check: Callable[[], T], *, counted: bool = True) -> Future[T]:
        """Queue a check. Return the future with its result or its error. `counted`: its CPU time is
        the owner's."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.put(owner, b"", (future, check, counted))
        self._threads.submit(self._run)
        return future

    def take_spent_ns(self, owner: str) -> int:
        """Return the CPU time of an owner's counted checks since the last call."""
        with self._lock:
            return self._spent_ns.pop(owner, 0)

    def _run(self) -> None:
        """Run checks while there are any of owners that have no thread; called in a thread, once
        for each check."""
        while (found := self._begin()) is not None:
            owner, (future, check, counted) = found
            if not future.set_running_or_notify_cancel():
                self._end(owner, 0)
                continue
            begin_ns, result, failure = time.thread_time_ns(), None, None
            try:
                result = check()
            except BaseException as error:  # noqa: BLE001 - raised by `future.result()`
                failure = error
            self._end(owner, time.thread_time_ns() - begin_ns if counted else 0)
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _begin(self) -> tuple[str, tuple[Future[Any], Callable[[], Any], bool]] | None:
        with self._lock:
            found = self._waiting.take(self._running)
            if found is None:
                return None
            if not self._running:
                self._interval_s = sys.getswitchinterval()
                sys.setswitchinterval(SWITCH_S)
            self._running.add(found[0])
            return found

    def _end(self, owner: str, spent_ns: int) -> None:
        with self._lock:
            self._running.remove(owner)
            if not self._running:
                sys.setswitchinterval(self._interval_s)
            if owner and spent_ns:
                self._spent_ns[owner] += spent_ns


CHECKS = FairThreads()


class Decoding:
    """Bound on the time of each owner's large messages: their decoding in the event loop, and the
    checks of their content in the other thread, which shares the interpreter with the loop.

    The time of an owner is reduced by the owner's share of the time since then. A message can be
    refused only after it was decoded. Checks of small ones, such as the trial of engines for a wide
    program, are not counted. Decoding time above that of any valid message is charged at a higher
    rate. Used from the loop's thread.
    """

    def __init__(self, checks: FairThreads) -> None:
        """`checks`: the threads in which the content of messages is checked."""
        self._checks = checks
        self._debts: dict[str, tuple[float, int]] = {}  # nanoseconds, and the time of that count

    def of(self, owner: str, body: bytes) -> m.FromClient:
        """Decode a message. Raises QueueFullError for an owner without time left, ProtocolError for
        other bytes. Small messages, and those of the environment's own user, are not counted."""
        if len(body) <= LARGE_BYTES or not owner:
            return codec.from_client(body)
        begin_ns, busy_ns = time.monotonic_ns(), time.thread_time_ns()
        debt_ns, then_ns = self._debts.get(owner, (0.0, begin_ns))
        debt_ns += self._checks.take_spent_ns(owner)  # some time since then
        debt_ns = max(0.0, debt_ns - SHARE * (begin_ns - then_ns))
        if debt_ns > BURST_NS:
            self._debts[owner] = debt_ns, begin_ns
            raise QueueFullError(
                f"large messages with the key {owner!r} took more than {SHARE:.0%} of the service's"
                " time",
                hint="send them more slowly",
                retry_after_s=(debt_ns - BURST_NS) / SHARE / 1e9,
            )
        try:
            return codec.from_client(body)
        finally:
            spent_ns = time.thread_time_ns() - busy_ns
            spent_ns += COSTLY * max(0, spent_ns - SOUND_NS)
            self._debts[owner] = (debt_ns + spent_ns, begin_ns)
