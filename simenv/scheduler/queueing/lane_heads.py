"""The first tasks of many lanes, least age first: for owners who use many priorities.

To ask every lane for its first task takes a millisecond for some hundred lanes, several times a
chunk. Here each owner has a heap of them. A lane whose first task may have changed is marked, and
asked when next somebody wants to know: so a question takes O(log n) for each change since the last
one. Invariant: once `refresh` has been called, each lane with a task has an entry of its first one;
entries that are no longer true are dropped when they come up.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable

from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.queueing.lanes import Lanes
from simenv.scheduler.queueing.policies import LaneKey, aged_priority

_SLACK = 64  # entries that are no longer true, beside as many as are


class _Heap:
    """The first tasks of one owner's lanes, by priority."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int]] = []  # (aged, number, priority)
        self.of: dict[int, TaskRecord] = {}

    def set(self, priority: int, head: TaskRecord | None) -> None:
        known = self.of.get(priority)
        if known is head:
            return
        if head is None:
            del self.of[priority]
            return
        self.of[priority] = head
        heapq.heappush(self._entries, (*aged_priority(head), priority))
        if len(self._entries) > 2 * len(self.of) + _SLACK:
            self._entries = [(*aged_priority(each), priority) for priority, each in self.of.items()]
            heapq.heapify(self._entries)

    def first(self) -> TaskRecord | None:
        while self._entries:
            _, number, priority = self._entries[0]
            head = self.of.get(priority)
            if head is not None and head.number == number:
                return head
            heapq.heappop(self._entries)
        return None

    def second(self) -> TaskRecord | None:
        """That behind the first."""
        first = self.first()
        if first is None:
            return None
        entry = heapq.heappop(self._entries)
        while self._entries and self._entries[0] == entry:  # it was the first before, too
            heapq.heappop(self._entries)
        found = self.first()
        heapq.heappush(self._entries, entry)
        return found


class LaneHeads:
    """Of all owners' lanes: with long tasks, and without."""

    def __init__(self, keys: Iterable[LaneKey] = ()) -> None:
        """`keys`: of lanes that there are already."""
        self.changed = set(keys)
        self._all: dict[str, _Heap] = {}
        self._short: dict[str, _Heap] = {}

    def refresh(self, lanes_of: dict[LaneKey, Lanes]) -> None:
        """Ask the lanes that were marked; those that are empty are taken out of `lanes_of`, so that
        who used many priorities once does not slow down all for ever."""
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
                if not heap.of:
                    del heaps[owner]
            if lanes is not None and not lanes.any():
                del lanes_of[key]
        self.changed.clear()

    def of_each(self, allow_long: bool, without: Collection[str] = ()) -> dict[str, TaskRecord]:
        """The first task of each owner but those."""
        heaps = self._all if allow_long else self._short
        firsts = {owner: heap.first() for owner, heap in heaps.items() if owner not in without}
        return {owner: first for owner, first in firsts.items() if first is not None}

    def short_of(self, owner: str) -> TaskRecord | None:
        """The first of an owner's tasks that are not long."""
        heap = self._short.get(owner)
        return None if heap is None else heap.first()

    def rival_of(self, owner: str) -> TaskRecord | None:
        """The first of those in the owner's other lanes than the one that `short_of` is in."""
        heap = self._short.get(owner)
        return None if heap is None else heap.second()

    def any_short(self) -> bool:
        """Is any task there that is not long?"""
        return bool(self._short)
