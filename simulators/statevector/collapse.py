"""One measurement or reset of all branches: its outcomes, and the rows that found them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.philox import uniforms
from simulators.statevector.branches import Branches, Numbers
from simulators.statevector.budget import Budget
from simulators.statevector.items import Measure, Reset

CERTAIN = {"double": 1e-15, "single": 1e-9}  # an outcome less probable than this never happens


class Collapse:
    """Splits branches; `key` is (seed, binding)."""

    def __init__(self, budget: Budget, key: tuple[int, int], precision: str) -> None:
        self._budget = budget
        self._key = key
        self._certain = CERTAIN[precision]

    def split(self, item: Measure | Reset, branches: Branches, draw: int) -> Branches:
        """The branches of outcome 1, then those of outcome 0, as far as they have rows."""
        odds = branches.ensemble.odds(branches.states, item.qubit)
        if branches.exact:
            rows, outcomes, tags = self._weighted(branches, odds)
            branch_of, records = branches.branch_of[rows], branches.records[rows]
        else:
            outcomes = self._drawn(branches, odds, draw)
            branch_of, records, tags = branches.branch_of, branches.records, branches.tags
        if isinstance(item, Measure):
            bit = np.uint64(1) << np.uint64(item.clbit & 63)
            column = records[:, item.clbit >> 6]
            column &= ~bit
            column |= outcomes.view(np.uint8) * bit
        # Branches after it: outcome 1 of all that have it, then outcome 0.
        size = len(branches)
        cell = branch_of + np.where(outcomes, 0, size)
        present = np.bincount(cell, minlength=2 * size) > 0
        number = np.cumsum(present) - 1
        ones, zeros = np.flatnonzero(present[:size]), np.flatnonzero(present[size:])
        states = self._project(item, branches, odds, ones, zeros)
        return Branches(branches.ensemble, states, number[cell], records, tags)

    def _project(
        self,
        item: Measure | Reset,
        branches: Branches,
        odds: NDArray[np.float64],
        ones: Numbers,
        zeros: Numbers,
    ) -> Numbers:
        """The states of these branches with outcome 1 and of those with outcome 0."""
        ensemble, states = branches.ensemble, branches.states
        move = isinstance(item, Reset) or item.clear
        both = np.zeros(len(branches), bool)
        both[zeros] = True
        both = both[ones]
        into = states[ones]
        if both.any():
            self._budget.grow(int(both.sum()))
            into[both] = ensemble.blank(states[ones][both])
        for outcome, which, target in ((1, ones, into), (0, zeros, states[zeros])):
            if outcome == 0:  # a qubit that is 0 already stays as it is
                changes = odds[which, 1] > 0.0
                which, target = which[changes], target[changes]
            if which.size:
                ensemble.project(
                    states[which],
                    target,
                    qubit=item.qubit,
                    outcome=outcome,
                    factors=1.0 / np.sqrt(odds[which, outcome]),
                    move=move,
                )
        return np.concatenate((into, states[zeros]))

    def _weighted(
        self, branches: Branches, odds: NDArray[np.float64]
    ) -> tuple[Numbers, NDArray[np.bool_], NDArray[np.float64]]:
        """Of an exact run: rows, whether they find 1, and their weights."""
        sums = odds.sum(axis=1, keepdims=True)
        shares = np.where(odds > self._certain * sums, odds / sums, 0.0)[branches.branch_of]
        ones, zeros = np.flatnonzero(shares[:, 1]), np.flatnonzero(shares[:, 0])
        rows = np.concatenate((ones, zeros))
        outcomes = np.arange(rows.size) < ones.size
        return rows, outcomes, branches.tags[rows] * shares[rows, outcomes.view(np.uint8)]

    def _drawn(self, branches: Branches, odds: NDArray[np.float64], draw: int) -> NDArray[np.bool_]:
        """Of a run of shots: whether each row finds 1."""
        draws = np.empty(branches.tags.size)
        uniforms(*self._key, draw, branches.tags, draws)
        sums = odds.sum(axis=1)
        limits = odds[:, 0].copy()  # a draw is less than the sum
        limits[odds[:, 1] <= self._certain * sums] = np.inf
        limits[odds[:, 0] <= self._certain * sums] = -np.inf
        found: NDArray[np.bool_] = draws * sums[branches.branch_of] >= limits[branches.branch_of]
        return found
