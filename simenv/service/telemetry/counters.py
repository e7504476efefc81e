"""Counters that the event loop fills while it works.

Invariant: they cost next to nothing. A chunk of tasks is counted by the sums that its accounting
makes anyway; its run times are sorted, so that only the few buckets that they are in are searched.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from simenv.wire.messages.metrics import (
    BUCKETS,
    LEAST_EXPONENT,
    MAX_LABELS,
    OTHER,
    DurationHistogram,
)

if TYPE_CHECKING:
    from simenv.scheduler.core import TaskEnded

_BOUNDS_US = [int(1e6 * 2.0 ** (LEAST_EXPONENT + k)) for k in range(BUCKETS - 1)]


class DurationBuckets:
    """Histogram of durations in microseconds, with a bucket for each power of 2 as in
    `DurationHistogram`; a bucket contains the power of 2 that bounds it."""

    __slots__ = ("_counts", "_sum_us")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._sum_us = 0

    def add(self, us: int, count: int = 1) -> None:
        """Count a duration, `count` times."""
        self._counts[bisect_left(_BOUNDS_US, us)] += count
        self._sum_us += us * count

    def add_all(self, durations_us: Iterable[int]) -> None:
        """Count several durations."""
        ordered = sorted(durations_us)
        begin, counts = 0, self._counts
        index = bisect_left(_BOUNDS_US, ordered[0]) if ordered else BUCKETS
        while begin < len(ordered):
            is_last = index == BUCKETS - 1
            end = len(ordered) if is_last else bisect_right(ordered, _BOUNDS_US[index], begin)
            counts[index] += end - begin
            begin, index = end, index + 1
        self._sum_us += sum(ordered)

    def histogram(self) -> DurationHistogram:
        """Return the present counts."""
        return DurationHistogram(tuple(self._counts), self._sum_us / 1e6)


class PoolCounters:
    """Ended tasks of one configured pool, and the slot time that they and reservations used."""

    __slots__ = ("cancelled", "done", "expired", "failed", "run", "slot_us", "wait")

    def __init__(self) -> None:
        self.done = self.failed = self.cancelled = self.expired = self.slot_us = 0
        self.wait, self.run = DurationBuckets(), DurationBuckets()


class TaskCounters:
    """Ended tasks by pool, and slot time by account. Used from the loop's thread."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolCounters] = {}
        self.slot_us: dict[str, int] = {}  # by account
        self.refused = 0  # submissions

    def pool(self, name: str) -> PoolCounters:
        """Return the counters of a configured pool."""
        counters = self.pools.get(name)
        if counters is None:
            counters = self.pools[name] = PoolCounters()
        return counters

    def durations(self, pool: str, endings: Sequence[TaskEnded]) -> None:
        """Count the waits and run times of tasks of one chunk that a worker ran."""
        counters = self.pool(pool)
        counters.run.add_all([ending.timing.run_us for ending in endings])
        first, last = endings[0], endings[-1]
        queued_us = first.timing.queued_us
        # Tasks of one message that were sent together have waited equally long.
        if first.record.batch is last.record.batch and queued_us == last.timing.queued_us:
            counters.wait.add(queued_us, len(endings))
        else:
            counters.wait.add_all([ending.timing.queued_us for ending in endings])

    def account(self, name: str, slot_us: int) -> None:
        """Count slot time of an account; those beyond MAX_LABELS are one."""
        if name not in self.slot_us and len(self.slot_us) >= MAX_LABELS:
            name = OTHER
        self.slot_us[name] = self.slot_us.get(name, 0) + slot_us
