"""Dynamic circuits: what happens on the way splits the states there are, and equal ones merge.

There are as many states as there are distinct ones, not distinct histories. All branches go through
a block together, pass by pass, so how often each open loop has begun anew is one list of numbers
for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.base import RunOptions
from simulators.circuit.ir import Circuit, record_words
from simulators.draws import draw_number
from simulators.sampling import words
from simulators.statevector.branch import Branch
from simulators.statevector.budget import FOR_STEPS, WHILE_STEPS, Budget
from simulators.statevector.collapse import Collapse
from simulators.statevector.items import (
    Break,
    Continue,
    For,
    Gates,
    If,
    Item,
    Measure,
    Reset,
    Store,
    Switch,
    Unitary,
    While,
)
from simulators.statevector.journey import Way, arrays_of, digest
from simulators.statevector.merging import Merger
from simulators.statevector.schedule import Schedule
from simulators.statevector.states import States
from simulators.statevector.sweeps import Sweeps

# In an exact run a loop forgets records of less weight: what would leave it later is not seen in
# any result, and a loop that ends with certainty only in the limit ends.
LEAST_WEIGHT = 1e-15
_SLOWEST_S = 20e-9  # one operation on one amplitude takes longer nowhere


class _Loop:
    """A loop that is open: passes behind it, and the branches that left this pass early."""

    __slots__ = ("broken", "continued", "passes")

    def __init__(self) -> None:
        self.passes = 0
        self.broken: list[Branch] = []
        self.continued: list[Branch] = []


class Walk:
    """One way through a schedule, of some shots of one binding, or exactly."""

    def __init__(
        self,
        states: States,
        circuit: Circuit,
        schedule: Schedule,
        params: NDArray[np.float64],
        key: tuple[int, int],
        options: RunOptions,
    ) -> None:
        """`key`: (seed, binding)."""
        self._states = states
        self._schedule = schedule
        self._options = options
        self._num_qubits = circuit.num_qubits
        self._floats = [passes.floats(circuit, params) for passes in schedule.stretches]
        self._budget = Budget(states.most(circuit.num_qubits, options), options)
        self._merger = Merger(states, self._budget, options.precision)
        self._collapse = Collapse(states, self._budget, key, options.precision)
        self._loops: list[_Loop] = []
        self._words = words(circuit.num_clbits)
        self._all_words = record_words(circuit)

    @property
    def peak(self) -> int:
        """The most states held at once."""
        return self._budget.peak

    @property
    def passes(self) -> int:
        """Passes over a large state, where nothing branches."""
        tables = [stretch.table for stretch in self._schedule.stretches]
        swept = sum(len(table.live) for table in tables if isinstance(table, Sweeps))
        return swept + sum(isinstance(item, Unitary) for item in self._schedule.items)

    def may_last(self, seconds: float) -> bool:
        """Could so long a time go by, on the slowest machine, before it has come to its end?"""
        tables = [stretch.table for stretch in self._schedule.stretches]
        steps = sum(len(table.ops) for table in tables if isinstance(table, Sweeps))
        steps += sum(
            1 << item.dense.wires.size for item in self._schedule.items if isinstance(item, Unitary)
        )
        return (steps << self._num_qubits) * _SLOWEST_S >= seconds

    def way(self) -> Way:
        """What a state goes through, where nothing branches."""
        schedule, options = self._schedule, self._options
        tables = [stretch.table for stretch in schedule.stretches]
        arrays = [each for table in tables for each in arrays_of(table)]
        where = [item.dense.wires for item in schedule.items if isinstance(item, Unitary)]
        order = [type(item).__name__ for item in schedule.items]
        found = digest(
            [*arrays, *self._floats, *schedule.matrices, *where],
            order,
            self._num_qubits,
            options.precision,
        )
        return Way(found, self.passes)

    def start(self, branch: Branch) -> list[Branch]:
        """Run the whole schedule from one branch. Raises TooManyBranches, TooManySteps, Stopped."""
        self._budget.begin()
        self._loops.clear()
        variables = self._all_words > self._words
        if variables:
            branch.widen(self._all_words)
        branches = self._run(self._schedule.items, [branch])
        if variables:
            for branch in branches:
                branch.narrow(self._words)
        return branches

    def _run(self, items: tuple[Item, ...], branches: list[Branch]) -> list[Branch]:
        """The branches that come to the end of a block."""
        for item in items:
            self._states.check()
            if not branches:
                break
            branches = self._one(item, branches)
        return branches

    def _one(self, item: Item, branches: list[Branch]) -> list[Branch]:
        if isinstance(item, Gates):
            self._budget.step(len(branches) * item.passes.operations)
            for branch in branches:
                self._states.apply(branch.state, item.passes.table, self._floats[item.number])
            return branches
        if isinstance(item, For | While):
            return self._loop(item, branches)
        if isinstance(item, Break | Continue):
            loop = self._loops[-1]
            (loop.broken if isinstance(item, Break) else loop.continued).extend(branches)
            return []
        self._budget.step(len(branches))
        if isinstance(item, Measure | Reset):
            return self._measure(item, branches)
        if isinstance(item, If):
            return self._if(item, branches)
        if isinstance(item, Switch):
            return self._switch(item, branches)
        for branch in branches:
            if isinstance(item, Store):
                item.expression.store(branch.records)
            else:
                self._states.multiply(branch.state, item.dense)
        return branches

    def _measure(self, item: Measure | Reset, branches: list[Branch]) -> list[Branch]:
        draw = draw_number(item.op, [loop.passes for loop in self._loops])
        after: list[Branch] = []
        for branch in branches:
            self._states.check()
            after += self._collapse.split(item, branch, draw)
        return self._merger.merge(after)

    def _if(self, item: If, branches: list[Branch]) -> list[Branch]:
        no, yes = self._parted([item.condition.truths(b.records) for b in branches], branches, 2)
        return self._merger.merge(self._run(item.then, yes) + self._run(item.otherwise, no))

    def _switch(self, item: Switch, branches: list[Branch]) -> list[Branch]:
        last = len(item.blocks) - 1
        which = []
        for branch in branches:
            values, inverse = item.target.values(branch.records)
            which.append(np.array([item.chosen.get(value, last) for value in values])[inverse])
        after: list[Branch] = []
        for block, part in zip(item.blocks, self._parted(which, branches, last + 1), strict=True):
            after += self._run(block, part)
        return self._merger.merge(after)

    def _loop(self, item: For | While, branches: list[Branch]) -> list[Branch]:
        loop = _Loop()
        self._loops.append(loop)
        done: list[Branch] = []
        while branches and not (isinstance(item, For) and loop.passes == item.count):
            self._budget.step(FOR_STEPS if isinstance(item, For) else WHILE_STEPS)
            if isinstance(item, While):
                held = [item.condition.truths(branch.records) for branch in branches]
                over, branches = self._parted(held, branches, 2)
                done = self._merger.merge(done + over) if over else done
            branches = self._run(item.body, self._heavy(branches))
            if loop.broken:
                done = self._merger.merge(done + loop.broken)
            if loop.continued:
                branches = self._merger.merge(branches + loop.continued)
            loop.broken, loop.continued = [], []
            loop.passes += 1
        self._loops.pop()
        return self._merger.merge(done + branches) if done else branches

    def _parted(
        self,
        which: Sequence[NDArray[Any]],
        branches: list[Branch],
        count: int,
    ) -> list[list[Branch]]:
        """The branches by what their rows are to do: which[k][row], 0 .. count - 1."""
        parts: list[list[Branch]] = [[] for _ in range(count)]
        for branch, chosen in zip(branches, which, strict=True):
            found = np.flatnonzero(np.bincount(chosen, minlength=count)).tolist()
            if len(found) == 1:
                parts[found[0]].append(branch)
                continue
            for part in found[1:]:
                self._budget.grow()
                rows = branch.rows(chosen == part)
                parts[part].append(Branch(self._states.copied(branch.state), *rows))
            branch.records, branch.tags = branch.rows(chosen == found[0])
            parts[found[0]].append(branch)
        return parts

    def _heavy(self, branches: list[Branch]) -> list[Branch]:
        """The branches without the records of an exact run that nobody would miss."""
        kept: list[Branch] = []
        for branch in branches:
            if branch.exact and branch.tags.min() < LEAST_WEIGHT:
                branch.records, branch.tags = branch.rows(branch.tags >= LEAST_WEIGHT)
            if branch.tags.size:
                kept.append(branch)
            else:
                self._budget.shrink()
        return kept
