"""Thread that starts processes and writes their files for the event loop.

Invariants: neither a fork nor a wait for the disk holds up the loop. The thread lives as long as
the service, because a child that is bound to its parent ends with the thread that started it
(PR_SET_PDEATHSIG, prctl(2)). Jobs run in their order; so do their continuations, in the loop.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")
CLOSE_S = 10.0  # for the job that runs when the service ends

log = logging.getLogger("simenv.service")


class Starter(Protocol):
    """Used from the loop's thread."""

    def run(self, job: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Run a job, and then a continuation with what it returned or raised."""

    def run_continuations(self) -> None:
        """Run the continuations of the jobs that have ended."""

    @property
    def is_busy(self) -> bool:
        """True if the continuation of a job has not run."""

    def drop(self) -> None:
        """Wait for the job that runs, and drop the others."""

    def close(self) -> None:
        """End, after `drop`. What is bound to the thread that started it ends with it."""


class InlineStarter:
    """Starter without a thread, for launchers that may be used from one thread alone."""

    is_busy = False

    def run(self, job: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        then(outcome_of(job))

    def run_continuations(self) -> None:
        """Do nothing: all have run."""

    def drop(self) -> None:
        """Do nothing: no job runs."""

    def close(self) -> None:
        """Do nothing: there is no thread."""


class StarterThread:
    """The thread; it begins with the first job."""

    def __init__(self) -> None:
        self._jobs = queue.SimpleQueue[Callable[[], None] | None]()
        self._done = queue.SimpleQueue[Callable[[], None]]()
        self._pending = 0
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        return self._pending > 0

    def run(self, job: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        def work() -> None:
            outcome = outcome_of(job)
            self._done.put(lambda: then(outcome))

        self._pending += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="starter", daemon=True)
            self._thread.start()
        self._jobs.put(work)

    def run_continuations(self) -> None:
        while self._pending:
            try:
                continuation = self._done.get_nowait()
            except queue.Empty:
                return
            self._pending -= 1
            continuation()

    def drop(self) -> None:
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
