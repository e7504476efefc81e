"""Histories of a dynamic circuit: one set of density operators for each record of outcomes.

A measurement before the end that is recorded divides a history in two, in which the operators are
projected on what was read, with readout errors. Counts draw the outcome of each shot, so that there
are as many histories as shots have different outcomes; values take all of them, with their
probabilities. Histories that differ are not joined again: a sum of truncated operators would have
the sum of their bonds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.densitymatrix.dmt.operators import DensityOperators
from simulators.densitymatrix.dmt.pair_maps import Maps
from simulators.densitymatrix.program import Measurement, Program, Segment
from simulators.dynamic.instructions import Branch
from simulators.dynamic.interpreter import Interpreter
from simulators.engine import OPERATIONS, RunControl, RunOptions, ThreadPool
from simulators.errors import OTHER_ENGINE, OutOfMemory, TooManyBranches

_LEAST = 1e-12  # probability of a history; smaller ones are rounding
_DEPHASED = np.diag([1.0, 0.0, 0.0, 1.0])
# Projections on 0 and 1 in the Pauli basis, I, X, Y, Z.
_OUTCOMES = np.zeros((2, 4, 4))
for _true, _sign in enumerate((1.0, -1.0)):
    _OUTCOMES[_true, 0, [0, 3]] = 0.5, 0.5 * _sign
    _OUTCOMES[_true, 3, [0, 3]] = 0.5 * _sign, 0.5

Shots = NDArray[np.int64]
OutcomeDraw = Callable[[int, Shots], NDArray[np.float64]]  # numbers of an operation for some shots


class DmtHistory(msgspec.Struct, frozen=True, eq=False):
    """Operators with the bits that were recorded: of some shots, or of a weight."""

    operators: DensityOperators
    record: int = 0
    shots: Shots | None = None  # None: of the exact distribution
    weight: float = 1.0
    outcomes: tuple[int, ...] = ()  # that were read, in order: no other history has these
    choices: tuple[int, ...] = ()  # values of the conditions, in order

    @property
    def rank(self) -> tuple[float, tuple[int, ...]]:
        """What orders histories: those with more shots or weight first."""
        return -float(self.weight if self.shots is None else self.shots.size), self.outcomes


class DmtHistories:
    """Runs one program for one binding, history by history, as `Branching`."""

    def __init__(
        self,
        program: Program,
        params: NDArray[np.float64],
        options: RunOptions,
        control: RunControl,
        draw: OutcomeDraw,
    ) -> None:
        """Set up. `options`: with the most histories of values. `draw`: for shots."""
        self._program, self._options = program, options
        self._control, self._draw = control, draw
        self._maps = {
            at: Maps.of(msgspec.structs.replace(program, steps=(step,)), params)
            for at, step in enumerate(program.steps) if isinstance(step, Segment)
        }  # fmt: skip
        self._divided = 0
        self._threads = 1
        self._pool: ThreadPool | None = None  # while one thread runs

    @property
    def maps(self) -> Maps:
        """Maps on pairs of all segments."""
        pairs = tuple(pair for maps in self._maps.values() for pair in maps.pairs)
        return Maps(pairs, np.tile(np.eye(4), (self._program.num_qubits, 1, 1)))

    def run(self, first: DmtHistory, pool: ThreadPool, ended: Callable[[DmtHistory], None]) -> None:
        """Run all histories; threads share them once there are several. `ended`: called with each
        at its end, by any thread. Raises TooManyBranches, OutOfMemory and Stopped."""
        waiting, end = [(0, first)], len(self._program.steps)
        self._pool, self._threads = pool, pool.size
        while waiting and len(waiting) < pool.size:
            at, history = min(waiting, key=lambda each: each[0])
            if at == end:
                break
            waiting.remove((at, history))
            waiting += Interpreter(self._program.steps).advance(self, at, history)

        self._pool = None

        def work(begin: int, last: int, _thread: int) -> None:
            for each in waiting[begin:last]:
                self._follow(each, ended)

        pool.run(work, len(waiting), 1)

    def _follow(self, begin: tuple[int, DmtHistory], ended: Callable[[DmtHistory], None]) -> None:
        """Run a history and all into which it divides, depth first: few are held at once."""
        stack, end = [begin], len(self._program.steps)
        interpreter = Interpreter(self._program.steps)
        while stack:
            at, history = stack.pop()
            if at < end:
                stack += interpreter.advance(self, at, history)
                self._check_room(stack)
            else:
                ended(history)

    def _check_room(self, stack: list[tuple[int, DmtHistory]]) -> None:
        """Raise OutOfMemory where the histories that wait take more than there is."""
        most = self._options.memory_bytes
        held = sum(history.operators.memory_bytes for _, history in stack) if most else 0
        if held * self._threads > most:
            text = f"engine 'dmt': {len(stack)} histories of a thread take {held >> 20} MiB, and"
            text += f" {self._threads} threads have {most >> 20} MiB"
            hint = "a smaller option bond, or fewer measurements before the end"
            raise OutOfMemory(text, hint=hint)

    def execute(self, at: int, item: Any, part: DmtHistory) -> Sequence[DmtHistory]:
        """Apply gates and channels, or measure, as `Branching`."""
        self._control.check()
        if isinstance(item, Segment):
            if self._pool is not None:
                part.operators.evolve(self._maps[at], self._pool)
                return (part,)
            with ThreadPool(1, self._control) as single:
                part.operators.evolve(self._maps[at], single)
            return (part,)
        self._control.advance(OPERATIONS)
        if item.clbit < 0:
            part.operators.apply(item.qubit, _DEPHASED)
            return (part,)
        return self._measured(at, item, part)

    def choose(self, _at: int, item: Branch, part: DmtHistory) -> Sequence[tuple[int, DmtHistory]]:
        """Follow a condition, as `Branching`."""
        value = item.expression.evaluate(part.record)
        chosen = msgspec.structs.replace(part, choices=(*part.choices, value))
        return ((item.target(value), chosen),)

    def _measured(self, at: int, step: Measurement, part: DmtHistory) -> list[DmtHistory]:
        """Divide a history by what is read."""
        true = 0.5 * (1.0 - part.operators.value(0, 1 << step.qubit))  # of 1
        read = float(np.clip(step.confusion[1] @ (1.0 - true, true), 0.0, 1.0))
        found = []
        for bit, chance in enumerate((1.0 - read, read)):
            record = part.record & ~(1 << step.clbit) | bit << step.clbit
            shots, weight = part.shots, part.weight
            if shots is None:
                weight *= chance
                if weight < _LEAST:
                    continue
            else:
                shots = shots[(self._draw(step.op, shots) < read) == bool(bit)]
                if not shots.size:
                    continue
            operators = part.operators.copy()
            operators.apply(step.qubit, np.tensordot(step.confusion[bit], _OUTCOMES, 1))
            outcomes = (*part.outcomes, bit)
            found.append(DmtHistory(operators, record, shots, weight, outcomes, part.choices))
        if len(found) > 1:
            self._divided += 1
            self._control.expect(self._rest(at), OPERATIONS)
            if part.shots is None and self._divided >= self._options.max_branches:
                raise TooManyBranches(
                    f"more than {self._options.max_branches} histories of outcomes, each with its"
                    " operators",
                    hint=f"counts, or fewer measurements before the end; {OTHER_ENGINE}",
                )
        return found

    def _rest(self, at: int) -> int:
        """Operations after a position."""
        return sum(len(maps.pairs) for place, maps in self._maps.items() if place > at)
