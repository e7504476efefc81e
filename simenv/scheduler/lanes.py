"""Waiting tasks that go in the order they came in, and those that are kept sorted.

Each set of lanes has four: suspects (tasks that must travel alone), short and long tasks, and late
ones, which would not end before the allocation does. Removal is lazy: what no longer waits stays in
its lane until it comes up, so cancelling costs nothing.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from simenv.scheduler.orders import Order, Rank
from simenv.scheduler.values import WAITING, Record

SMALL_US = 1_500.0  # a task up to that travels with others
LONG_US = 1e6  # a task longer than this must not take a node's last slot from the short ones


class Work(msgspec.Struct, frozen=True, gc=False):
    """Expected slot time, of tasks that travel together and of others."""

    small_us: float = 0.0
    large_us: float = 0.0


class Sorted:
    """A lane whose first is the least by rank, whenever it came; otherwise like a deque."""

    def __init__(self, order: Order) -> None:
        self._rank = order.rank
        self._heap: list[tuple[Rank, Record]] = []

    def append(self, record: Record) -> None:
        heapq.heappush(self._heap, (self._rank(record), record))

    appendleft = append  # what was given back has a rank that says so

    def extend(self, records: Iterable[Record]) -> None:
        self._heap += [(self._rank(record), record) for record in records]
        heapq.heapify(self._heap)

    def popleft(self) -> Record:
        return heapq.heappop(self._heap)[1]

    def clear(self) -> None:
        self._heap.clear()

    def __getitem__(self, place: int) -> Record:
        """That of place 0 alone."""
        return self._heap[place][1]

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in sorted(self._heap, key=lambda entry: entry[0]))


Lane = deque[Record] | Sorted


class Lanes:
    """Waiting tasks of which one order holds."""

    def __init__(self, order: Order) -> None:
        self._rank = order.rank
        self.suspects: Lane
        self.short: Lane
        self.long: Lane
        if order.keys:
            self.suspects, self.short, self.long = Sorted(order), Sorted(order), Sorted(order)
        else:
            self.suspects, self.short, self.long = deque(), deque(), deque()
        self.late: deque[Record] = deque()
        self.small_us = 0.0  # expected work of those that wait, on one slot
        self.large_us = 0.0

    def head(self, allow_long: bool) -> Record | None:
        """The next task that still waits; stale entries are dropped on the way."""
        best = None
        for lane in (self.suspects, self.short, self.long if allow_long else ()):
            while lane and lane[0].phase != WAITING:
                lane.popleft()
            if lane and (best is None or self._rank(lane[0]) < self._rank(best)):
                best = lane[0]
        return best

    def count_in(self, cost_us: float) -> None:
        """A task of that cost waits here, or (negative) no longer does."""
        if -SMALL_US <= cost_us <= SMALL_US:
            self.small_us += cost_us
        else:
            self.large_us += cost_us

    def part(self, share: float) -> Work:
        """So much of its work."""
        return Work(max(0.0, share * self.small_us), max(0.0, share * self.large_us))

    def ends(self) -> tuple[Record, Record] | None:
        """The first and the last that came of its longer lane; None if it has none that is in the
        order they came in."""
        lane = max(self.short, self.long, key=len)
        return (lane[0], lane[-1]) if lane and not isinstance(lane, Sorted) else None

    def size(self) -> int:
        """Entries that may be tried, stale ones among them."""
        return len(self.suspects) + len(self.short) + len(self.long)

    def any(self) -> bool:
        return bool(self.suspects or self.short or self.long or self.late)

    def all(self) -> tuple[Lane, ...]:
        return (self.suspects, self.short, self.long, self.late)

    def sweep(self) -> None:
        """Keep only what waits."""
        for lane in self.all():
            live = [record for record in lane if record.phase == WAITING]
            lane.clear()
            lane.extend(live)

    def lane_of(self, record: Record) -> Lane:
        if record.incident:
            return self.suspects
        return self.long if record.cost_us > LONG_US else self.short

    def tried(self) -> Iterator[Record]:
        """Those that wait, in their order; late ones are not tried."""
        merged = heapq.merge(self.suspects, self.short, self.long, key=self._rank)
        return (record for record in merged if record.phase == WAITING)
