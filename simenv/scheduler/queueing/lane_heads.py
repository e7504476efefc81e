"""The first tasks of lanes, and the choice between associations.

A choice costs O(log n) at each level of the tree: usage divided by share mostly grows, so an
outdated entry of a heap is found at its top and put back; those that fell are pushed anew.
Priorities count within an association. Priorities of the environment's own user count between
others too: above 0 its tasks go first, below 0 last, until waiting outweighs the priority.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping

from simenv.model.accounts import ROOT, association
from simenv.scheduler.core import TaskRecord
from simenv.scheduler.queueing.fair_share import SITE, UsageOrder
from simenv.scheduler.queueing.lanes import (
    ALONE_US,
    CHUNK_TASKS,
    LaneKey,
    Lanes,
    aged_priority,
    most_us,
)

_SLACK = 64  # outdated entries allowed in addition to one per valid entry
OWN_USER = ("", association(ROOT, ""))  # associations of the environment's own user


class _Heap:
    """The first tasks of one association's lanes, by aged priority."""

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


class AssociationOrder:
    """The associations that have a first task, as the tree of their accounts orders them."""

    def __init__(self, shares: UsageOrder) -> None:
        self._shares = shares
        self._children: dict[str, set[str]] = {}
        self._heaps: dict[str, list[tuple[float, int, str]]] = {}  # (ratio, number, child)
        self._entries: dict[str, tuple[float, int, str]] = {}  # by child; others are outdated
        self._numbers: dict[str, int] = {}
        self._seen = shares.forgotten + len(shares.fell)

    def add(self, leaf: str, number: int) -> None:
        """Add an association; `number`: of its first task, which decides between equals."""
        parent = SITE
        for node in self._shares.path(leaf):
            children = self._children.setdefault(parent, set())
            if node not in children:
                children.add(node)
                self._numbers[node] = number
                self._push(parent, node)
            parent = node

    def set(self, leaf: str, number: int) -> None:
        """Note the number of another first task."""
        if leaf in self._numbers and number != self._numbers[leaf]:
            is_less = number < self._numbers[leaf]
            self._numbers[leaf] = number
            if is_less:  # a larger one is noted when the old one is at the top
                self._push((SITE, *self._shares.path(leaf))[-2], leaf)

    def remove(self, leaf: str) -> None:
        path = self._shares.path(leaf)
        for level in range(len(path) - 1, -1, -1):
            node, parent = path[level], path[level - 1] if level else SITE
            children = self._children.get(parent)
            if children is None:
                return
            children.discard(node)
            self._numbers.pop(node, None)
            self._entries.pop(node, None)
            if children:
                return
            del self._children[parent], self._heaps[parent]

    def _push(self, parent: str, node: str) -> None:
        heap = self._heaps.setdefault(parent, [])
        ratio = self._shares.ratios.get(node, 0.0)
        self._entries[node] = entry = (ratio, self._numbers[node], node)
        heapq.heappush(heap, entry)
        children = self._children[parent]
        if len(heap) > 2 * len(children) + _SLACK:
            heap[:] = [self._entries[each] for each in children]
            heapq.heapify(heap)

    def _renew(self) -> None:
        """Push the nodes anew whose usage fell since the last choice."""
        shares = self._shares
        unseen = shares.forgotten + len(shares.fell) - self._seen
        if not unseen:
            return
        self._seen += unseen
        if unseen > len(shares.fell):  # some were forgotten
            leaves: Iterable[str] = [
                child
                for children in self._children.values()
                for child in children
                if child not in self._children
            ]
        else:
            leaves = shares.fell[-unseen:]
        for leaf in dict.fromkeys(leaves):
            parent = SITE
            for node in shares.path(leaf):
                entry = self._entries.get(node)
                if entry is not None and shares.ratios.get(node, 0.0) < entry[0]:
                    self._push(parent, node)
                parent = node

    def first(self) -> str | None:
        """Return the association that goes first; None if there is none."""
        self._renew()
        ratios, entries, numbers = self._shares.ratios, self._entries, self._numbers
        heaps, node = self._heaps, SITE
        while (heap := heaps.get(node)) is not None:
            while True:
                entry = heap[0]
                before, first, child = entry
                if entries.get(child) is not entry:
                    heapq.heappop(heap)
                    continue
                ratio, number = ratios.get(child, 0.0), numbers[child]
                if ratio < before or (ratio == before and number <= first):
                    break
                entries[child] = present = (ratio, number, child)
                heapq.heapreplace(heap, present)
            node = child
        return None if node == SITE else node

    def first_by_priority(
        self, own: str, head: TaskRecord, others: Iterable[TaskRecord | None]
    ) -> str | None:
        """Return the association that goes first. `own`: that of the environment's own user, whose
        first task `head` has a priority; `others`: the first tasks of all."""
        waiting = [each.batch.accepted_ns for each in others if each and each is not head]
        is_older = not waiting or aged_priority(head)[0] <= min(waiting)
        if head.batch.priority > 0:
            return own if is_older else self.first()
        if is_older:
            return self.first()
        self.remove(own)
        leaf = self.first()
        self.add(own, head.number)
        return leaf


class LaneHeads:
    """The first tasks of all associations' lanes, with and without long tasks.

    A query of every lane for its first task takes 1 ms for some hundred lanes, several times a
    chunk. Here each association has a heap of first tasks. A lane whose first task may have changed
    is marked and queried at the next `refresh`, so a query takes O(log n) for each change since the
    last one. Invariant: after `refresh`, each lane with a task has an entry for its first one;
    outdated entries are dropped when they reach the top of the heap. Until a task is long, the
    first tasks without long ones are the same, and are kept once.
    """

    def __init__(self, shares: UsageOrder, keys: Iterable[LaneKey] = ()) -> None:
        """Mark the existing lanes `keys` as changed."""
        # In the order of their changes: which association is added first decides between equals.
        self.changed = dict.fromkeys(keys)
        self._shares = shares
        # Of all tasks, and at last of those that are not long.
        self._heaps: list[dict[str, _Heap]] = [{}]
        self._orders = [AssociationOrder(shares)]
        self._held: Collection[str] = ()
        # The choices of `first` by its argument, while nothing changes; and `changes` at that time.
        self._firsts: dict[bool, TaskRecord | None] = {}
        self._chosen_at = -1

    def refresh(self, lanes_of: dict[LaneKey, Lanes]) -> None:
        """Update the entries of marked lanes. Empty lanes are removed from `lanes_of`, so that an
        owner who once used many priorities does not slow down all others."""
        if not self.changed:
            return
        self._chosen_at = -1
        for key in self.changed:
            leaf, priority = key
            lanes = lanes_of.get(key)
            if lanes is not None and not lanes.any() and self._drop_only_lane(leaf, priority):
                del lanes_of[key]
                continue
            if len(self._heaps) == 1 and lanes is not None and lanes.long:
                self._keep_short()
            for heaps, order in zip(self._heaps, self._orders, strict=True):
                head = None if lanes is None else lanes.head(heaps is self._heaps[0])
                heap = heaps.get(leaf)
                if heap is None:
                    if head is None:
                        continue
                    heap = heaps[leaf] = _Heap()
                    if leaf not in self._held:
                        order.add(leaf, head.number)
                heap.set(priority, head)
                first = heap.first()
                if first is None:
                    del heaps[leaf]
                if leaf not in self._held:
                    if first is None:
                        order.remove(leaf)
                    else:
                        order.set(leaf, first.number)
            if lanes is not None and not lanes.any():
                del lanes_of[key]
        self.changed.clear()

    def _drop_only_lane(self, leaf: str, priority: int) -> bool:
        """Remove an association with its lane, which is empty. Returns False if it has another
        lane, or tasks that are long are kept apart."""
        if len(self._heaps) > 1:
            return False
        heaps = self._heaps[0]
        heap = heaps.get(leaf)
        if heap is None or len(heap.by_priority) > 1 or priority not in heap.by_priority:
            return False
        del heaps[leaf]
        if leaf not in self._held:
            self._orders[0].remove(leaf)
        return True

    def _keep_short(self) -> None:
        """Keep the first tasks without long ones apart; there was no long one so far."""
        order, heaps = AssociationOrder(self._shares), dict[str, _Heap]()
        for leaf, heap in self._heaps[0].items():
            copy = heaps[leaf] = _Heap()
            for priority, head in heap.by_priority.items():
                copy.set(priority, head)
            first = copy.first()
            if first is not None and leaf not in self._held:
                order.add(leaf, first.number)
        self._heaps.append(heaps)
        self._orders.append(order)

    def hold(self, leaves: Collection[str]) -> None:
        """Leave out these associations, and no others, from now on."""
        self._chosen_at = -1
        for heaps, order in zip(self._heaps, self._orders, strict=True):
            for leaf in sorted(leaves):
                if leaf not in self._held and leaf in heaps:
                    order.remove(leaf)
            for leaf in sorted(self._held):
                head = heaps[leaf].first() if leaf not in leaves and leaf in heaps else None
                if head is not None:
                    order.add(leaf, head.number)
        self._held = leaves

    def first(self, allow_long: bool) -> TaskRecord | None:
        """Return the task that goes first."""
        if self._chosen_at != self._shares.changes:
            self._firsts.clear()
            self._chosen_at = self._shares.changes
        elif allow_long in self._firsts:
            return self._firsts[allow_long]
        self._firsts[allow_long] = first = self._first(allow_long)
        return first

    def _first(self, allow_long: bool) -> TaskRecord | None:
        place = 0 if allow_long else -1
        heaps, order = self._heaps[place], self._orders[place]
        for own in OWN_USER:
            if own in heaps and own not in self._held:
                head = heaps[own].first()
                if head is not None and head.batch.priority:
                    others = (
                        heap.first() for leaf, heap in heaps.items() if leaf not in self._held
                    )
                    leaf = order.first_by_priority(own, head, others)
                    return None if leaf is None else heaps[leaf].first()
                break
        leaf = order.first()
        return None if leaf is None else heaps[leaf].first()

    def short_of(self, leaf: str) -> TaskRecord | None:
        """Return the first of an association's tasks that are not long."""
        heap = self._heaps[-1].get(leaf)
        return None if heap is None else heap.first()

    def competing_head(self, leaf: str) -> TaskRecord | None:
        """Return the first short task of an association in other lanes than that of `short_of`."""
        heap = self._heaps[-1].get(leaf)
        return None if heap is None or len(heap.by_priority) < 2 else heap.second()

    def is_only_lane(self, key: LaneKey) -> bool:
        """Return whether no other lane of its association has tasks."""
        heap = self._heaps[0].get(key[0])
        is_known = not self.changed or (len(self.changed) == 1 and key in self.changed)
        return is_known and heap is not None and list(heap.by_priority) == [key[1]]

    def any_short(self) -> bool:
        """Return whether any task is not long."""
        return bool(self._heaps[-1])


def merged(
    queues: Mapping[str, Iterator[TaskRecord]], shares: UsageOrder, rate: float, waiting: int
) -> Iterator[TaskRecord]:
    """Yield the tasks of all associations in the order in which they would be assigned: in turns of
    a chunk. `rate`: units of a microsecond of expected work; `waiting`: number of all tasks."""
    tried = shares.copy()
    order = AssociationOrder(tried)
    heads = {leaf: head for leaf, each in queues.items() if (head := next(each, None))}
    for leaf, head in heads.items():
        order.add(leaf, head.number)
    while heads:
        own = next((leaf for leaf in OWN_USER if leaf in heads), "")
        if own in heads and heads[own].batch.priority:
            first = order.first_by_priority(own, heads[own], heads.values())
        else:
            first = order.first()
        assert first is not None
        record: TaskRecord | None = heads.pop(first)
        assert record is not None
        queue, count, work_us, units = queues[first], 0, 0.0, 0.0
        chunk_us = most_us(record.cost_us, waiting)
        while record is not None and count < CHUNK_TASKS:
            cost_us = record.cost_us
            if count and (work_us + cost_us > chunk_us or cost_us >= ALONE_US):
                break
            yield record
            count += 1
            work_us += cost_us
            units += cost_us * record.batch.usage_factor
            record = next(queue, None)
        waiting = max(1, waiting - count)  # a moved task may have an older entry, too
        tried.assigned(first, count, units * rate)
        if record is None:
            order.remove(first)
        else:
            heads[first] = record
            order.set(first, record.number)
