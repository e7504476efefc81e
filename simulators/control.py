"""What an engine is: a circuit becomes a plan once, a plan runs for many bindings and seeds.

Invariants. A plan depends on the circuit's structure, never on parameter values, so a caller may
keep it by structure. A run is a function of (circuit, bindings, shots, seed, outputs, precision)
and the engine's own settings alone: the same bits on any number of threads. One instance is used by
one thread at a time.

Seed contract: the randomness of shot s of binding b is Philox 4x64-10 with key (seed, b), the same
doubles as numpy's `Generator(Philox(key=[seed, b], counter=[0, draw, 0, 0])).random(shots)[s]`.
The joint sampling of the final measurements is draw 0; a measurement or reset at operation k that
is not final is draw 1 + k, and in later passes of loops what `draws.draw_number` says; sampled term
t of the observables, counted through, is draw 2**32 + t.
An engine may leave out what cannot change what is asked for, and run the parts of a circuit apart
that nothing connects (`circuit.reduced`). Operations keep their numbers, and what is final, or
measured at all, is what it is in the rest. The joint sampling is one of each part then: with more
than one part it is draw 1 + k, for the part's first final measurement k.
Engines that take a library's random numbers run blocks of shots with seeds of their own (`blocks`).

Threads for one run: they call compiled kernels, which release the interpreter lock, on ranges.

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

import numpy as np
from numpy.typing import NDArray

from simulators.errors import Stopped


class Control:
    """A flag that any thread may raise; engines look at it between passes (<= 1 s).

    `threads`: at most so many of those it was given work from its next pass on, 0 for all of them;
    results do not depend on it, and any thread may set it. `passes`: how many passes over its
    states the run has done, of how many; any thread may read it, the run's own alone moves it on.
    (0, 0) where the engine doesn't say.
    """

    __slots__ = ("flag", "passes", "threads")

    def __init__(self) -> None:
        self.flag: NDArray[np.int64] = np.zeros(1, np.int64)
        self.passes = (0, 0)
        self.threads = 0

    def stop(self) -> None:
        """Ask the run to end. Callable from any thread, at any time, more than once."""
        self.flag[0] = 1

    def clear(self) -> None:
        """Make the control fit for the next run."""
        self.flag[0] = 0
        self.passes = (0, 0)
        self.threads = 0

    def check(self) -> None:
        """Raise Stopped if someone asked for it."""
        if self.flag[0]:
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")

    def expect(self, passes: int) -> None:
        """So many more passes are to be done."""
        done, total = self.passes
        self.passes = (done, total + passes)

    def passed(self, passes: int = 1) -> None:
        """So many have been done."""
        done, total = self.passes
        self.passes = (done + passes, total)


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
