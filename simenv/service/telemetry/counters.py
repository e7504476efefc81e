"""Counters that the event loop fills while it works.

Invariant: they cost next to nothing. A chunk of tasks is counted by the sums that its accounting
makes anyway; its run times are sorted, so that only the few buckets that they are in are searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simenv.wire.messages.metrics import (
    MAX_LABELS,
    OTHER,
)

if TYPE_CHECKING:
    from simenv.scheduler.core import TaskEnded
from simenv.service.durations import DurationBuckets


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
