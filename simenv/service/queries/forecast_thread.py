"""The thread in which expected starts are simulated.

The interpreter runs one thread at a time. A thread that computes for long keeps the event loop
waiting for 5 ms, the interval of `sys.setswitchinterval`, whenever the loop has given up the
interpreter for a system call. So this one sleeps after each SLICE_NS, and the loop waits so long at
most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from simenv.scheduler.forecast.expected_starts import ExpectedStarts
from simenv.service.queries.query_queue import ReplySteps

T = TypeVar("T")

SLICE_NS = 500_000
PAUSE_S = 0.000_2


class ForecastStopped(Exception):
    """The service ends, and its simulation with it."""


class ForecastThread:
    """One thread; it exists while something is simulated or has been."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "forecasts")
        self._slice_ns = 0  # begin of the present slice
        self._stopped = False

    def run(self, simulate: Callable[[Callable[[], object]], T]) -> Future[T]:
        """Simulate in the thread. `simulate` calls its argument at least every millisecond."""
        return self._thread.submit(simulate, self._pause)

    def _pause(self) -> None:
        """Let the event loop run, if this slice is over."""
        if self._stopped:
            raise ForecastStopped
        now_ns = time.perf_counter_ns()
        if now_ns - self._slice_ns > SLICE_NS:
            time.sleep(PAUSE_S)
            self._slice_ns = time.perf_counter_ns()

    def stop(self) -> None:
        """End the simulation under way at its next pause, and begin no other one."""
        self._stopped = True
        self._thread.shutdown(wait=False, cancel_futures=True)


def refresh_starts(starts: ExpectedStarts, owner: str, newest: int = 0) -> ReplySteps:
    """Bring the expected starts up to date, also those of `newest` and earlier tasks."""
    asked_ns = time.monotonic_ns()
    while True:
        now_ns = time.monotonic_ns()
        simulation = starts.refresh(now_ns, owner, newest, asked_ns)
        if simulation is None or starts.is_usable(now_ns, newest):
            return
        yield simulation
