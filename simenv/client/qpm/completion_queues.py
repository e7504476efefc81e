"""Registry of the circuits of a QPM, and the queues of unread completions.

Invariant: all of it changes under the session's lock, which the thread that reads the socket holds
when a task ends; so it holds in a forked child too, where that lock is new. A completion stays
until it is read or exceeds the bounds of `CompletionRetention`; a short record of a removed
completion is kept, so that its time and place can still be requested.

Each reservation has a queue, and the circuits without a reservation have one. Invariant: a queue
exists while it has an entry; entries are in the order in which circuits ended. Queues are used with
the session's lock held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic, time

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import REPEAT_S
from simenv.client.qpm.circuit_run import CircuitRun, RunFacts
from simenv.model import TaskState
from simenv.qpm.envelopes import NOT_REACHED, Reason, Times


class CompletionRetention(msgspec.Struct, frozen=True):
    """Bounds of unread completions, for each reservation; the defaults are the contract's."""

    age_s: float = 3600.0
    closed_s: float = 3600.0  # after the end of its reservation became known
    count: int = 1_024
    size_bytes: int = 64 * 2**20
    purge_s: float = 60.0


class CompletionQueue:
    """Queue of unread completions of one reservation."""

    def __init__(self) -> None:
        self.runs: OrderedDict[str, CircuitRun] = OrderedDict()
        self.size_bytes = 0


class CompletionQueues:
    """Queues of unread completions of all reservations."""

    def __init__(self) -> None:
        self._by_reservation: dict[int, CompletionQueue] = {}

    def __contains__(self, run: CircuitRun) -> bool:
        queue = self._by_reservation.get(run.reservation)
        return queue is not None and queue.runs.get(run.cid) is run

    def add(self, run: CircuitRun) -> None:
        queue = self._by_reservation.setdefault(run.reservation, CompletionQueue())
        if run.cid not in queue.runs:
            queue.runs[run.cid] = run
            queue.size_bytes += run.size_bytes

    def drop(self, run: CircuitRun) -> None:
        """Remove a circuit; no effect if it is not queued."""
        queue = self._by_reservation.get(run.reservation)
        if queue is not None and queue.runs.pop(run.cid, None) is not None:
            queue.size_bytes -= run.size_bytes
            if not queue.runs:
                del self._by_reservation[run.reservation]

    def oldest(self, reservation: int) -> CircuitRun | None:
        queue = self._by_reservation.get(reservation)
        return None if queue is None else next(iter(queue.runs.values()), None)

    def too_much(
        self, reservation: int, kept: CompletionRetention
    ) -> tuple[CircuitRun, Reason] | None:
        """Next circuit to evict and the reason; None if the queue is within its bounds. The newest
        stays, whatever its size."""
        queue = self._by_reservation.get(reservation)
        if queue is None:
            return None
        oldest = next(iter(queue.runs.values()))
        if len(queue.runs) > kept.count:
            return oldest, Reason.TOO_MANY
        if queue.size_bytes > kept.size_bytes and len(queue.runs) > 1:
            return oldest, Reason.TOO_LARGE
        return None

    def of(self, reservation: int) -> list[CircuitRun]:
        """Circuits in the queue of a reservation."""
        queue = self._by_reservation.get(reservation)
        return [] if queue is None else list(queue.runs.values())

    def older_than(self, wall_s: float) -> list[CircuitRun]:
        """Circuits that ended before `wall_s`."""
        results: list[CircuitRun] = []
        for queue in self._by_reservation.values():
            for run in queue.runs.values():
                if run.ended_s >= wall_s:
                    break
                results.append(run)
        return results


GONE_KEPT = 4_096


class RetiredCircuit(msgspec.Struct, frozen=True):
    """Short record of a circuit whose completion is no longer kept."""

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
        """Reservation in the contract's form: None for none."""
        return self.reservation or None


class CircuitRegistry:
    """Circuits of a QPM by cid and qtask id. Thread-safe; private methods are called with the lock
    held. `offer`: called with each ended circuit, with the lock held; True if it must not be
    queued."""

    def __init__(self, session: ServiceSession, retention: CompletionRetention) -> None:
        self.session = session
        self.retention = retention
        self.offer: Callable[[CircuitRun], bool] = lambda _: False
        self._runs: dict[str, CircuitRun] = {}
        self._by_number: dict[int, str] = {}
        self._open: dict[str, CircuitRun] = {}  # not ended
        self._ready = CompletionQueues()  # ended and queued
        self._gone: OrderedDict[str, RetiredCircuit] = OrderedDict()
        self._closed_s: dict[int, float] = {}  # ended reservation: time when that became known
        self._last = 0
        self._connected_as = session.channel.client
        self._purged_s = self._requested_s = monotonic()

    def next_number(self) -> int:
        """Next qtask id, from 1."""
        with self.session.channel.lock:
            self._last += 1
            return self._last

    def enter(self, run: CircuitRun, *, queued: bool) -> None:
        """Register a circuit. `queued`: queue its completion."""
        with self.session.channel.lock:
            run.queued = queued
            self._runs[run.cid] = run
            self._by_number[run.number] = run.cid
            if run.over:
                self._ended(run)
                return
            self._open[run.cid] = run
            for task in run.tasks:
                task.handle.on_end(partial(self._part_ended, run))
            self.session.channel.notify()

    def queue_from_now_on(self, run: CircuitRun) -> None:
        """Queue the completion of a circuit whose synchronous caller has left."""
        with self.session.channel.lock:
            if not run.queued:
                run.queued = True
                if run.over:
                    self._ended(run)

    def look(self) -> None:
        """Process the messages that have arrived and evict expired completions, without waiting.
        Raises ServiceLostError."""
        channel = self.session.channel
        channel.enter()
        if self._connected_as != channel.client:  # a forked child: another connection
            self._connected_as = channel.client
            handles = [task.handle for run in self.unfinished() for task in run.tasks]
            self.session.tasks.subscribe(handles)
        channel.poll(strict=True)
        now = monotonic()
        with channel.lock:
            self.ask_again(now)
            if now - self._purged_s >= self.retention.purge_s:
                self._purged_s = now
                self._purge()

    def ask_again(self, now: float) -> None:
        """Request the results of open circuits again every REPEAT_S, because a message may have
        been lost. Called with the lock held."""
        if self._open and now - self._requested_s >= REPEAT_S:
            self._requested_s = now
            tasks = [task for run in self._open.values() for task in run.tasks]
            self.session.tasks.watch([task.handle.number for task in tasks])

    def ask_for(self, run: CircuitRun) -> None:
        """Request the result of a circuit again, because a message may have been lost."""
        with self.session.channel.lock:
            self.session.tasks.watch([task.handle.number for task in run.tasks])

    def find(
        self, cid: str | None = None, number: int | None = None
    ) -> CircuitRun | RetiredCircuit | None:
        """Circuit by cid or qtask id; None if it is unknown."""
        with self.session.channel.lock:
            if cid is None and number is not None:
                cid = self._by_number.get(number)
            if cid is None:
                return None
            return self._runs.get(cid) or self._gone.get(cid)

    def first(self, cid: str | None, reservation: int = 0) -> CircuitRun | None:
        """Ready circuit of that cid, else the oldest of the reservation; it stays queued."""
        with self.session.channel.lock:
            if cid is None:
                return self._ready.oldest(reservation)
            run = self._runs.get(cid)
            return run if run is not None and run in self._ready else None

    def take(self, cid: str | None, reservation: int = 0) -> CircuitRun | None:
        """Remove and return the circuit of `first`."""
        with self.session.channel.lock:
            run = self.first(cid, reservation)
            if run is not None:
                self._ready.drop(run)
            return run

    def has_of(self, reservation: int) -> bool:
        """Return whether a circuit of the reservation is open or ready."""
        with self.session.channel.lock:
            return self._has_completions(reservation)

    def numbers_of(self, tasks: Iterable[int]) -> dict[int, CircuitRun]:
        """Registered circuits by the numbers of their tasks."""
        wanted = set(tasks)
        with self.session.channel.lock:
            return {
                task.handle.number: run
                for run in self._runs.values()
                for task in run.tasks
                if task.handle.number in wanted
            }

    def unfinished(self) -> list[CircuitRun]:
        """Circuits that were accepted and have not ended."""
        with self.session.channel.lock:
            return list(self._open.values())

    @property
    def is_idle(self) -> bool:
        """True if no circuit is open. Exact with the lock held, else a hint."""
        return not self._open

    def close(self, run: CircuitRun, reason: Reason, dequeued_s: float = NOT_REACHED) -> None:
        """Replace a circuit that was handed back by a short record; its programs and results are
        released."""
        gone = RetiredCircuit(
            run.cid, run.number, run.final_state(), run.times(dequeued_s), run.facts(), reason,
            round(time() * 1e9), run.reservation,
        )  # fmt: skip
        with self.session.channel.lock:
            self._forget(run)
            self._gone[run.cid] = gone
            while len(self._gone) > GONE_KEPT:
                _, oldest = self._gone.popitem(last=False)
                self._by_number.pop(oldest.number, None)

    def closed(self, reservation: int) -> None:
        """Note the end of a reservation; the first call counts."""
        with self.session.channel.lock:
            if self._has_completions(reservation):
                self._closed_s.setdefault(reservation, monotonic())

    def drop(self, run: CircuitRun) -> None:
        """Remove a circuit and its record."""
        with self.session.channel.lock:
            run.queued = False
            self._ready.drop(run)
            self._forget(run)
            self._by_number.pop(run.number, None)

    def expire(self) -> bool:
        """Evict expired completions. True if no circuit is left."""
        with self.session.channel.lock:
            self._purge()
            return not self._runs

    def has_gone(self, reasons: Sequence[Reason]) -> bool:
        """Return whether a recorded circuit was removed for one of these reasons."""
        with self.session.channel.lock:
            return any(gone.reason in reasons for gone in self._gone.values())

    def clear(self) -> None:
        """Remove all circuits and records; later completions are ignored."""
        with self.session.channel.lock:
            for run in list(self._runs.values()):
                self.drop(run)
            self._gone.clear()
            self._by_number.clear()

    def _part_ended(self, run: CircuitRun) -> None:
        run.open -= 1
        if run.open == 0:
            run.ended_s = time()
            self._open.pop(run.cid, None)
            self._ended(run)

    def _ended(self, run: CircuitRun) -> None:
        if not run.queued or run.cid not in self._runs:
            return
        if not self.offer(run):
            self.queue(run)

    def hold(self, cid: str, *, unread: bool) -> CircuitRun | None:
        """Return a circuit that is about to be pushed, if it is still registered. `unread`: remove
        it from the queue while it is held. Called with the lock held."""
        run = self._runs.get(cid)
        if run is None or not run.queued:
            return None
        if unread:
            self._ready.drop(run)
        return run

    def queue(self, run: CircuitRun) -> None:
        """Queue a completion if its circuit is still registered. Called with the lock held."""
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
            if not self._has_completions(reservation):
                del self._closed_s[reservation]

    def _has_completions(self, reservation: int) -> bool:
        """Return whether a completion of the reservation is queued or will be."""
        return self._ready.oldest(reservation) is not None or any(
            run.reservation == reservation for run in self._open.values()
        )

    def _evict(self, run: CircuitRun, reason: Reason) -> None:
        self._ready.drop(run)
        self.close(run, reason)
