"""Exact evolution of a program: one state for each distinct classical record.

States with equal records are added, since density matrices add: a dynamic circuit needs as many
states as it has different records of the bits that were measured before its end.
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.expressions import Expression
from simulators.control import RunControl, ThreadPool
from simulators.densitymatrix.evolution import SCRATCH, apply_blocks, populations, tiles
from simulators.densitymatrix.fusion import Blocks
from simulators.densitymatrix.program import (
    Condition,
    Measurement,
    Program,
    Segment,
    Step,
    WideGate,
)
from simulators.densitymatrix.wide_gates import apply_wide
from simulators.engine import RunOptions
from simulators.errors import TooManyBranches

State = NDArray[np.float64]
Branches = dict[int, State]  # by record; the weight of a state is its first entry

_LEAST = 1e-16  # weight of a branch; a smaller one is rounding
_THREADED_QUBITS = 9  # narrower states are evolved by one thread
_GRAIN = 512  # least tiles of a range
_STATES_BYTES = 4 * 2**30  # limit of all branches if the request names none


class ExactEvolution:
    """Runs the steps of one program for one binding."""

    def __init__(
        self,
        program: Program,
        expressions: tuple[Expression, ...],
        params: NDArray[np.float64],
        options: RunOptions,
        control: RunControl,
        pool: ThreadPool,
    ) -> None:
        self._program = program
        self._expressions = expressions
        self._params = params
        self._control = control
        self._pool = pool
        self._num_qubits = program.num_qubits
        self._blocks = Blocks(program.num_qubits, program.longest)
        self._scratch = np.empty((pool.size, SCRATCH))
        size = 8 * 4**program.num_qubits
        memory = options.memory_bytes or _STATES_BYTES
        self._most = max(1, min(options.max_branches, memory // size))

    def run(self) -> Branches:
        """The states at the end. Raises TooManyBranches and Stopped."""
        state = np.zeros(4**self._num_qubits)
        populations(state, self._num_qubits, 1, state[:0])
        return self._steps(self._program.steps, {0: state})

    def _steps(self, steps: tuple[Step, ...], branches: Branches) -> Branches:
        for step in steps:
            self._control.check()
            if isinstance(step, Segment):
                self._segment(step, branches)
            elif isinstance(step, WideGate):
                ptm = step.ptm(self._params)
                for record, state in branches.items():
                    branches[record] = apply_wide(state, self._num_qubits, ptm, step.qubits)
            elif isinstance(step, Measurement):
                branches = self._measure(step, branches)
            else:
                branches = self._condition(step, branches)
        return branches

    def _segment(self, segment: Segment, branches: Branches) -> None:
        if not branches:
            return
        blocks, n = self._blocks, self._num_qubits
        program = self._program
        blocks.fill(segment.items, self._params, program.gates, program.channels)
        total = tiles(n)
        for state in branches.values():
            if n < _THREADED_QUBITS or self._pool.size == 1:
                self._apply(state, 0, blocks.count, 0, total, 0)
                self._control.check()
                continue
            for block in range(blocks.count):
                self._pool.run(
                    functools.partial(self._apply, state, block, block + 1),
                    total,
                    max(_GRAIN, -(-total // (4 * self._pool.size))),
                )

    def _apply(
        self, state: State, block: int, end: int, first: int, last: int, thread: int
    ) -> None:
        blocks = self._blocks
        apply_blocks(
            state,
            self._num_qubits,
            blocks.low,
            blocks.high,
            blocks.mats,
            block,
            end,
            first,
            last,
            self._scratch[thread],
            self._control.flag,
        )

    def _measure(self, step: Measurement, branches: Branches) -> Branches:
        """Split by the true outcome, then add up by the recorded one."""
        entries: Branches = {}
        for record, state in branches.items():
            parts = state.reshape(-1, 4, 4**step.qubit)
            for true in range(2):
                sign = 1.0 - 2.0 * true
                kept = 0.5 * (parts[:, 0] + sign * parts[:, 3])
                if not kept[0, 0] > _LEAST:
                    continue
                for read in range(2):
                    weight = step.confusion[read, true]
                    if weight == 0.0:
                        continue
                    key = record & ~(1 << step.clbit) | read << step.clbit
                    into = entries.get(key)
                    if into is None:
                        self._check(len(entries) + 1)
                        into = entries[key] = np.zeros_like(state)
                    view = into.reshape(-1, 4, 4**step.qubit)
                    view[:, 0] += weight * kept
                    view[:, 3] += sign * weight * kept
        return entries

    def _check(self, states: int) -> None:
        if states > self._most:
            raise TooManyBranches(
                f"more than {self._most} distinct classical records, each with a density matrix",
                hint="take fewer measurements before the end, raise max_branches or memory, or"
                " engine='statevector', which runs trajectories",
            )

    def _condition(self, step: Condition, branches: Branches) -> Branches:
        expression = self._expressions[step.expression]
        yes: Branches = {}
        no: Branches = {}
        for record, state in branches.items():
            (yes if expression.evaluate(record) else no)[record] = state
        result = self._steps(step.then, yes) if yes else {}
        for record, state in (self._steps(step.otherwise, no) if no else {}).items():
            if record in result:
                result[record] += state
            else:
                self._check(len(result) + 1)
                result[record] = state
        return result


class Distribution(msgspec.Struct, frozen=True, eq=False):
    """Probabilities of all basis states in all branches."""

    records: tuple[int, ...]  # ascending
    probs: NDArray[np.float64]  # [records, 2^n]


def distribution(branches: Branches, num_qubits: int) -> Distribution:
    """Populations of each branch; rounding errors below 0 are set to 0."""
    records = tuple(sorted(branches))
    probs = np.empty((len(records), 1 << num_qubits))
    for row, record in zip(probs, records, strict=True):
        populations(branches[record], num_qubits, 0, row)
    return Distribution(records, np.maximum(probs, 0.0, out=probs))
