"""Clocks, timed calls, memory of processes, and its bandwidth."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Clock = Callable[[], float]
Times = dict[str, list[float]]  # seconds by name
Result = TypeVar("Result")


def timed_s(call: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one call."""
    begin = clock()
    call()
    return clock() - begin


def timed(call: Callable[[], Result], clock: Clock = time.perf_counter) -> tuple[float, Result]:
    """Return the seconds and the result of one call."""
    begin = clock()
    result = call()
    return clock() - begin, result


def repeated_s(
    call: Callable[[], object], number: int, clock: Clock = time.perf_counter
) -> list[float]:
    """Return the seconds of each of some calls."""
    return [timed_s(call, clock) for _ in range(number)]


def medians(times: Mapping[Any, list[float]]) -> dict[Any, float]:
    """Return the median of each entry."""
    return {name: statistics.median(each) for name, each in times.items()}


def in_rounds(calls: Mapping[Any, Callable[[int], float]], rounds: int, warm_up: int = 1) -> Times:
    """Return what each call gave in each round; the calls of a round take turns, since the speed of
    a machine drifts. Their argument is the round; those below 0 warm up, and do not count."""
    found: Times = {name: [] for name in calls}
    for turn in range(-warm_up, rounds):
        for name, call in calls.items():
            value = call(turn)
            if turn >= 0:
                found[name].append(value)
    return found


def rounds_of(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 0,
    clock: Clock = time.perf_counter,
) -> Times:
    """Return the seconds of each call in each round; the calls of a round take turns."""
    timed_calls = {name: lambda _, call=call: timed_s(call, clock) for name, call in calls.items()}
    return in_rounds(timed_calls, rounds, warm_up)


def print_times(times: Mapping[str, list[float]]) -> None:
    """Print the median and the best of each entry."""
    for name, each in times.items():
        print(f"  {name:30s}{statistics.median(each) * 1e3:10.1f} ms  best {min(each) * 1e3:.1f}")


@contextmanager
def probed(
    calls: Mapping[str, Callable[[], object]],
    pause_s: float,
    errors: tuple[type[Exception], ...] = (),
) -> Iterator[Times]:
    """Call each function repeatedly in a thread of its own; yield the seconds of the calls.
    `errors`: exceptions that count as an answer; the call's time is recorded."""
    seconds: Times = {name: [] for name in calls}
    ending = threading.Event()

    def repeat(name: str, call: Callable[[], object]) -> None:
        while not ending.wait(pause_s):
            begin = time.perf_counter()
            with suppress(*errors):
                call()
            seconds[name].append(time.perf_counter() - begin)

    threads = [threading.Thread(target=repeat, args=item, daemon=True) for item in calls.items()]
    for thread in threads:
        thread.start()
    try:
        yield seconds
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def memory_bytes(pid: int, name: str = "VmHWM") -> int:
    """Return the peak memory of a process, or another value by its name in proc(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


class Bandwidth:
    """Bandwidth of memory: each thread reads and writes its part of an array in place."""

    def __init__(self, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(threads)
        self._parts = np.array_split(np.ones(1 << 26), threads)  # 512 MiB: larger than any cache
        self._negate = lambda part: np.negative(part, out=part)

    def bytes_per_second(self) -> float:
        """Return the bytes per second, by the median of five sweeps."""
        seconds = repeated_s(lambda: list(self._pool.map(self._negate, self._parts)), 5)
        return 2 * sum(part.nbytes for part in self._parts) / statistics.median(seconds)
