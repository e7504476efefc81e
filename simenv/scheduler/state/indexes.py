"""Indexes over unfinished tasks: by deadline, and by owner.

Deadlines are queue timeouts, run timeouts and the grace periods of a stop; entries of tasks that
ended earlier stay until they are due, or until there are too many. The index by owner avoids a scan
of all tasks for one owner; tasks of the environment's own user (owner "") are not in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container, Iterator

from simenv.scheduler.core.types import SubmitBatch, TaskRecord

STOP_GRACE_NS = 2_000_000_000  # an engine that has not stopped by then is ended with its worker
HARDWARE_GRACE_NS = 5_000_000_000  # the request to the provider travels over a network
KEPT = 10_000  # entries of tasks that have ended, before they are cleared away


class Deadlines:
    """Deadlines of tasks and attempts. Times are monotonic nanoseconds; the fence identifies an
    attempt."""

    def __init__(self) -> None:
        self._queued: list[tuple[int, int]] = []  # (when, task)
        self._running: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._stopping: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._skipping: list[tuple[int, int, int]] = []  # (when, task, fence)

    def wait_until(self, when_ns: int, tasks: range, alive: Container[int], count: int) -> None:
        """Set the queue timeout of these tasks; `count` tasks are `alive`."""
        for task in tasks:
            heapq.heappush(self._queued, (when_ns, task))
        if len(self._queued) > 2 * count + KEPT:
            self._queued = [entry for entry in self._queued if entry[1] in alive]
            heapq.heapify(self._queued)

    def run_until(self, when_ns: int, task: int, fence: int) -> None:
        """Set the run timeout of this attempt."""
        heapq.heappush(self._running, (when_ns, task, fence))

    def stop_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """Start the grace period of an attempt that was asked to stop."""
        heapq.heappush(self._stopping, (now_ns + grace_ns, task, fence))

    def skip_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """Start the grace period of an attempt that its worker was asked to skip."""
        heapq.heappush(self._skipping, (now_ns + grace_ns, task, fence))

    def queue_timeouts(self, now_ns: int) -> Iterator[int]:
        """Yield the tasks whose queue timeout is over."""
        while self._queued and self._queued[0][0] <= now_ns:
            yield heapq.heappop(self._queued)[1]

    def run_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts whose run timeout is over."""
        while self._running and self._running[0][0] <= now_ns:
            yield heapq.heappop(self._running)[1:]

    def stop_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts that did not stop within the grace period."""
        while self._stopping and self._stopping[0][0] <= now_ns:
            yield heapq.heappop(self._stopping)[1:]

    def skip_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts whose worker did not confirm the skip in time."""
        while self._skipping and self._skipping[0][0] <= now_ns:
            yield heapq.heappop(self._skipping)[1:]


class TasksByOwner:
    """Unfinished tasks of each owner, in order of acceptance."""

    def __init__(self) -> None:
        self._records: dict[str, dict[int, TaskRecord]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, batch: SubmitBatch, tasks: dict[int, TaskRecord], count: int) -> None:
        """Add a batch of `count` tasks."""
        if batch.owner:
            tasks_of_owner = self._records.setdefault(batch.owner, {})
            new = {n: tasks[n] for n in range(batch.first, batch.first + count)}
            tasks_of_owner.update(new)
            size = sum(record.size_bytes for record in new.values())
            self._bytes[batch.owner] = self._bytes.get(batch.owner, 0) + size

    def drop(self, record: TaskRecord) -> None:
        """Remove a task that ended or was rolled back."""
        owner = record.batch.owner
        if owner:
            tasks_of_owner = self._records[owner]
            del tasks_of_owner[record.number]
            self._bytes[owner] -= record.size_bytes
            if not tasks_of_owner:
                del self._records[owner], self._bytes[owner]

    def of(self, owner: str) -> Collection[TaskRecord]:
        """Return the tasks of an owner."""
        return self._records.get(owner, {}).values()

    @property
    def count(self) -> int:
        """Number of tasks of all owners except the environment's own user."""
        return sum(map(len, self._records.values()))

    @property
    def all_bytes(self) -> int:
        """Bytes of the tasks of all owners except the environment's own user."""
        return sum(self._bytes.values())

    def bytes_of(self, owner: str) -> int:
        """Return the bytes of an owner's tasks: programs and parameter values."""
        return self._bytes.get(owner, 0)

    def everything(self) -> dict[str, dict[int, TaskRecord]]:
        """Return all tasks by owner, for checks of invariants."""
        return self._records
