"""The order of waiting tasks: by priority, then requeued ones first, then as accepted.

Each priority has four lanes: suspects (tasks that must travel alone), and short and long tasks, the
front lane holding what a lost worker gave back. Removal is lazy: a cancelled task stays in its lane
until it comes up, so cancelling costs nothing.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Iterator
from operator import neg

from simenv.scheduler.values import Phase, Record

STALE_KEPT = 1_000
LONG_US = 1e6  # a task longer than this must not take a node's last slot from the short ones


class Lanes:
    """The waiting tasks of one priority."""

    def __init__(self) -> None:
        self.suspects: deque[Record] = deque()
        self.short: deque[Record] = deque()
        self.long: deque[Record] = deque()

    def head(self, allow_long: bool) -> Record | None:
        """The next task that still waits; stale entries are dropped on the way."""
        best = None
        for lane in (self.suspects, self.short, self.long if allow_long else ()):
            while lane and lane[0].phase != Phase.WAITING:
                lane.popleft()
            if lane and (best is None or _rank(lane[0]) < _rank(best)):
                best = lane[0]
        return best

    def any(self) -> bool:
        return bool(self.suspects or self.short or self.long)

    def sweep(self) -> None:
        """Keep only what waits."""
        for lane in (self.suspects, self.short, self.long):
            live = [record for record in lane if record.phase == Phase.WAITING]
            lane.clear()
            lane.extend(live)

    def lane_of(self, record: Record) -> deque[Record]:
        if record.incident:
            return self.suspects
        return self.long if record.cost_us > LONG_US else self.short


class Queue:
    """All waiting tasks of a pool. `len` counts live ones only."""

    def __init__(self) -> None:
        self._lanes: dict[int, Lanes] = {}
        self._order: list[int] = []  # priorities, highest first
        self._count = 0
        self._stale = 0  # entries of tasks that have ended
        self.backlog_us = 0.0  # expected work of the waiting tasks, on one slot

    def __len__(self) -> int:
        return self._count

    def append(self, records: list[Record]) -> None:
        """Newly accepted tasks, in order."""
        for record in records:
            lanes = self._of(record)
            lanes.lane_of(record).append(record)
            self.backlog_us += record.cost_us
        self._count += len(records)

    def give_back(self, records: list[Record]) -> None:
        """Tasks a worker lost: to the front, in their old order."""
        for record in reversed(records):
            lanes = self._of(record)
            lanes.lane_of(record).appendleft(record)
            self.backlog_us += record.cost_us
        self._count += len(records)

    def head(self, allow_long: bool = True) -> Record | None:
        """The task whose turn it is; it stays in the queue until `pop`."""
        if not self._count:
            return None
        found, empty = None, []
        for priority in self._order:
            lanes = self._lanes[priority]
            found = lanes.head(allow_long)
            if found is not None:
                break
            if not lanes.any():
                empty.append(priority)
        for priority in empty:  # who uses many priorities must not slow down all for ever
            self._order.remove(priority)
            del self._lanes[priority]
        return found

    def pop(self, record: Record) -> None:
        """Take what `head` returned; its lane is looked for, as suspicion may have ended since."""
        lanes = self._of(record)
        for lane in (lanes.suspects, lanes.short, lanes.long):
            if lane and lane[0] is record:
                lane.popleft()
                self._count -= 1
                self.backlog_us -= record.cost_us
                return
        raise LookupError(f"task {record.number} is not at the head of a lane")

    def drop(self, record: Record) -> None:
        """A waiting task became final; its entry is skipped when it comes up."""
        self._count -= 1
        self._stale += 1
        self.backlog_us -= record.cost_us
        if self._stale > self._count + STALE_KEPT:
            self._sweep()

    def _sweep(self) -> None:
        """Stale entries outnumber the live ones: take them out."""
        for lanes in self._lanes.values():
            lanes.sweep()
        self._lanes = {p: lanes for p, lanes in self._lanes.items() if lanes.any()}
        self._order = sorted(self._lanes, reverse=True)
        self._stale = 0

    def has_short(self) -> bool:
        """Is any task waiting that is not long?"""
        return any(lanes.head(False) is not None for lanes in self._lanes.values())

    def __iter__(self) -> Iterator[Record]:
        """Waiting tasks in the order they will be tried."""
        for priority in self._order:
            lanes = self._lanes[priority]
            for record in heapq.merge(lanes.suspects, lanes.short, lanes.long, key=_rank):
                if record.phase == Phase.WAITING:
                    yield record

    def _of(self, record: Record) -> Lanes:
        priority = record.batch.terms.priority
        lanes = self._lanes.get(priority)
        if lanes is None:
            lanes = self._lanes[priority] = Lanes()
            insort(self._order, priority, key=neg)
        return lanes


def _rank(record: Record) -> tuple[bool, int]:
    """Tasks that were lost before go first, then by id."""
    return (record.attempts == 0, record.number)
