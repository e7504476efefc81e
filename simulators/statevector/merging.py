"""Branches whose states are equal become one.

Two states are equal if they differ by at most TOLERANCE in norm, up to a global phase: far above
rounding and far below what 2**31 shots could tell.
"""

from __future__ import annotations

import numpy as np

from simulators.errors import TooManyBranches
from simulators.statevector.branches import Branches
from simulators.statevector.budget import Budget

TOLERANCE = {"double": 1e-10, "single": 1e-5}
MAX_ROWS = 1 << 22  # classical records of an exact run

_SKETCHES = {"double": 1e-6, "single": 1e-3}  # states this far apart in their sketch are not equal


class Merger:
    """Merges branches of one run."""

    def __init__(self, budget: Budget, precision: str) -> None:
        self._budget = budget
        self._tolerance = TOLERANCE[precision]
        self._near = _SKETCHES[precision]

    def merge(self, branches: Branches) -> Branches:
        """One branch for each distinct state."""
        if len(branches) < 2:
            return branches
        into = branches.ensemble.equals(branches.states, self._near, self._tolerance)
        gone = into != np.arange(into.size)
        if gone.any():
            branches.ensemble.release(branches.states[gone])
            self._budget.shrink(int(gone.sum()))
            branches = branches.merged(into)
        if branches.exact and branches.tags.size > MAX_ROWS:
            raise TooManyBranches(
                f"more than {MAX_ROWS} distinct classical records",
                hint="ask for counts with shots instead of exact probabilities",
            )
        return branches
