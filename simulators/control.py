"""Cancellation, progress and threads of one run.

`RunControl` is the cancel flag and the progress counter of a run. `ThreadPool` calls compiled
kernels, which release the interpreter lock, on ranges. Its threads live only inside the `with`
block, so an idle engine uses no CPU. The caller's thread works too. Chunks are handed out
dynamically, and the cancel flag is read between them. A chunk's result must not depend on the
thread that computes it.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from simulators.errors import Stopped


class RunControl:
    """Cancel flag that any thread may set; engines read it between passes (<= 1 s).

    `threads`: limit on the threads of a run from its next pass on, 0 for all of them; results do
    not depend on it, and any thread may set it. `passes`: numbers of finished and of all passes
    over the states; any thread may read it, only the run's own thread changes it. (0, 0) if the
    engine does not report it.
    """

    __slots__ = ("flag", "passes", "threads")

    def __init__(self) -> None:
        self.flag: NDArray[np.int64] = np.zeros(1, np.int64)
        self.passes = (0, 0)
        self.threads = 0

    def stop(self) -> None:
        """Ask the run to end. Any thread may call it at any time, repeatedly."""
        self.flag[0] = 1

    def clear(self) -> None:
        """Reset the control for the next run."""
        self.flag[0] = 0
        self.passes = (0, 0)
        self.threads = 0

    def check(self) -> None:
        """Raise Stopped if `stop` was called."""
        if self.flag[0]:
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")

    def add_sweeps(self, passes: int) -> None:
        """Add sweeps to the total."""
        done, total = self.passes
        self.passes = (done, total + passes)

    def sweeps_done(self, passes: int = 1) -> None:
        """Count sweeps as done."""
        done, total = self.passes
        self.passes = (done + passes, total)


ThreadWork = Callable[[int, int, int], object]  # (first, last, thread number)


class ThreadPool:
    """`threads` threads, one or more, the caller's included."""

    def __init__(self, threads: int, control: RunControl) -> None:
        self.size = threads
        self._control = control
        self._orders: queue.SimpleQueue[tuple[ThreadWork, Iterator[int], int, int] | None]
        self._orders = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def run(self, work: ThreadWork, total: int, grain: int) -> None:
        """Call `work` on ranges of at most `grain` that cover range(total).

        Raises Stopped, also if a stop shortened the last range.
        """
        if total <= grain:
            self._control.check()
            work(0, total, 0)
            self._control.check()
            return
        ranges = -(-total // grain)
        starts = itertools.count(0, grain)  # next() on it is atomic
        allowed = min(self.size, self._control.threads or self.size)
        helpers = min(max(1, allowed), ranges) - 1
        self._start(helpers)
        for _ in range(helpers):
            self._orders.put((work, starts, total, grain))
        failure = self._run_chunks(work, starts, total, grain, 0)
        for _ in range(helpers):
            failure = self._done.get() or failure
        if failure is not None:
            raise failure
        self._control.check()

    def _start(self, helpers: int) -> None:
        while len(self._threads) < helpers:
            number = len(self._threads) + 1
            thread = threading.Thread(target=self._worker, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _worker(self, number: int) -> None:
        while (order := self._orders.get()) is not None:
            self._done.put(self._run_chunks(*order, number))

    def _run_chunks(
        self, work: ThreadWork, starts: Iterator[int], total: int, grain: int, number: int
    ) -> Exception | None:
        try:
            for first in starts:
                if first >= total:
                    return None
                self._control.check()
                work(first, min(first + grain, total), number)
        except Exception as error:  # noqa: BLE001 raised again in the caller's thread
            return error
        return None
