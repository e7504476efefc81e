"""Clocks, timed calls, and the bandwidth of memory."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np

Clock = Callable[[], float]
Times = dict[str, list[float]]  # seconds by name
Result = TypeVar("Result")
ASK_S, CONNECT_S = 0.002, 0.02  # between two questions of good clients, two new clients
READY_S = 120.0  # in which the processes of a flood begin


def clock_of(*, cpu: bool) -> Clock:
    """Return the clock in seconds: CPU time of this process, summed over threads, or wall time. CPU
    seconds of one thread can be measured on a busy machine."""
    return time.process_time if cpu else time.perf_counter


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


class Flood(NamedTuple):
    """Answers to good clients before a flood and during it. `connects`: of new clients; `took_s`:
    the whole flood. In seconds."""

    before: Times
    during: Times
    connects: list[float]
    took_s: float


def flooded(
    questions: Mapping[str, Callable[[], object]],
    connect: Callable[[], AbstractContextManager[object]],
    attack: Callable[..., None],
    args: tuple[object, ...],
    count: int,
) -> Flood:
    """Ask questions repeatedly, and connect new clients, while `count` processes run `attack`. Its
    arguments are `args` and a barrier, at which it waits before it begins."""
    methods = multiprocessing.get_context("spawn")
    ready = methods.Barrier(count + 1)
    attackers = [methods.Process(target=attack, args=(*args, ready)) for _ in range(count)]
    with probed(questions, ASK_S) as before:
        time.sleep(2.0)
    connects: list[float] = []
    with probed(questions, ASK_S) as during:
        for attacker in attackers:
            attacker.start()
        ready.wait(READY_S)
        begin = time.perf_counter()
        while any(attacker.is_alive() for attacker in attackers) or not connects:
            start_s = time.perf_counter()
            with connect():
                connects.append(time.perf_counter() - start_s)
            time.sleep(CONNECT_S)
        for attacker in attackers:
            attacker.join()
        took_s = time.perf_counter() - begin
    for name in questions:
        for when, times in (("quiet", before[name]), ("loud", during[name])):
            p50, p99, most = np.percentile(times, [50, 99, 100]) * 1e3
            print(f"{name:8s}{when:6s} p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {most:.1f} ms")
    return Flood(before, during, connects, took_s)


class Bandwidth:
    """Bandwidth of memory: each thread reads and writes its part of an array in place."""

    def __init__(self, threads: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        self._pool = ThreadPoolExecutor(threads)
        self._parts = np.array_split(np.ones(1 << 26), threads)  # 512 MiB: larger than any cache
        self._negate = lambda part: np.negative(part, out=part)

    def bytes_per_second(self, cpu: bool) -> float:
        """Return the bytes per second, by the median of five sweeps. `cpu`: measure CPU seconds
        instead of wall time, for one thread."""
        sweep = lambda: list(self._pool.map(self._negate, self._parts))  # noqa: E731
        seconds = repeated_s(sweep, 5, clock_of(cpu=cpu))
        return 2 * sum(part.nbytes for part in self._parts) / statistics.median(seconds)
