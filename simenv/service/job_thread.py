"""Threads that fork, write and wait for disks in place of the event loop.

Invariants: neither a fork nor a wait for the disk holds up the loop. The jobs of a thread run in
their order; so do their continuations, in the loop. A thread that starts processes lives as long as
the service, because a child that is bound to its parent ends with the thread that started it
(PR_SET_PDEATHSIG, prctl(2)).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
CLOSE_S = 10.0  # for the job that runs when the service ends

log = logging.getLogger("simenv.service")


class JobThread:
    """One thread, which begins with its first job. Used from the loop's thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs = queue.SimpleQueue[Callable[[], None] | None]()
        self._done = queue.SimpleQueue[Callable[[], None]]()
        self._pending = 0
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """True if the continuation of a job has not run."""
        return self._pending > 0

    def run(self, job: Callable[[], T], then: Callable[[T | Exception], None] | None) -> None:
        """Run a job, and then a continuation with what it returned or raised; None: an error is
        logged."""

        def work() -> None:
            outcome = outcome_of(job)
            if then is not None:
                self._done.put(lambda: then(outcome))
            elif isinstance(outcome, Exception):
                log.error("a job of the thread %s failed", self._name, exc_info=outcome)

        self._pending += then is not None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(work)

    def run_continuations(self) -> None:
        """Run the continuations of the jobs that have ended."""
        while self._pending:
            try:
                continuation = self._done.get_nowait()
            except queue.Empty:
                return
            self._pending -= 1
            continuation()

    def drop(self) -> None:
        """Wait for the job that runs, run its continuation, and drop the other jobs."""
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        if self._thread is not None:
            is_idle = threading.Event()
            self._jobs.put(is_idle.set)
            is_idle.wait(CLOSE_S)
        with suppress(queue.Empty):  # of the job that ran: its process is ended like the others
            while True:
                self._done.get_nowait()()
        self._pending = 0

    def close(self) -> None:
        """End, after `drop`. What is bound to the thread that started it ends with it."""
        self.drop()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (work := self._jobs.get()) is not None:
            work()


def outcome_of(job: Callable[[], T]) -> T | Exception:
    """Return what a job returned or raised."""
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - the continuation has it
        return error
