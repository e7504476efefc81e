"""One thread for checks that are too long for the event loop; owners take turns in it.

The CPU time of each owner's checks of large messages is counted, so that it can be limited.
Invariant: the thread runs one check of an owner before the next one of the same owner, whatever the
others have waiting.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from simenv.service.support.fair_queue import FairQueue

T = TypeVar("T")


class FairThread:
    """One thread that runs the checks of all owners, who take turns."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checks")
        self._lock = threading.Lock()
        self._waiting: FairQueue[tuple[Future[Any], Callable[[], Any], bool]] = FairQueue()
        self._spent_ns: Counter[str] = Counter()

    def submit(self, owner: str, check: Callable[[], T], *, counted: bool = True) -> Future[T]:
        """Queue a check. Return the future with its result or its error. `counted`: its CPU time is
        the owner's."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.put(owner, b"", (future, check, counted))
        self._thread.submit(self._next)
        return future

    def take_spent_ns(self, owner: str) -> int:
        """Return the CPU time of an owner's counted checks since the last call."""
        with self._lock:
            return self._spent_ns.pop(owner, 0)

    def _next(self) -> None:
        """Run the next check; called in the thread, once for each check."""
        with self._lock:
            owner, _, (future, check, counted) = self._waiting.first()
            self._waiting.end_turn(done=True)
        begin_ns = time.thread_time_ns()
        try:
            future.set_result(check())
        except BaseException as error:  # noqa: BLE001 - raised by `future.result()`
            future.set_exception(error)
        if owner and counted:
            with self._lock:
                self._spent_ns[owner] += time.thread_time_ns() - begin_ns


CHECKS = FairThread()
