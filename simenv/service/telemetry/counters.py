"""Counters that the event loop fills while it works.

Invariant: they cost next to nothing. A chunk of tasks is counted by the sums that its accounting
makes anyway; run times by one C loop over the chunk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import repeat
from operator import attrgetter
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
_run_us = attrgetter("timing.run_us")
_queued_us = attrgetter("timing.queued_us")


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

    def add_all(self, durations_us: Collection[int]) -> None:
        """Count several durations."""
        if len(durations_us) == 1:
            self.add(*durations_us)
            return
        found = Counter(map(bisect_left, repeat(_BOUNDS_US), durations_us))
        for index, count in found.items():
            self._counts[index] += count
        self._sum_us += sum(durations_us)

    def histogram(self) -> DurationHistogram:
        """Return the present counts."""
        return DurationHistogram(tuple(self._counts), self._sum_us / 1e6)


class PoolCounters:
    """Ended tasks and lost workers of one configured pool."""

    __slots__ = ("cancelled", "done", "expired", "failed", "run", "wait")

    def __init__(self) -> None:
        self.done = self.failed = self.cancelled = self.expired = 0
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
        counters.run.add_all([*map(_run_us, endings)])
        first, last = endings[0], endings[-1]
        # Tasks of one message that were sent together have waited equally long.
        if first.record.batch is last.record.batch and _queued_us(first) == _queued_us(last):
            counters.wait.add(_queued_us(first), len(endings))
        else:
            counters.wait.add_all([*map(_queued_us, endings)])

    def account(self, name: str, slot_us: int) -> None:
        """Count slot time of an account; those beyond MAX_LABELS are one."""
        if name not in self.slot_us and len(self.slot_us) >= MAX_LABELS:
            name = OTHER
        self.slot_us[name] = self.slot_us.get(name, 0) + slot_us
