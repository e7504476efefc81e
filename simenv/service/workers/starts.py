"""Time of workers that start, measured in progress: for the scheduler, which has no clock.

A worker that starts may wait for kernels that another process compiles, or for a processor of a
machine that has too much to do. Steps of progress are a kernel that was stored and a line in the
log of the worker. Time counts as in `simenv.sandbox.progress`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from simenv.sandbox.progress import ProgressDeadline
from simenv.scheduler.scheduler import Scheduler

LOOK_S = 1.0


class StartMonitor:
    """Observer of workers that start. Used from the loop's thread."""

    def __init__(self, scheduler: Scheduler, log_bytes: Callable[[str], int]) -> None:
        """`log_bytes`: returns the size of the log of a worker."""
        self._scheduler = scheduler
        self._log_bytes = log_bytes
        self._deadlines: dict[tuple[str, int], ProgressDeadline] = {}
        self._steps: dict[tuple[str, int], tuple[int, int]] = {}
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
            steps = kernels, self._log_bytes(key[0])
            deadline = self._deadlines.get(key)
            if deadline is None:
                deadline = self._deadlines[key] = ProgressDeadline(math.inf)
            elif steps != self._steps[key]:
                deadline.step()
            self._steps[key] = steps
            deadline.look()
            since_ns = time.monotonic_ns() - round(deadline.spent_s * 1e9)
            self._scheduler.worker_starts(*key, since_ns)
