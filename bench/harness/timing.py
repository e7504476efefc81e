"""Clocks, timed calls, and the bandwidth of memory."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

Clock = Callable[[], float]


def clock_of(*, cpu: bool) -> Clock:
    """Return the clock in seconds: CPU time of this process, summed over threads, or wall time.

    CPU seconds of one thread can be measured on a busy machine.
    """
    return time.process_time if cpu else time.perf_counter


def timed_s(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one call."""
    begin = clock()
    call()
    return clock() - begin


class RepeatedCall:
    """A thread that calls a function repeatedly and records the seconds of each call.

    `errors`: exceptions that count as an answer; the call's time is recorded.
    """

    def __init__(
        self,
        call: Callable[[], object],
        pause_s: float,
        errors: tuple[type[Exception], ...] = (),
    ) -> None:
        self._call, self._pause_s, self._errors = call, pause_s, errors
        self._seconds: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(self._pause_s):
            begin = time.perf_counter()
            with suppress(*self._errors):
                self._call()
            self._seconds.append(time.perf_counter() - begin)

    def end(self) -> list[float]:
        """Stop the thread; return the seconds of all calls."""
        self._ending.set()
        self._thread.join()
        return self._seconds


class Bandwidth:
    """Bandwidth of memory: each thread reads and writes its part of an array in place."""

    def __init__(self, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(threads)
        self._parts = np.array_split(np.ones(1 << 26), threads)  # 512 MiB: larger than any cache

    def bytes_per_second(self, cpu: bool) -> float:
        """Return the bytes per second, by the median of five sweeps.

        `cpu`: measure CPU seconds instead of wall time, for one thread.
        """
        clock = clock_of(cpu=cpu)
        seconds = [
            timed_s(lambda: list(self._pool.map(_negate, self._parts)), clock) for _ in range(5)
        ]
        return 2 * sum(part.nbytes for part in self._parts) / statistics.median(seconds)


def _negate(part: Any) -> None:
    np.negative(part, out=part)
