"""Branches of a dynamic circuit: their records, budget, measurement and merging.

The classical record is kept for each shot, not for each branch, so branches can be merged whatever
was measured before, and the number of states is that of distinct states, not of histories. The
records of all branches are rows of one array. Variables follow the words of the clbits. Two states
are equal if they differ by at most TOLERANCE in norm, up to a global phase: far above rounding, and
far below what 2**31 shots could distinguish.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.dynamic.instructions import Measure, Reset
from simulators.engine import RunOptions
from simulators.errors import TooManyBranches, TooManySteps
from simulators.execution.packing import tally
from simulators.execution.philox import uniforms
from simulators.statevector.backend import protocol
from simulators.statevector.backend.protocol import Numbers
from simulators.statevector.backend.reductions import Projection

# Cost of a loop pass in operations, in addition to its body: a pass takes some 100 us or more for
# any state, and a `while` that never ends should be reported after seconds.
WHILE_STEPS = 1000
FOR_STEPS = 200


class Budget:
    """Counter of the states and operations of one run, over all branches."""

    def __init__(self, max_states: int, options: RunOptions) -> None:
        """Set up. `max_states`: number of states that fit into memory."""
        self.peak = 1  # most states held at once
        self.steps = 0
        self._live = 1
        self._max_steps = options.max_steps
        self._max_states = max(1, min(options.max_branches, max_states))
        self._bound = "max_branches" if options.max_branches <= max_states else "what memory holds"

    def begin(self) -> None:
        """Reset to one state; the operations stay counted."""
        self._live = 1

    def step(self, steps: int) -> None:
        """Count operations. Raises TooManySteps."""
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
        """Count new states. Raises TooManyBranches."""
        self._live += states
        if self._live <= self._max_states:
            self.peak = max(self.peak, self._live)
        else:
            text = f"more than {self._max_states} distinct states at once ({self._bound})"
            hint = "ask for counts with shots (they run in groups), or raise max_branches"
            raise TooManyBranches(text, hint=hint)

    def shrink(self, states: int) -> None:
        self._live -= states


Tags = NDArray[Any]  # int64 shot numbers; or float64 weights


class Branches(msgspec.Struct, eq=False):
    """Some branches of one run. Every branch has at least one row."""

    ensemble: protocol.Ensemble
    states: Numbers  # [branches]: number of each branch's state in the ensemble
    branch_of: Numbers  # [rows]: branch of each row, as an index into `states`
    records: NDArray[np.uint64]  # [rows, words]
    shots_or_weights: Tags  # [rows]

    @classmethod
    def single(
        cls, ensemble: protocol.Ensemble, state: int, records: NDArray[np.uint64], tags: Tags
    ) -> Branches:
        """Make one branch with all these rows."""
        return cls(ensemble, np.array([state]), np.zeros(len(records), np.int64), records, tags)

    @classmethod
    def joined(cls, parts: Sequence[Branches]) -> Branches:
        """Join the branches of these parts, at least one, which share an ensemble."""
        parts = [part for part in parts if len(part)] or list(parts[:1])
        if len(parts) == 1:
            return parts[0]
        begins = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
        return cls(
            parts[0].ensemble,
            np.concatenate([part.states for part in parts]),
            np.concatenate([p.branch_of + k for p, k in zip(parts, begins, strict=True)]),
            np.concatenate([part.records for part in parts]),
            np.concatenate([part.shots_or_weights for part in parts]),
        )

    def __len__(self) -> int:
        return self.states.size

    @property
    def exact(self) -> bool:
        """True if the rows carry weights, not shots."""
        return self.shots_or_weights.dtype == np.float64

    def none(self) -> Branches:
        """Empty branches of the same ensemble."""
        return Branches(
            self.ensemble, self.states[:0], self.branch_of[:0], self.records[:0],
            self.shots_or_weights[:0],
        )  # fmt: skip

    def each(self) -> Iterator[tuple[int, NDArray[np.uint64], Tags]]:
        """Yield state, records and tags of each branch."""
        if len(self) == 1:
            yield int(self.states[0]), self.records, self.shots_or_weights
            return
        order = np.argsort(self.branch_of, kind="stable")
        ends = np.cumsum(np.bincount(self.branch_of, minlength=len(self)))[:-1]
        for state, rows in zip(self.states.tolist(), np.split(order, ends), strict=True):
            yield state, self.records[rows], self.shots_or_weights[rows]

    def merged(self, into: Numbers) -> Branches:
        """Merge branch k into branch into[k], which keeps its state. Rows with weights and equal
        records are joined."""
        stays = into == np.arange(into.size)
        number = np.cumsum(stays) - 1
        result = Branches(
            self.ensemble, self.states[stays], number[into][self.branch_of], self.records,
            self.shots_or_weights,
        )  # fmt: skip
        result.tally()
        return result

    def tally(self) -> None:
        """Join the rows of a branch that carry weights and have equal records."""
        if not self.exact:
            return
        keys = np.concatenate((self.records, self.branch_of[:, None].view(np.uint64)), axis=1)
        keys, self.shots_or_weights = tally(keys, self.shots_or_weights)
        self.records = np.ascontiguousarray(keys[:, :-1])
        self.branch_of = np.ascontiguousarray(keys[:, -1]).view(np.int64)

    def widen(self, num_words: int) -> None:
        """Add words for variables to the records, all 0."""
        more = np.zeros((len(self.records), num_words - self.records.shape[1]), np.uint64)
        self.records = np.concatenate((self.records, more), axis=1)

    def narrow(self, num_words: int) -> None:
        """Remove the variables."""
        self.records = np.ascontiguousarray(self.records[:, :num_words])
        self.tally()


def parted(
    branches: Branches, chosen: NDArray[np.integer | np.bool_], count: int, budget: Budget
) -> list[Branches]:
    """Divide branches by the next action of their rows: chosen[row], 0 .. count - 1. Raises
    TooManyBranches."""
    size = len(branches)
    cell = chosen * size + branches.branch_of
    present = (np.bincount(cell, minlength=count * size) > 0).reshape(count, size)
    parts = np.flatnonzero(present.any(axis=1)).tolist()
    result = [branches.none()] * count
    if len(parts) <= 1:
        for part in parts:
            result[part] = branches
        return result
    # The first part with rows of a branch gets its state, the other parts get copies.
    states = np.tile(branches.states, (count, 1))
    copies = present & (np.cumsum(present, axis=0) > 1)
    if copies.any():
        budget.grow(int(copies.sum()))
        states[copies] = branches.ensemble.copied(states[copies])
    number = np.cumsum(present, axis=1) - 1
    for part in parts:
        rows = chosen == part
        result[part] = Branches(
            branches.ensemble, states[part, present[part]], number[part, branches.branch_of[rows]],
            branches.records[rows], branches.shots_or_weights[rows],
        )  # fmt: skip
    return result


# In an exact run a loop drops records of smaller weight: their later contributions are not visible
# in any result, and a loop whose end is certain only in the limit ends.
LEAST_WEIGHT = 1e-15


def without_light(branches: Branches, budget: Budget) -> Branches:
    """Drop the records of an exact run with negligible weight."""
    if not branches.exact or not len(branches) or branches.shots_or_weights.min() >= LEAST_WEIGHT:
        return branches
    rows = branches.shots_or_weights >= LEAST_WEIGHT
    present = np.bincount(branches.branch_of[rows], minlength=len(branches)) > 0
    gone = branches.states[~present]
    if gone.size:
        budget.shrink(gone.size)
        branches.ensemble.release(gone)
    return Branches(
        branches.ensemble, branches.states[present],
        (np.cumsum(present) - 1)[branches.branch_of[rows]], branches.records[rows],
        branches.shots_or_weights[rows],
    )  # fmt: skip


TOLERANCE = {"double": 1e-10, "single": 1e-5}
MAX_ROWS = 1 << 22  # classical records of an exact run

_SKETCHES = {"double": 1e-6, "single": 1e-3}  # states whose sketches differ by more are not equal


def check_records(count: int) -> None:
    """Raises TooManyBranches for more than MAX_ROWS records of an exact run."""
    if count > MAX_ROWS:
        hint = "ask for counts with shots instead of exact probabilities"
        raise TooManyBranches(f"more than {MAX_ROWS} distinct classical records", hint=hint)


class BranchMerger:
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
        if branches.exact:
            check_records(branches.shots_or_weights.size)
        return branches


CERTAIN = {"double": 1e-15, "single": 1e-9}  # less probable outcomes never occur


class Projector:
    """Measurement of branches; `key` is (seed, binding)."""

    def __init__(self, budget: Budget, key: tuple[int, int], precision: str) -> None:
        self._budget = budget
        self._key = key
        self._certain = CERTAIN[precision]

    def split(self, item: Measure | Reset, branches: Branches, draw: int) -> Branches:
        """Branches of outcome 1, then those of outcome 0, if they have rows."""
        probs = branches.ensemble.probs(branches.states, item.qubit)
        if branches.exact:
            sums = probs.sum(axis=1, keepdims=True)
            shares = np.where(probs > self._certain * sums, probs / sums, 0.0)[branches.branch_of]
            ones, zeros = np.flatnonzero(shares[:, 1]), np.flatnonzero(shares[:, 0])
            rows = np.concatenate((ones, zeros))
            outcomes = np.arange(rows.size) < ones.size
            tags = branches.shots_or_weights[rows] * shares[rows, outcomes.view(np.uint8)]
            branch_of, records = branches.branch_of[rows], branches.records[rows]
        else:
            draws = np.empty(branches.shots_or_weights.size)
            uniforms(*self._key, draw, branches.shots_or_weights, draws)
            sums = probs.sum(axis=1)
            limits = probs[:, 0].copy()  # a draw is less than the sum
            limits[probs[:, 1] <= self._certain * sums] = np.inf
            limits[probs[:, 0] <= self._certain * sums] = -np.inf
            outcomes = draws * sums[branches.branch_of] >= limits[branches.branch_of]
            branch_of, records = branches.branch_of, branches.records
            tags = branches.shots_or_weights
        if isinstance(item, Measure):
            bit = np.uint64(1) << np.uint64(item.clbit & 63)
            column = records[:, item.clbit >> 6]
            column &= ~bit
            column |= outcomes.view(np.uint8) * bit
        # Resulting branches: outcome 1 of all that have it, then outcome 0.
        size = len(branches)
        cell = branch_of + np.where(outcomes, 0, size)
        present = np.bincount(cell, minlength=2 * size) > 0
        number = np.cumsum(present) - 1
        states = self._project(item, branches, probs, present)
        return Branches(branches.ensemble, states, number[cell], records, tags)

    def _project(
        self, item: Measure | Reset, branches: Branches, probs: Tags, present: NDArray[np.bool_]
    ) -> Numbers:
        """States of the branches with outcome 1 and of those with outcome 0."""
        ensemble, states = branches.ensemble, branches.states
        ones, zeros = (np.flatnonzero(half) for half in present.reshape(2, -1))
        move = isinstance(item, Reset) or item.clear
        both = np.zeros(len(branches), bool)
        both[zeros] = True
        both = both[ones]
        into = states[ones]
        if both.any():
            self._budget.grow(int(both.sum()))
            into[both] = ensemble.blank(states[ones][both])
        for outcome, which, target in ((1, ones, into), (0, zeros, states[zeros])):
            if outcome == 0:  # a qubit in 0 is unchanged
                changes = probs[which, 1] > 0.0
                which, target = which[changes], target[changes]
            if which.size:
                projection = Projection(item.qubit, outcome, move)
                factors = 1.0 / np.sqrt(probs[which, outcome])
                ensemble.project(states[which], target, projection, factors)
        return np.concatenate((into, states[zeros]))
