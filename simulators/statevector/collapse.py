"""One measurement or reset of one branch: its outcomes, and the rows that found them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from simulators.philox import uniforms
from simulators.statevector.branch import Branch, Part, Tags
from simulators.statevector.budget import Budget
from simulators.statevector.items import Measure, Reset
from simulators.statevector.numbers import total
from simulators.statevector.reduce import ODDS
from simulators.statevector.states import States

CERTAIN = {"double": 1e-15, "single": 1e-9}  # an outcome less probable than this never happens


class Collapse:
    """Splits branches; `key` is (seed, binding)."""

    def __init__(
        self, states: States, budget: Budget, key: tuple[int, int], precision: str
    ) -> None:
        self._states = states
        self._budget = budget
        self._key = key
        self._certain = CERTAIN[precision]

    def split(self, item: Measure | Reset, branch: Branch, draw: int) -> list[Branch]:
        """The branches of outcome 1 and 0, as far as they have rows."""
        odds = total(self._states.block_sums(ODDS, branch.state, qubit=item.qubit))
        parts = self._parts(item, branch, odds, draw)
        both = parts[0][1].size > 0 and parts[1][1].size > 0
        found: list[Branch] = []
        for outcome in (1, 0):
            records, tags = parts[outcome]
            if not tags.size:
                continue
            state = branch.state
            if both and outcome == 1:
                self._budget.grow()
                state = self._states.blank(state)
            move = isinstance(item, Reset) or item.clear
            if outcome == 1 or odds[1] > 0.0:
                self._states.project(
                    branch.state,
                    state,
                    qubit=item.qubit,
                    outcome=outcome,
                    factor=1.0 / math.sqrt(odds[outcome]),
                    move=move,
                )
            found.append(Branch(state, records, tags))
        return found

    def _parts(
        self, item: Measure | Reset, branch: Branch, odds: tuple[float, float], draw: int
    ) -> tuple[Part, Part]:
        """The rows of outcome 0 and of outcome 1, with what was measured written."""
        least = self._certain * sum(odds)
        if branch.exact:
            shares = [odds[k] / sum(odds) if odds[k] > least else 0.0 for k in (0, 1)]
            none: Tags = branch.tags[:0]
            tags = [branch.tags * share if share else none for share in shares]
            parts = tuple((branch.records[: part.size].copy(), part) for part in tags)
        else:
            zero = self._zeros(branch, odds, least, draw)
            parts = branch.rows(zero), branch.rows(~zero)
        if isinstance(item, Measure):
            bit = np.uint64(1) << np.uint64(item.clbit & 63)
            parts[0][0][:, item.clbit >> 6] &= ~bit
            parts[1][0][:, item.clbit >> 6] |= bit
        return parts[0], parts[1]

    def _zeros(
        self, branch: Branch, odds: tuple[float, float], least: float, draw: int
    ) -> NDArray[np.bool_]:
        draws = np.empty(branch.tags.size)
        uniforms(*self._key, draw, branch.tags, draws)
        zero: NDArray[np.bool_] = draws * sum(odds) < odds[0]
        if odds[0] <= least:
            zero[:] = False
        elif odds[1] <= least:
            zero[:] = True
        return zero
