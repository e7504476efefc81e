"""Every circuit a QPM was given and has not handed back, and the queues of completions.

Invariant: all of it changes under the session's lock, which whoever reads the socket holds when a
task ends; so it holds in a forked child too, where that lock is new. A completion stays until it is
read or exceeds the bounds of `CompletionRetention`; a short record of a removed completion is kept,
so that its time and place can still be requested.

Completions that wait to be read: a queue for each reservation, and one for what runs under none.

Invariant: a queue is there while something is in it; it is in the order in which circuits ended.
Used with the session's lock held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from time import monotonic, time
from typing import Protocol

import msgspec

from simenv.client.connection.requests import REPEAT_S
from simenv.client.connection.session import ServiceSession
from simenv.client.qpm.runtime.circuit_run import CircuitRun, RunFacts
from simenv.model import TaskState
from simenv.qpm.envelopes import NOT_REACHED, Times
from simenv.qpm.states import Reason


class CompletionRetention(msgspec.Struct, frozen=True):
    """How long unread completions are kept, for each reservation: the contract's defaults."""

    age_s: float = 3600.0
    closed_s: float = 3600.0  # after its reservation was seen to be over
    count: int = 1_024
    size_bytes: int = 64 * 2**20
    purge_s: float = 60.0


class CompletionQueue:
    """The queue of one reservation."""

    def __init__(self) -> None:
        self.runs: OrderedDict[str, CircuitRun] = OrderedDict()
        self.size_bytes = 0


class CompletionQueues:
    """All queues."""

    def __init__(self) -> None:
        self._shelves: dict[int, CompletionQueue] = {}

    def __contains__(self, run: CircuitRun) -> bool:
        completion_queue = self._shelves.get(run.reservation)
        return completion_queue is not None and completion_queue.runs.get(run.cid) is run

    def add(self, run: CircuitRun) -> None:
        completion_queue = self._shelves.setdefault(run.reservation, CompletionQueue())
        if run.cid not in completion_queue.runs:
            completion_queue.runs[run.cid] = run
            completion_queue.size_bytes += run.size_bytes

    def drop(self, run: CircuitRun) -> None:
        """Nothing happens if it is not there."""
        completion_queue = self._shelves.get(run.reservation)
        if completion_queue is not None and completion_queue.runs.pop(run.cid, None) is not None:
            completion_queue.size_bytes -= run.size_bytes
            if not completion_queue.runs:
                del self._shelves[run.reservation]

    def oldest(self, reservation: int) -> CircuitRun | None:
        completion_queue = self._shelves.get(reservation)
        return (
            None if completion_queue is None else next(iter(completion_queue.runs.values()), None)
        )

    def too_much(
        self, reservation: int, kept: CompletionRetention
    ) -> tuple[CircuitRun, Reason] | None:
        """What has to go first, and why; the newest stays, whatever its size."""
        completion_queue = self._shelves.get(reservation)
        if completion_queue is None:
            return None
        oldest = next(iter(completion_queue.runs.values()))
        if len(completion_queue.runs) > kept.count:
            return oldest, Reason.TOO_MANY
        if completion_queue.size_bytes > kept.size_bytes and len(completion_queue.runs) > 1:
            return oldest, Reason.TOO_LARGE
        return None

    def of(self, reservation: int) -> list[CircuitRun]:
        """All of its queue."""
        completion_queue = self._shelves.get(reservation)
        return [] if completion_queue is None else list(completion_queue.runs.values())

    def older_than(self, wall_s: float) -> list[CircuitRun]:
        """Those that ended before."""
        results: list[CircuitRun] = []
        for completion_queue in self._shelves.values():
            for run in completion_queue.runs.values():
                if run.ended_s >= wall_s:
                    break
                results.append(run)
        return results


GONE_KEPT = 4_096


class RetiredCircuit(msgspec.Struct, frozen=True):
    """What is remembered of a circuit whose completion is no longer kept."""

    cid: str
    number: int
    state: TaskState
    times: Times
    facts: RunFacts | None
    reason: Reason
    at_ns: int
    reservation: int = 0

    @property
    def reservation_id(self) -> int | None:
        """As hosts write it."""
        return self.reservation or None


class Reader(Protocol):
    """Takes completions before they are queued."""

    def offer(self, run: CircuitRun) -> bool:
        """With the lock held. True: it is not to be queued as well."""
        ...


class CircuitRegistry:
    """Thread-safe."""

    def __init__(self, session: ServiceSession, retention: CompletionRetention) -> None:
        self._session = session
        self.retention = retention
        self.reader: Reader | None = None
        self._runs: dict[str, CircuitRun] = {}
        self._by_number: dict[int, str] = {}
        self._open: dict[str, CircuitRun] = {}  # not ended
        self._ready = CompletionQueues()  # ended and queued
        self._gone: OrderedDict[str, RetiredCircuit] = OrderedDict()
        self._closed_s: dict[int, float] = {}  # of reservations that are over: when that was seen
        self._last = 0
        self._connected_as = session.channel.client
        self._purged_s = self._requested_s = monotonic()

    # --- entering -----------------------------------------------------------------------------

    def next_number(self) -> int:
        """The next qtask id, from 1."""
        with self._session.channel.lock:
            self._last += 1
            return self._last

    def enter(self, run: CircuitRun, *, queued: bool) -> None:
        """From now on it is known; `queued`: its completion will be queued."""
        with self._session.channel.lock:
            run.queued = queued
            self._runs[run.cid] = run
            self._by_number[run.number] = run.cid
            if run.over:
                self._ended(run)
                return
            self._open[run.cid] = run
            for task in run.tasks:
                task.handle.on_end(partial(self._part_ended, run))
            self._session.channel.changed.notify_all()

    def queue_from_now_on(self, run: CircuitRun) -> None:
        """Its caller has gone: what comes of it belongs into the queue."""
        with self._session.channel.lock:
            if not run.queued:
                run.queued = True
                if run.over:
                    self._ended(run)

    # --- looking ------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in what has arrived, and let go of what was kept for too long; never waits.
        ServiceLostError where nobody answers."""
        channel = self._session.channel
        channel.enter()
        if self._connected_as != channel.client:  # a forked child: another connection
            self._connected_as = channel.client
            self._session.subscribe(
                [task.handle for run in self.unfinished() for task in run.tasks]
            )
        channel.glance(strict=True)
        now = monotonic()
        with channel.lock:
            self.ask_again(now)
            if now - self._purged_s >= self.retention.purge_s:
                self._purged_s = now
                self._purge()

    def ask_again(self, now: float) -> None:
        """Results long waited for may have been lost on their way. With the lock held."""
        if self._open and now - self._requested_s >= REPEAT_S:
            self._requested_s = now
            self._session.watch([t.handle.number for run in self._open.values() for t in run.tasks])

    def ask_for(self, run: CircuitRun) -> None:
        """Its result may have been lost on its way."""
        with self._session.channel.lock:
            self._session.watch([task.handle.number for task in run.tasks])

    def find(
        self, cid: str | None = None, number: int | None = None
    ) -> CircuitRun | RetiredCircuit | None:
        """By either name."""
        with self._session.channel.lock:
            if cid is None and number is not None:
                cid = self._by_number.get(number)
            if cid is None:
                return None
            return self._runs.get(cid) or self._gone.get(cid)

    def first(self, cid: str | None, reservation: int = 0) -> CircuitRun | None:
        """The ready one of that name, else the oldest of the reservation; it stays."""
        with self._session.channel.lock:
            if cid is None:
                return self._ready.oldest(reservation)
            run = self._runs.get(cid)
            return run if run is not None and run in self._ready else None

    def take(self, cid: str | None, reservation: int = 0) -> CircuitRun | None:
        """As `first`, and it is nobody else's from now on."""
        with self._session.channel.lock:
            run = self.first(cid, reservation)
            if run is not None:
                self._ready.drop(run)
            return run

    def has_of(self, reservation: int) -> bool:
        """Is anything of it here, open or ready?"""
        with self._session.channel.lock:
            return self._of(reservation)

    def numbers_of(self, tasks: Iterable[int]) -> dict[int, CircuitRun]:
        """The circuits behind numbers of tasks, where they are here."""
        wanted = set(tasks)
        with self._session.channel.lock:
            return {
                task.handle.number: run
                for run in self._runs.values()
                for task in run.tasks
                if task.handle.number in wanted
            }

    def unfinished(self) -> list[CircuitRun]:
        """Accepted and not ended."""
        with self._session.channel.lock:
            return list(self._open.values())

    @property
    def is_idle(self) -> bool:
        """Nothing is open. With the lock held, or for a look."""
        return not self._open

    # --- leaving ------------------------------------------------------------------------------

    def close(self, run: CircuitRun, reason: Reason, dequeued_s: float = NOT_REACHED) -> None:
        """It has been handed back: its programs and results are let go."""
        gone = RetiredCircuit(
            run.cid, run.number, run.final_state(), run.times(dequeued_s), run.facts(), reason,
            round(time() * 1e9), run.reservation,
        )  # fmt: skip
        with self._session.channel.lock:
            self._forget(run)
            self._gone[run.cid] = gone
            while len(self._gone) > GONE_KEPT:
                _, oldest = self._gone.popitem(last=False)
                self._by_number.pop(oldest.number, None)

    def closed(self, reservation: int) -> None:
        """It is over; told more than once, the first time counts."""
        with self._session.channel.lock:
            if self._of(reservation):
                self._closed_s.setdefault(reservation, monotonic())

    def drop(self, run: CircuitRun) -> None:
        """Nobody wants to hear of it again."""
        with self._session.channel.lock:
            run.queued = False
            self._ready.drop(run)
            self._forget(run)
            self._by_number.pop(run.number, None)

    def expire(self) -> bool:
        """Evict what was kept for too long. True: no circuit is left."""
        with self._session.channel.lock:
            self._purge()
            return not self._runs

    def has_gone(self, reasons: Sequence[Reason]) -> bool:
        """Did any circuit that is remembered go for one of these reasons?"""
        with self._session.channel.lock:
            return any(gone.reason in reasons for gone in self._gone.values())

    def clear(self) -> None:
        """Nobody asks here again: nothing is kept, and what ends is nobody's."""
        with self._session.channel.lock:
            for run in list(self._runs.values()):
                self.drop(run)
            self._gone.clear()
            self._by_number.clear()

    # --- with the lock held -------------------------------------------------------------------

    def _part_ended(self, run: CircuitRun) -> None:
        run.open -= 1
        if run.open == 0:
            run.ended_s = time()
            self._open.pop(run.cid, None)
            self._ended(run)

    def _ended(self, run: CircuitRun) -> None:
        if not run.queued or run.cid not in self._runs:
            return
        if self.reader is None or not self.reader.offer(run):
            self.queue(run)

    def hold(self, cid: str, *, unread: bool) -> CircuitRun | None:
        """A circuit that is to be told of now, if it is still here. `unread`: it cannot be read as
        long as it is held. With the lock held."""
        run = self._runs.get(cid)
        if run is None or not run.queued:
            return None
        if unread:
            self._ready.drop(run)
        return run

    def queue(self, run: CircuitRun) -> None:
        """Make it ready to be read, if it is still here. With the lock held."""
        if not run.queued or self._runs.get(run.cid) is not run:
            return
        self._ready.add(run)
        while (result := self._ready.too_much(run.reservation, self.retention)) is not None:
            self._evict(*result)

    def _forget(self, run: CircuitRun) -> None:
        self._runs.pop(run.cid, None)
        self._open.pop(run.cid, None)

    def _purge(self) -> None:
        oldest_s = time() - self.retention.age_s
        for run in self._ready.older_than(oldest_s):
            self._evict(run, Reason.TOO_OLD)
        oldest_s = monotonic() - self.retention.closed_s
        for reservation, since_s in list(self._closed_s.items()):
            if since_s <= oldest_s:
                for run in self._ready.of(reservation):
                    self._evict(run, Reason.CLOSED)
            if not self._of(reservation):
                del self._closed_s[reservation]

    def _of(self, reservation: int) -> bool:
        """Is there anything of it that waits to be read, or will be?"""
        return self._ready.oldest(reservation) is not None or any(
            run.reservation == reservation for run in self._open.values()
        )

    def _evict(self, run: CircuitRun, reason: Reason) -> None:
        self._ready.drop(run)
        self.close(run, reason)
