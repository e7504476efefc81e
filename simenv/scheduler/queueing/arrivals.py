"""Arrivals of tasks, from which forecasts expect later ones."""

from __future__ import annotations

import math

import msgspec

from simenv.scheduler.core import SubmitBatch

ARRIVALS_NS = 3 * 3_600_000_000_000  # for which arrivals count, with decreasing weight
PRIOR_NS = 600_000_000_000  # time without arrivals that is assumed before the first
KNOWN_NS = 600_000_000_000  # nothing is expected of an association that came later than this


class Arrivals(msgspec.Struct):
    """Arrivals of one association. Those of its first time are not counted: what comes when a
    service starts, or a campaign begins, says nothing about how often more comes."""

    batch: SubmitBatch  # the last one
    first_ns: int
    last_ns: int
    tasks: float = 0.0  # weighted
    work_us: float = 0.0  # weighted, of all of them
    messages: float = 0.0  # weighted

    def note(self, batch: SubmitBatch, tasks: int, work_us: float) -> None:
        """Count tasks that are accepted."""
        now_ns = batch.accepted_ns
        self.batch = batch
        if now_ns <= self.first_ns:
            return
        weight = math.exp((self.last_ns - now_ns) / ARRIVALS_NS) if now_ns > self.last_ns else 1.0
        self.last_ns = max(self.last_ns, now_ns)
        self.tasks = self.tasks * weight + tasks
        self.work_us = self.work_us * weight + work_us
        self.messages = self.messages * weight + 1.0

    def every_us(self, now_ns: int) -> float:
        """Return the mean time between two submissions; infinite if none is expected."""
        if now_ns - self.first_ns < KNOWN_NS:
            return math.inf
        weight = math.exp((self.last_ns - now_ns) / ARRIVALS_NS)
        known_ns = ARRIVALS_NS * -math.expm1((self.first_ns - now_ns) / ARRIVALS_NS) + PRIOR_NS
        often = self.messages * weight / known_ns
        return 1e-3 / often if often > 1e-17 else math.inf
