"""Deadlines of tasks and attempts, and the grace period after a stop request."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterator

STOP_GRACE_NS = 2_000_000_000  # an engine that has not stopped by then is ended with its worker
HARDWARE_GRACE_NS = 5_000_000_000  # the request to the provider travels over a network
KEPT = 10_000  # entries of tasks that have ended, before they are cleared away


class Deadlines:
    """Deadlines of tasks and attempts. Times are monotonic nanoseconds; the fence identifies an
    attempt."""

    def __init__(self) -> None:
        self._queued: list[tuple[int, int]] = []  # (when, task)
        self._running: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._stopping: list[tuple[int, int, int]] = []  # (when, task, fence)
        self._skipping: list[tuple[int, int, int]] = []  # (when, task, fence)

    def wait_until(self, when_ns: int, tasks: range, alive: Container[int], count: int) -> None:
        """Set the queue timeout of these tasks; `count` tasks are `alive`."""
        for task in tasks:
            heapq.heappush(self._queued, (when_ns, task))
        if len(self._queued) > 2 * count + KEPT:
            self._queued = [entry for entry in self._queued if entry[1] in alive]
            heapq.heapify(self._queued)

    def run_until(self, when_ns: int, task: int, fence: int) -> None:
        """Set the run timeout of this attempt."""
        heapq.heappush(self._running, (when_ns, task, fence))

    def stop_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """Start the grace period of an attempt that was asked to stop."""
        heapq.heappush(self._stopping, (now_ns + grace_ns, task, fence))

    def skip_by(self, now_ns: int, task: int, fence: int, grace_ns: int = STOP_GRACE_NS) -> None:
        """Start the grace period of an attempt that its worker was asked to skip."""
        heapq.heappush(self._skipping, (now_ns + grace_ns, task, fence))

    def queue_timeouts(self, now_ns: int) -> Iterator[int]:
        """Yield the tasks whose queue timeout is over."""
        while self._queued and self._queued[0][0] <= now_ns:
            yield heapq.heappop(self._queued)[1]

    def run_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts whose run timeout is over."""
        while self._running and self._running[0][0] <= now_ns:
            yield heapq.heappop(self._running)[1:]

    def stop_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts that did not stop within the grace period."""
        while self._stopping and self._stopping[0][0] <= now_ns:
            yield heapq.heappop(self._stopping)[1:]

    def skip_timeouts(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Yield (task, fence) of attempts whose worker did not confirm the skip in time."""
        while self._skipping and self._skipping[0][0] <= now_ns:
            yield heapq.heappop(self._skipping)[1:]
