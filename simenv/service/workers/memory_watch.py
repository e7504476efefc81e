"""Memory and number of the processes of workers, as the service itself counts them.

A thread measures all workers that are processes of this node, with all that they have started
(`simenv.sandbox.tree_memory`): what a worker reports about itself is shown, and decides nothing
where this thread measures. It decides nothing either: `simenv.scheduler.events.workers` does.
Workers of several ranks, and those on other nodes, have their heartbeats alone.
"""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from simenv.sandbox.tree_memory import TreeMemory, tree_memory

PERIOD_S = 0.5  # between two measurements of all workers
END_S = 5.0

log = logging.getLogger("simenv.service")


class WatchedWorker(NamedTuple):
    """A process of a worker. `enough_bytes`: of memory, up to which it need not be exact."""

    start: int
    pid: int
    enough_bytes: int = 0


class MemoryWatch:
    """The thread, and what it has measured. Used from the loop's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[str, WatchedWorker] = {}
        self._measured: dict[tuple[str, int], TreeMemory] = {}  # by name and start, since `take`
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

    def set_bound(self, name: str, bound_bytes: int) -> None:
        """Set the memory that a worker may use."""
        with self._lock:
            watched = self._watched.get(name)
            if watched is not None:
                self._watched[name] = watched._replace(enough_bytes=bound_bytes)

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
        while not self._ending.wait(PERIOD_S):
            with self._lock:
                watched = dict(self._watched)
            for name, each in watched.items():
                try:
                    found = tree_memory(each.pid, each.enough_bytes)
                except OSError as error:
                    log.warning("memory of worker %s cannot be measured: %s", name, error)
                    continue
                with self._lock:
                    if self._watched.get(name, each).start == each.start:
                        self._measured[name, each.start] = found
