"""How many states a run may hold, and how many operations it may execute."""

from __future__ import annotations

from simulators.engine import RunOptions
from simulators.errors import TooManyBranches, TooManySteps

# What a pass of a loop counts as, beside what happens in it: a pass takes some 100 us or more,
# however small the state, and a `while` that never ends should be told so after seconds.
WHILE_STEPS = 1000
FOR_STEPS = 200


class Budget:
    """Counts the states and operations of one run, those of all branches together."""

    def __init__(self, most: int, options: RunOptions) -> None:
        """`most`: how many states fit into the memory there is."""
        self.peak = 1  # most states held at once
        self.steps = 0
        self._live = 1
        self._max_steps = options.max_steps
        self._max_states = max(1, min(options.max_branches, most))
        self._bound = "max_branches" if options.max_branches <= most else "what memory holds"

    def begin(self) -> None:
        """One state again; the steps go on."""
        self._live = 1

    def step(self, steps: int) -> None:
        """Raises TooManySteps."""
        self.steps += steps
        if self.steps > self._max_steps:
            raise TooManySteps(
                f"the run has come to {self.steps} operations over"
                f" {self.peak} branch{'es' if self.peak > 1 else ''}; the limit is"
                f" {self._max_steps} (max_steps); a pass of a `for` counts as {FOR_STEPS}, of a"
                f" `while` as {WHILE_STEPS}",
                hint="see whether every loop ends; else take fewer shots or passes, or measure less"
                " on the way",
            )

    def grow(self, states: int) -> None:
        """So many more states. Raises TooManyBranches."""
        self._live += states
        if self._live <= self._max_states:
            self.peak = max(self.peak, self._live)
        else:
            raise TooManyBranches(
                f"more than {self._max_states} distinct states at once ({self._bound})",
                hint="ask for counts with shots (they run in groups), or raise max_branches",
            )

    def shrink(self, states: int) -> None:
        """So many states less."""
        self._live -= states
