"""First tasks of many lanes, for owners who use many priorities.

A query of every lane for its first task takes 1 ms for some hundred lanes, several times a chunk.
Here each owner has a heap of first tasks. A lane whose first task may have changed is marked and
queried at the next `refresh`, so a query takes O(log n) for each change since the last one.
Invariant: after `refresh`, each lane with a task has an entry for its first one; outdated entries
are dropped when they reach the top of the heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable

from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.queueing.lanes import Lanes
from simenv.scheduler.queueing.policies import LaneKey, aged_priority

_SLACK = 64  # outdated entries allowed in addition to one per valid entry


class _Heap:
    """The first tasks of one owner's lanes, by aged priority."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int]] = []  # (aged, number, priority)
        self.by_priority: dict[int, TaskRecord] = {}

    def set(self, priority: int, head: TaskRecord | None) -> None:
        current = self.by_priority.get(priority)
        if current is head:
            return
        if head is None:
            del self.by_priority[priority]
            return
        self.by_priority[priority] = head
        heapq.heappush(self._entries, (*aged_priority(head), priority))
        if len(self._entries) > 2 * len(self.by_priority) + _SLACK:
            self._entries = [
                (*aged_priority(each), priority) for priority, each in self.by_priority.items()
            ]
            heapq.heapify(self._entries)

    def first(self) -> TaskRecord | None:
        while self._entries:
            _, number, priority = self._entries[0]
            head = self.by_priority.get(priority)
            if head is not None and head.number == number:
                return head
            heapq.heappop(self._entries)
        return None

    def second(self) -> TaskRecord | None:
        """Return the task behind the first."""
        first = self.first()
        if first is None:
            return None
        entry = heapq.heappop(self._entries)
        while self._entries and self._entries[0] == entry:  # duplicates of the first entry
            heapq.heappop(self._entries)
        second = self.first()
        heapq.heappush(self._entries, entry)
        return second


class LaneHeads:
    """The first tasks of all owners' lanes, with and without long tasks."""

    def __init__(self, keys: Iterable[LaneKey] = ()) -> None:
        """Mark the existing lanes `keys` as changed."""
        self.changed = set(keys)
        self._all: dict[str, _Heap] = {}
        self._short: dict[str, _Heap] = {}

    def refresh(self, lanes_of: dict[LaneKey, Lanes]) -> None:
        """Update the entries of marked lanes.

        Empty lanes are removed from `lanes_of`, so that an owner who once used many priorities does
        not slow down all others.
        """
        for key in self.changed:
            owner, priority = key
            lanes = lanes_of.get(key)
            for heaps, allow_long in ((self._all, True), (self._short, False)):
                head = None if lanes is None else lanes.head(allow_long)
                heap = heaps.get(owner)
                if heap is None:
                    if head is None:
                        continue
                    heap = heaps[owner] = _Heap()
                heap.set(priority, head)
                if not heap.by_priority:
                    del heaps[owner]
            if lanes is not None and not lanes.any():
                del lanes_of[key]
        self.changed.clear()

    def first_by_owner(
        self, allow_long: bool, excluded: Collection[str] = ()
    ) -> dict[str, TaskRecord]:
        """Return the first task of each owner that is not in `excluded`."""
        heaps = self._all if allow_long else self._short
        firsts = {owner: heap.first() for owner, heap in heaps.items() if owner not in excluded}
        return {owner: first for owner, first in firsts.items() if first is not None}

    def short_of(self, owner: str) -> TaskRecord | None:
        """Return the first of an owner's tasks that are not long."""
        heap = self._short.get(owner)
        return None if heap is None else heap.first()

    def competing_head(self, owner: str) -> TaskRecord | None:
        """Return the first short task of an owner in other lanes than that of `short_of`."""
        heap = self._short.get(owner)
        return None if heap is None else heap.second()

    def any_short(self) -> bool:
        """Return whether any task is not long."""
        return bool(self._short)
