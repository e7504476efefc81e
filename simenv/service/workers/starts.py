"""Time of workers that start, measured in progress: for the scheduler, which has no clock.

A worker that starts may wait for kernels that another process compiles, or for a processor of a
machine that has too much to do. Steps of progress are a kernel that was stored and, up to
MAX_LOG_STEPS times between two kernels, a line in the log of the worker: one that logs the same
error for ever does not start. Time counts as in `simenv.sandbox.progress`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from simenv.sandbox.progress import ProgressDeadline
from simenv.scheduler.scheduler import Scheduler

LOOK_S = 1.0
MAX_LOG_STEPS = 20  # a worker that starts well writes a few lines


class StartMonitor:
    """Observer of workers that start. Used from the loop's thread."""

    def __init__(self, scheduler: Scheduler, log_bytes: Callable[[str], int]) -> None:
        """`log_bytes`: returns the size of the log of a worker."""
        self._scheduler = scheduler
        self._log_bytes = log_bytes
        self._deadlines: dict[tuple[str, int], ProgressDeadline] = {}
        # Kernels and bytes of the log at the last look, and steps of the log since the last kernel.
        self._steps: dict[tuple[str, int], tuple[int, int, int]] = {}
        self._next_s = 0.0

    def look(self, kernels: int) -> None:
        """Report to the scheduler how long each worker has been without progress, once in LOOK_S.
        `kernels`: that are stored."""
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + LOOK_S
        pools = self._scheduler.state.cluster.pools.values()
        starting = [worker for pool in pools for worker in pool.workers.starting.values()]
        keys = {(worker.name, worker.start) for worker in starting}
        for key in self._deadlines.keys() - keys:
            del self._deadlines[key], self._steps[key]
        for key in keys:
            size, deadline = self._log_bytes(key[0]), self._deadlines.get(key)
            before, size_before, lines = self._steps.get(key, (kernels, size, 0))
            if deadline is None:
                deadline = self._deadlines[key] = ProgressDeadline(math.inf)
            elif kernels != before:
                deadline.step()
                lines = 0
            elif size != size_before and lines < MAX_LOG_STEPS:
                deadline.step()
                lines += 1
            self._steps[key] = kernels, size, lines
            deadline.look()
            since_ns = time.monotonic_ns() - round(deadline.spent_s * 1e9)
            self._scheduler.worker_starts(*key, since_ns)
