"""Branches whose states are equal become one.

Two states are equal if they differ by at most TOLERANCE in norm, up to a global phase: far above
rounding and far below what 2**31 shots could tell.
"""

from __future__ import annotations

import numpy as np

from simulators.errors import TooManyBranches
from simulators.statevector.branch import Branch
from simulators.statevector.budget import Budget
from simulators.statevector.numbers import same, total
from simulators.statevector.reduce import SKETCH
from simulators.statevector.state import State
from simulators.statevector.states import States

TOLERANCE = {"double": 1e-10, "single": 1e-5}
MAX_ROWS = 1 << 22  # classical records of an exact run

_SKETCHES = {"double": 1e-6, "single": 1e-3}  # states this far apart in their sketch are not equal


class Merger:
    """Merges branches of one run."""

    def __init__(self, states: States, budget: Budget, precision: str) -> None:
        self._states = states
        self._budget = budget
        self._tolerance = TOLERANCE[precision]
        self._near = _SKETCHES[precision]

    def merge(self, branches: list[Branch]) -> list[Branch]:
        """One branch for each distinct state."""
        if len(branches) < 2:
            return branches
        sketches = [self._sketch(branch.state) for branch in branches]
        kept: list[tuple[float, Branch]] = []
        for at in np.argsort(sketches, kind="stable").tolist():
            branch = branches[at]
            for other_sketch, other in reversed(kept):
                if sketches[at] - other_sketch > self._near:
                    kept.append((sketches[at], branch))
                    break
                if same(self._states, other.state, branch.state, self._tolerance):
                    other.join(branch)
                    self._budget.shrink()
                    break
            else:
                kept.append((sketches[at], branch))
        if sum(branch.tags.size for _, branch in kept if branch.exact) > MAX_ROWS:
            raise TooManyBranches(
                f"more than {MAX_ROWS} distinct classical records",
                hint="ask for counts with shots instead of exact probabilities",
            )
        return [branch for _, branch in kept]

    def _sketch(self, state: State) -> float:
        x, y = total(self._states.block_sums(SKETCH, state))
        return x * x + y * y
