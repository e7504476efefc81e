"""When something must end of itself: queue timeouts, run timeouts, and the grace of a stop.

Entries of tasks that ended earlier stay until their time comes, or until there are too many.

Unfinished tasks by owner, so that showing one her own never means looking through all.

Tasks of the environment's own user (owner "") are not listed here: that user sees everything.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container, Iterator

from simenv.scheduler.core.types import SubmitBatch, TaskRecord

STOP_GRACE_NS = 2_000_000_000  # an engine that has not obeyed by then is ended with its worker
MACHINE_GRACE_NS = 5_000_000_000  # a machine's provider hears of it over a network
KEPT = 10_000  # entries of tasks that have ended, before they are cleared away


class Deadlines:
    """Times are monotonic nanoseconds; a fence tells an attempt from a later one."""

    def __init__(self) -> None:
        self._queued: list[tuple[int, int]] = []  # (when, task)
        self._running: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._stopping: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._skipping: list[tuple[int, int, int]] = []  # (when, task, fence)

    def wait_until(self, when_ns: int, tasks: range, alive: Container[int], count: int) -> None:
        """None of these may still wait then; `count` tasks are `alive`."""
        for task in tasks:
            heapq.heappush(self._queued, (when_ns, task))
        if len(self._queued) > 2 * count + KEPT:
            self._queued = [entry for entry in self._queued if entry[1] in alive]
            heapq.heapify(self._queued)

    def run_until(self, when_ns: int, task: int, fence: int) -> None:
        """This attempt may not still run then."""
        heapq.heappush(self._running, (when_ns, task, fence))

    def stop_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """This attempt was asked to stop now."""
        heapq.heappush(self._stopping, (now_ns + grace_ns, task, fence))

    def skip_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """This attempt, which its worker has not begun, was cancelled or expired now."""
        heapq.heappush(self._skipping, (now_ns + grace_ns, task, fence))

    def waited_long(self, now_ns: int) -> Iterator[int]:
        """Tasks whose time in the queue is over."""
        while self._queued and self._queued[0][0] <= now_ns:
            yield heapq.heappop(self._queued)[1]

    def ran_long(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """(task, fence) of attempts whose time to run is over."""
        while self._running and self._running[0][0] <= now_ns:
            yield heapq.heappop(self._running)[1:]

    def disobeyed(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """(task, fence) of attempts whose grace is over."""
        while self._stopping and self._stopping[0][0] <= now_ns:
            yield heapq.heappop(self._stopping)[1:]

    def unconfirmed(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """(task, fence) of attempts to be skipped whose worker has not answered in time."""
        while self._skipping and self._skipping[0][0] <= now_ns:
            yield heapq.heappop(self._skipping)[1:]


class TasksByOwner:
    """Other people's unfinished tasks, each owner's in the order of acceptance."""

    def __init__(self) -> None:
        self._records: dict[str, dict[int, TaskRecord]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, batch: SubmitBatch, tasks: dict[int, TaskRecord], count: int) -> None:
        """`tasks` now holds a batch of so many."""
        if batch.owner:
            mine = self._records.setdefault(batch.owner, {})
            new = {n: tasks[n] for n in range(batch.first, batch.first + count)}
            mine.update(new)
            size = sum(record.size_bytes for record in new.values())
            self._bytes[batch.owner] = self._bytes.get(batch.owner, 0) + size

    def drop(self, record: TaskRecord) -> None:
        """A task has ended, or was withdrawn."""
        owner = record.batch.owner
        if owner:
            mine = self._records[owner]
            del mine[record.number]
            self._bytes[owner] -= record.size_bytes
            if not mine:
                del self._records[owner], self._bytes[owner]

    def of(self, owner: str) -> Collection[TaskRecord]:
        """All of hers."""
        return self._records.get(owner, {}).values()

    @property
    def count(self) -> int:
        """Tasks of all these owners."""
        return sum(map(len, self._records.values()))

    @property
    def all_bytes(self) -> int:
        """Of all of them."""
        return sum(self._bytes.values())

    def bytes_of(self, owner: str) -> int:
        """Of the programs and parameter values of her tasks."""
        return self._bytes.get(owner, 0)

    def everything(self) -> dict[str, dict[int, TaskRecord]]:
        """For `check`."""
        return self._records
