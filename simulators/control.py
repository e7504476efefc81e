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
"""

from __future__ import annotations

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
