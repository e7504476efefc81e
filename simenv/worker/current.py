"""What the worker runs now, and what it was asked to stop: shared by its two threads."""

from __future__ import annotations

import threading

from simenv.worker.runner import Runner

STOPS_KEPT = 4_096


class Current:
    """The main thread begins and ends tasks; the heartbeat thread asks to stop them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._stops: dict[tuple[int, int], str] = {}  # asked to stop before it began
        self.running: tuple[int, int] = (0, 0)  # (task, attempt); read without the lock

    def begin(self, task: int, attempt: int) -> str:
        """Returns why the task must not run after all, or ""."""
        with self._lock:
            self.running = (task, attempt)
            self._runner.control.clear()
            self._runner.stop_reason = ""
            return self._stops.pop((task, attempt), "")

    @property
    def passes(self) -> tuple[int, int]:
        """How many passes what runs now has done, of how many."""
        return self._runner.control.passes

    def set_threads(self, task: int, attempt: int, threads: int) -> None:
        """From its next pass on the task runs on so many threads, if it still runs."""
        with self._lock:
            if self.running == (task, attempt):
                self._runner.control.threads = threads

    def end(self) -> None:
        self.running = (0, 0)

    def stop(self, task: int, attempt: int, reason: str) -> None:
        """Stop the task if it runs, or keep it from beginning."""
        with self._lock:
            if self.running == (task, attempt):
                self._runner.stop_reason = reason
                self._runner.control.stop()
            else:
                if len(self._stops) >= STOPS_KEPT:  # late ones for tasks that have ended
                    self._stops.clear()
                self._stops[task, attempt] = reason
