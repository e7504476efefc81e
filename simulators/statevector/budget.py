"""How many states a run may hold, and how many operations it may execute."""

from __future__ import annotations

from simulators.base import RunOptions
from simulators.catalog import state_bytes
from simulators.errors import TooManyBranches, TooManySteps
from simulators.statevector.state import PHYSICAL_BYTES

# What a pass of a loop counts as, beside what happens in it: a pass takes some 100 us or more,
# however small the state, and a `while` that never ends should be told so after seconds.
WHILE_STEPS = 1000
FOR_STEPS = 200


class Budget:
    """Counts the states and operations of one run, those of all branches together."""

    def __init__(self, num_qubits: int, options: RunOptions) -> None:
        self.peak = 1  # most states held at once
        self.steps = 0
        self._live = 1
        self._max_steps = options.max_steps
        room = options.memory_bytes or PHYSICAL_BYTES // 4
        states = room // state_bytes(num_qubits, options.precision)
        self._max_states = max(1, min(options.max_branches, states))

    def begin(self) -> None:
        """One state again; the steps go on."""
        self._live = 1

    def step(self, steps: int) -> None:
        """Raises TooManySteps."""
        self.steps += steps
        if self.steps > self._max_steps:
            raise TooManySteps(
                f"the run needs more than {self._max_steps} operations (max_steps) over its"
                f" {self.peak} branches; a pass of a `for` counts as {FOR_STEPS}, of a"
                f" `while` as {WHILE_STEPS}",
                hint="see whether every loop ends; else take fewer shots or passes, or measure less"
                " on the way",
            )

    def grow(self) -> None:
        """One more state. Raises TooManyBranches."""
        self._live += 1
        self.peak = max(self.peak, self._live)
        if self._live > self._max_states:
            raise TooManyBranches(
                f"more than {self._max_states} distinct states at once",
                hint="ask for counts with shots (they run in groups), or raise max_branches",
            )

    def shrink(self) -> None:
        """One state less."""
        self._live -= 1
