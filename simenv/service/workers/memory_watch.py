"""Memory and number of the processes of workers, as the service itself counts them.

A thread measures all workers that are processes of this node, with all that they have started
(`simenv.sandbox.tree_memory`): what a worker reports about itself is shown, and decides nothing
where this thread measures. It decides nothing either: `simenv.scheduler.events.workers` does.
Workers of several ranks, and those on other nodes, have their heartbeats alone.

A worker with tasks is measured every PERIOD_S, and sooner if it would pass its bound before at the
rate at which its memory grew, or has passed it. A worker whose processes take long to measure is
measured less often, so that the thread takes PART of a processor at most.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple

from simenv.sandbox.tree_memory import TreeMemory, tree_memory

PERIOD_S, LEAST_S = 0.25, 0.05  # between two measurements of a worker
IDLE_S = 1.0  # the same for one without tasks
PART = 0.25
END_S = 5.0

log = logging.getLogger("simenv.service")


class WatchedWorker(NamedTuple):
    """A process of a worker. `bound_bytes`: of memory, up to which it need not be exact."""

    start: int
    pid: int
    bound_bytes: int = 0
    has_tasks: bool = False


class _Measured(NamedTuple):
    """A measurement of a worker, and when the next one is due."""

    watched: WatchedWorker
    used_bytes: int
    at_s: float
    next_s: float


class MemoryWatch:
    """The thread, and what it has measured. Used from the loop's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[str, WatchedWorker] = {}
        self._measured: dict[tuple[str, int], TreeMemory] = {}  # by name and start, since `take`
        self._last: dict[str, _Measured] = {}  # of the thread alone
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, name: str, start: int, pid: int) -> None:
        """Measure the process of a start of a worker from now on."""
        with self._lock:
            self._watched[name] = WatchedWorker(start, pid)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)
            self._thread.start()

    def remove(self, name: str) -> None:
        with self._lock:
            self._watched.pop(name, None)

    def set_bound(self, name: str, bound_bytes: int, *, has_tasks: bool) -> None:
        """Set the memory that a worker may use."""
        with self._lock:
            watched = self._watched.get(name)
            if watched is not None:
                own = watched.start, watched.pid
                self._watched[name] = WatchedWorker(*own, bound_bytes, has_tasks)

    def take(self) -> dict[tuple[str, int], TreeMemory]:
        """Return what was measured since the last call, by name and start of the worker."""
        with self._lock:
            result, self._measured = self._measured, {}
        return result

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(END_S)

    def _run(self) -> None:
        wait_s = LEAST_S
        while not self._ending.wait(wait_s):
            with self._lock:
                watched = dict(self._watched)
            self._last = {name: last for name, last in self._last.items() if name in watched}
            for name, each in watched.items():
                last = self._last.get(name)
                if last is None or last.watched != each or time.monotonic() >= last.next_s:
                    self._measure(name, each)
            due_s = min((last.next_s for last in self._last.values()), default=0.0)
            wait_s = min(PERIOD_S, max(LEAST_S, due_s - time.monotonic()))

    def _measure(self, name: str, watched: WatchedWorker) -> None:
        begin_s = time.monotonic()
        try:
            found = tree_memory(watched.pid, watched.bound_bytes)
        except OSError as error:
            log.warning("memory of worker %s cannot be measured: %s", name, error)
            found = TreeMemory(0, 0)
        end_s = time.monotonic()
        last = self._last.get(name)
        if last is None or last.watched.start != watched.start:
            pause_s = LEAST_S
        else:
            grown = found.used_bytes - last.used_bytes
            pause_s = next_look_s(watched, found.used_bytes, grown, begin_s - last.at_s)
        pause_s = max(pause_s, (end_s - begin_s) * (1 / PART - 1))
        self._last[name] = _Measured(watched, found.used_bytes, begin_s, end_s + pause_s)
        with self._lock:
            if found.processes and self._watched.get(name, watched).start == watched.start:
                self._measured[name, watched.start] = found


def next_look_s(watched: WatchedWorker, used_bytes: int, grown_bytes: int, since_s: float) -> float:
    """Return the time until the next measurement of a worker: at most half of that which its memory
    needs to pass its bound, if it grows on as it did, by `grown_bytes` in `since_s`."""
    if not watched.has_tasks:
        return IDLE_S
    left_bytes = watched.bound_bytes - used_bytes
    if left_bytes <= 0:
        return LEAST_S
    if grown_bytes <= 0:
        return PERIOD_S
    return max(LEAST_S, min(PERIOD_S, since_s * left_bytes / grown_bytes / 2))
