"""Dynamic circuits: each measurement splits the states there are, and equal states are merged.

A branch is one quantum state and the shots (or, in exact runs, the classical records) that are in
it. The record is kept for each shot, not for each branch, so branches merge whenever their states
are equal up to a global phase, whatever was measured on the way: there are as many states as there
are distinct ones, not distinct histories.

Two states are equal if they differ by at most TOLERANCE in norm; an outcome whose probability is
below CERTAIN never happens. Both are far above rounding and far below what 2**31 shots could tell.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.base import RunOptions
from simulators.catalog import state_bytes
from simulators.circuit.ir import Circuit
from simulators.errors import OutOfMemory, TooManyBranches, TooManySteps
from simulators.philox import uniforms
from simulators.sampling import tally
from simulators.statevector.reduce import ODDS, SKETCH, block_sums, project, same, total
from simulators.statevector.schedule import Gates, If, Item, Measure, Reset, Schedule
from simulators.statevector.state import PHYSICAL_BYTES, State, Sweeper

TOLERANCE = {"double": 1e-10, "single": 1e-5}
CERTAIN = {"double": 1e-15, "single": 1e-9}
_SKETCHES = {"double": 1e-6, "single": 1e-3}  # states this far apart in their sketch are not equal
MAX_ROWS = 1 << 22  # classical records of an exact run


Tags = NDArray[Any]  # int64 shot numbers, ascending; or float64 weights


class Branch:
    """A state, and the rows in it: classical records with shot numbers, or with weights."""

    __slots__ = ("records", "state", "tags")

    def __init__(self, state: State, records: NDArray[np.uint64], tags: Tags) -> None:
        self.state = state
        self.records = records  # [rows, words]
        self.tags = tags  # [rows]

    @property
    def exact(self) -> bool:
        """Whether the rows carry weights, not shots."""
        return self.tags.dtype == np.float64


class Walk:
    """One way through a schedule, of some shots of one binding, or exactly."""

    def __init__(
        self,
        sweeper: Sweeper,
        circuit: Circuit,
        schedule: Schedule,
        params: NDArray[np.float64],
        key: tuple[int, int],
        options: RunOptions,
    ) -> None:
        self.peak = 1  # most states held at once
        self.steps = 0
        self._sweeper = sweeper
        self._schedule = schedule
        self._floats = [passes.floats(circuit, params) for passes in schedule.stretches]
        self._key = key  # (seed, binding)
        self._options = options
        self._live = 1
        self._limit = _limit(circuit, options)

    def start(self, branch: Branch) -> list[Branch]:
        """Run the whole schedule from one branch. Raises TooManyBranches beyond the limit."""
        self._live = 1
        return self._run(self._schedule.items, [branch])

    def _run(self, items: tuple[Item, ...], branches: list[Branch]) -> list[Branch]:
        for item in items:
            self._sweeper.check()
            if not branches:
                break
            if isinstance(item, Gates):
                self._count(len(branches) * (item.passes.last - item.passes.first))
                for branch in branches:
                    self._sweeper.apply(branch.state, item.passes, self._floats[item.number])
            elif isinstance(item, If):
                branches = self._if(item, branches)
            else:
                self._count(len(branches))
                branches = self._collapse(item, branches)
        return branches

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > self._options.max_steps:
            raise TooManySteps(
                f"the run needs more than {self._options.max_steps} operations (max_steps)"
                f" over its {self.peak} branches",
                hint="take fewer shots, raise max_steps, or measure less on the way",
            )

    def _grow(self) -> None:
        self._live += 1
        self.peak = max(self.peak, self._live)
        if self._live > self._limit:
            raise TooManyBranches(
                f"more than {self._limit} distinct states at once",
                hint="ask for counts with shots (they run in groups), or raise max_branches",
            )

    def _if(self, item: If, branches: list[Branch]) -> list[Branch]:
        yes: list[Branch] = []
        no: list[Branch] = []
        for branch in branches:
            taken = item.condition.of(branch.records)
            if taken.all():
                yes.append(branch)
            elif not taken.any():
                no.append(branch)
            else:
                self._grow()
                yes.append(Branch(_copy(branch.state), branch.records[taken], branch.tags[taken]))
                branch.records, branch.tags = branch.records[~taken], branch.tags[~taken]
                no.append(branch)
        return self._merge(self._run(item.then, yes) + self._run(item.otherwise, no))

    def _collapse(self, item: Measure | Reset, branches: list[Branch]) -> list[Branch]:
        after: list[Branch] = []
        for branch in branches:
            self._sweeper.check()
            after += self._split(item, branch)
        return self._merge(after)

    def _split(self, item: Measure | Reset, branch: Branch) -> list[Branch]:
        """The branches of outcome 0 and 1, as far as they have rows."""
        odds = total(block_sums(self._sweeper, ODDS, branch.state, qubit=item.qubit))
        least = CERTAIN[self._options.precision] * sum(odds)
        rows = self._rows(item, branch, odds, least)
        both = rows[0][1].size > 0 and rows[1][1].size > 0
        found: list[Branch] = []
        for outcome in (1, 0):
            records, tags = rows[outcome]
            if not tags.size:
                continue
            state = branch.state
            if both and outcome == 1:
                self._grow()
                state = _blank(state)
            move = isinstance(item, Reset) or item.clear
            if outcome == 1 or odds[1] > 0.0:
                project(
                    self._sweeper,
                    branch.state,
                    state,
                    qubit=item.qubit,
                    outcome=outcome,
                    factor=1.0 / math.sqrt(odds[outcome]),
                    move=move,
                )
            found.append(Branch(state, records, tags))
        return found

    def _rows(
        self, item: Measure | Reset, branch: Branch, odds: tuple[float, float], least: float
    ) -> list[tuple[NDArray[np.uint64], Tags]]:
        """(records, tags) of outcome 0 and of outcome 1."""
        if branch.exact:
            shares = [odds[k] / sum(odds) if odds[k] > least else 0.0 for k in (0, 1)]
            none = branch.tags[:0]
            tags: list[Tags] = [branch.tags * share if share else none for share in shares]
            records = [branch.records[: part.size].copy() for part in tags]
        else:
            draws = np.empty(branch.tags.size)
            uniforms(*self._key, 1 + item.op, branch.tags, draws)
            zero = draws * sum(odds) < odds[0]
            if odds[0] <= least:
                zero[:] = False
            elif odds[1] <= least:
                zero[:] = True
            tags = [branch.tags[zero], branch.tags[~zero]]
            records = [branch.records[zero], branch.records[~zero]]
        if isinstance(item, Measure):
            bit = np.uint64(1) << np.uint64(item.clbit & 63)
            records[0][:, item.clbit >> 6] &= ~bit
            records[1][:, item.clbit >> 6] |= bit
        return list(zip(records, tags, strict=True))

    def _merge(self, branches: list[Branch]) -> list[Branch]:
        """One branch for each distinct state."""
        if len(branches) < 2:
            return branches
        sketches = [self._sketch(branch.state) for branch in branches]
        near = _SKETCHES[self._options.precision]
        kept: list[tuple[float, Branch]] = []
        for at in np.argsort(sketches, kind="stable").tolist():
            branch = branches[at]
            for other_sketch, other in reversed(kept):
                if sketches[at] - other_sketch > near:
                    kept.append((sketches[at], branch))
                    break
                if self._same(other, branch):
                    _join(other, branch)
                    self._live -= 1
                    break
            else:
                kept.append((sketches[at], branch))
        if sum(branch.tags.size for _, branch in kept if branch.exact) > MAX_ROWS:
            raise TooManyBranches(
                f"more than {MAX_ROWS} distinct classical records",
                hint="ask for counts with shots instead of exact probabilities",
            )
        return [branch for _, branch in kept]

    def _same(self, one: Branch, two: Branch) -> bool:
        tolerance = TOLERANCE[self._options.precision]
        return same(self._sweeper, one.state, two.state, tolerance)

    def _sketch(self, state: State) -> float:
        x, y = total(block_sums(self._sweeper, SKETCH, state))
        return x * x + y * y


def _join(one: Branch, two: Branch) -> None:
    """Move the rows of `two` into `one`."""
    records = np.concatenate((one.records, two.records))
    if one.exact:
        one.records, one.tags = tally(records, np.concatenate((one.tags, two.tags)))
        return
    tags = np.concatenate((one.tags, two.tags))
    order = np.argsort(tags, kind="stable")
    one.records, one.tags = records[order], tags[order]


def _limit(circuit: Circuit, options: RunOptions) -> int:
    room = options.memory_bytes or PHYSICAL_BYTES // 4
    states = room // state_bytes(circuit.num_qubits, options.precision)
    return max(1, min(options.max_branches, states))


def _copy(state: State) -> State:
    try:
        return State(state.amplitudes.copy())
    except MemoryError as error:
        raise _no_room(state) from error


def _blank(state: State) -> State:
    try:
        return State(np.empty_like(state.amplitudes))
    except MemoryError as error:
        raise _no_room(state) from error


def _no_room(state: State) -> OutOfMemory:
    return OutOfMemory(
        f"no memory for another state of {state.amplitudes.nbytes / 2**30:.2f} GiB",
        hint="give RunOptions.memory_bytes, so that the shots run in groups that fit",
    )
