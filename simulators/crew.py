"""Threads for one run: they call compiled kernels, which release the interpreter lock, on ranges.

Invariant: threads live only inside the `with` block, so an idle engine has none and uses no CPU.
The caller's thread works too; ranges are handed out one by one, and the control flag is looked at
between them; how many threads may work is looked at when a `run` begins. What a range computes must
not depend on which thread computes it.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from simulators.control import Control

Work = Callable[[int, int, int], object]  # (first, last, number of the thread)


class Crew:
    """`threads` threads, one or more, the caller's included."""

    def __init__(self, threads: int, control: Control) -> None:
        self.size = threads
        self._control = control
        self._orders: queue.SimpleQueue[tuple[Work, Iterator[int], int, int] | None]
        self._orders = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Crew:
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

    def run(self, work: Work, total: int, grain: int) -> None:
        """Call `work` on ranges of at most `grain` that cover range(total).

        Raises Stopped, also where a stop cut the last range short.
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
        self._hire(helpers)
        for _ in range(helpers):
            self._orders.put((work, starts, total, grain))
        failure = self._labour(work, starts, total, grain, 0)
        for _ in range(helpers):
            failure = self._done.get() or failure
        if failure is not None:
            raise failure
        self._control.check()

    def _hire(self, helpers: int) -> None:
        while len(self._threads) < helpers:
            number = len(self._threads) + 1
            thread = threading.Thread(target=self._serve, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, number: int) -> None:
        while (order := self._orders.get()) is not None:
            self._done.put(self._labour(*order, number))

    def _labour(
        self, work: Work, starts: Iterator[int], total: int, grain: int, number: int
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
