"""Interpreter of dynamic circuits: measurements split branches, equal states are merged.

The number of states is that of distinct states, not of histories. All branches execute a block
together, iteration by iteration, so one list of iteration counts of the open loops serves all of
them, and an operation is a few calls for any number of branches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit, num_words, record_words
from simulators.circuit.noise import Readout
from simulators.engine import RunOptions
from simulators.execution.rng import draw_number
from simulators.statevector.backend.protocol import Ensemble
from simulators.statevector.checkpoint import Evolution, digest
from simulators.statevector.dynamic.branches import (
    FOR_STEPS,
    WHILE_STEPS,
    Branches,
    BranchMerger,
    Budget,
    Projector,
)
from simulators.statevector.dynamic.noise_splitter import NoiseSplitter, RecordedReadout
from simulators.statevector.program import (
    Break,
    Continue,
    For,
    Gates,
    If,
    Instruction,
    Measure,
    Noise,
    Program,
    Reset,
    Store,
    Switch,
    Unitary,
    While,
)

# In an exact run a loop drops records of smaller weight: their later contributions are not visible
# in any result, and a loop whose end is certain only in the limit ends.
LEAST_WEIGHT = 1e-15
_SLOWEST_S = 20e-9  # longest time of an operation on an amplitude, on any machine


class _Loop:
    """Open loop: number of finished passes, and the branches that left the current pass early."""

    __slots__ = ("broken", "continued", "passes")

    def __init__(self) -> None:
        self.passes = 0
        self.broken: list[Branches] = []
        self.continued: list[Branches] = []


class Interpreter:
    """One execution of a program, for some shots of one binding, or exactly."""

    def __init__(
        self,
        ensemble: Ensemble,
        circuit: Circuit,
        schedule: Program,
        params: NDArray[np.float64],
        key: tuple[int, int],
        options: RunOptions,
        readout: Readout | None = None,
    ) -> None:
        """Set up. `key`: (seed, binding); `readout`: error of measurements that are not final."""
        self._ensemble = ensemble
        self._schedule = schedule
        self._options = options
        self._num_qubits = circuit.num_qubits
        self._floats = [passes.floats(circuit, params) for passes in schedule.stretches]
        max_states = ensemble.states.max_live_states(circuit.num_qubits, options)
        self._budget = Budget(max_states, options)
        self._merger = BranchMerger(self._budget, options.precision)
        self._collapse = Projector(self._budget, key, options.precision)
        self._errors = NoiseSplitter(self._budget, key)
        self._readout = None if readout is None else RecordedReadout(readout, key)
        self._loops: list[_Loop] = []
        self._words = num_words(circuit.num_clbits)
        self._all_words = record_words(circuit)

    @property
    def peak(self) -> int:
        """Largest number of states held at once."""
        return self._budget.peak

    @property
    def passes(self) -> int:
        """Passes over a large state, without branching."""
        swept = sum(segment.num_sweeps for segment in self._schedule.stretches)
        return swept + sum(isinstance(item, Unitary) for item in self._schedule.items)

    def may_last(self, seconds: float) -> bool:
        """Return whether the run could take this time on the slowest machine."""
        steps = sum(segment.num_steps for segment in self._schedule.stretches)
        steps += sum(
            1 << item.dense.wires.size for item in self._schedule.items if isinstance(item, Unitary)
        )
        return (steps << self._num_qubits) * _SLOWEST_S >= seconds

    def way(self) -> Evolution:
        """Evolution of a state, without branching."""
        schedule, options = self._schedule, self._options
        arrays = [array for segment in schedule.stretches for array in segment.arrays()]
        where = [item.dense.wires for item in schedule.items if isinstance(item, Unitary)]
        order = [type(item).__name__ for item in schedule.items]
        result = digest(
            [*arrays, *self._floats, *schedule.matrices, *where],
            order,
            self._num_qubits,
            options.precision,
        )
        return Evolution(result, self.passes)

    def start(self, branches: Branches) -> Branches:
        """Run the whole program from one branch. Raises TooManyBranches, TooManySteps, Stopped."""
        self._budget.begin()
        self._loops.clear()
        variables = self._all_words > self._words
        if variables:
            branches.widen(self._all_words)
        branches = self._run(self._schedule.items, branches)
        if variables:
            branches.narrow(self._words)
        return branches

    def _run(self, items: tuple[Instruction, ...], branches: Branches) -> Branches:
        """Run a block; returns the branches that reach its end."""
        for item in items:
            self._ensemble.states.check()
            if not len(branches):
                break
            branches = self._apply_item(item, branches)
        return branches

    def _apply_item(self, item: Instruction, branches: Branches) -> Branches:
        if isinstance(item, Gates):
            self._budget.step(len(branches) * item.passes.operations)
            floats = self._floats[item.number]
            self._ensemble.apply(branches.states, item.passes, floats)
            return branches
        if isinstance(item, For | While):
            return self._loop(item, branches)
        if isinstance(item, Break | Continue):
            loop = self._loops[-1]
            (loop.broken if isinstance(item, Break) else loop.continued).append(branches)
            return branches.none()
        self._budget.step(len(branches))
        if isinstance(item, Measure | Reset):
            passes = [loop.passes for loop in self._loops]
            result = self._collapse.split(item, branches, draw_number(item.op, passes))
            if self._readout is not None and isinstance(item, Measure):
                self._readout.flip(item, result, passes)
            return self._merger.merge(result)
        if isinstance(item, Noise):
            return self._errors.split(item, branches, [loop.passes for loop in self._loops])
        if isinstance(item, If):
            no, yes = self._parted(item.condition.truths(branches.records), branches, 2)
            return self._merged(self._run(item.then, yes), self._run(item.otherwise, no))
        if isinstance(item, Switch):
            return self._switch(item, branches)
        if isinstance(item, Store):
            item.expression.store(branches.records)
        else:
            self._ensemble.multiply(branches.states, item.dense)
        return branches

    def _merged(self, *parts: Branches) -> Branches:
        return self._merger.merge(Branches.joined(parts))

    def _switch(self, item: Switch, branches: Branches) -> Branches:
        last = len(item.blocks) - 1
        values, inverse = item.target.values(branches.records)
        chosen = np.array([item.chosen.get(value, last) for value in values])[inverse]
        parts = self._parted(chosen, branches, last + 1)
        ends = [self._run(block, part) for block, part in zip(item.blocks, parts, strict=True)]
        return self._merged(*ends)

    def _loop(self, item: For | While, branches: Branches) -> Branches:
        loop = _Loop()
        self._loops.append(loop)
        done = branches.none()
        while len(branches) and not (isinstance(item, For) and loop.passes == item.count):
            self._budget.step(FOR_STEPS if isinstance(item, For) else WHILE_STEPS)
            if isinstance(item, While):
                held = item.condition.truths(branches.records)
                over, branches = self._parted(held, branches, 2)
                done = self._merged(done, over) if len(over) else done
            branches = self._run(item.body, self._heavy(branches))
            if loop.broken:
                done = self._merged(done, *loop.broken)
            if loop.continued:
                branches = self._merged(branches, *loop.continued)
            loop.broken, loop.continued = [], []
            loop.passes += 1
        self._loops.pop()
        return self._merged(done, branches) if len(done) else branches

    def _parted(
        self, chosen: NDArray[np.integer | np.bool_], branches: Branches, count: int
    ) -> list[Branches]:
        """Divide the branches by the next action of their rows: chosen[row], 0 .. count - 1."""
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
            self._budget.grow(int(copies.sum()))
            states[copies] = self._ensemble.copied(states[copies])
        number = np.cumsum(present, axis=1) - 1
        for part in parts:
            rows = chosen == part
            result[part] = Branches(
                self._ensemble,
                states[part, present[part]],
                number[part, branches.branch_of[rows]],
                branches.records[rows],
                branches.shots_or_weights[rows],
            )
        return result

    def _heavy(self, branches: Branches) -> Branches:
        """Drop the records of an exact run with negligible weight."""
        if (
            not branches.exact
            or not len(branches)
            or branches.shots_or_weights.min() >= LEAST_WEIGHT
        ):
            return branches
        rows = branches.shots_or_weights >= LEAST_WEIGHT
        present = np.bincount(branches.branch_of[rows], minlength=len(branches)) > 0
        gone = branches.states[~present]
        if gone.size:
            self._budget.shrink(gone.size)
            self._ensemble.release(gone)
        return Branches(
            self._ensemble,
            branches.states[present],
            (np.cumsum(present) - 1)[branches.branch_of[rows]],
            branches.records[rows],
            branches.shots_or_weights[rows],
        )
