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
from simulators.engine import OPERATIONS, RunControl, ThreadPool
from simulators.errors import OTHER_ENGINE, TooManyBranches

_LEAST = 1e-12  # probability of a history; smaller ones are rounding
_SHARED = 4  # histories of each thread, before threads take them
_DEPHASED = np.diag([1.0, 0.0, 0.0, 1.0])
# Projections on 0 and 1 in the Pauli basis, I, X, Y, Z.
_OUTCOMES = np.zeros((2, 4, 4))
for _true, _sign in enumerate((1.0, -1.0)):
    _OUTCOMES[_true, 0, [0, 3]] = 0.5, 0.5 * _sign
    _OUTCOMES[_true, 3, [0, 3]] = 0.5 * _sign, 0.5

Shots = NDArray[np.int64]
Draw = Callable[[int, Shots], NDArray[np.float64]]  # numbers of an operation for some shots


class History(msgspec.Struct, frozen=True, eq=False):
    """Operators with the bits that were recorded: of some shots, or of a weight."""

    operators: DensityOperators
    record: int = 0
    shots: Shots | None = None  # None: of the exact distribution
    weight: float = 1.0


class Histories:
    """Runs one program for one binding, history by history, as `Branching`."""

    def __init__(
        self,
        program: Program,
        params: NDArray[np.float64],
        most: int,
        control: RunControl,
        draw: Draw,
    ) -> None:
        """Set up. `most`: histories with values. `draw`: for shots."""
        self._program, self._most, self._control, self._draw = program, most, control, draw
        self._maps = {
            at: Maps.of(msgspec.structs.replace(program, steps=(step,)), params)
            for at, step in enumerate(program.steps) if isinstance(step, Segment)
        }  # fmt: skip
        self._ended = 0
        self._pool: ThreadPool | None = None  # while one thread runs

    @property
    def maps(self) -> Maps:
        """Maps on pairs of all segments."""
        pairs = tuple(pair for maps in self._maps.values() for pair in maps.pairs)
        return Maps(pairs, np.tile(np.eye(4), (self._program.num_qubits, 1, 1)))

    def run(self, first: History, pool: ThreadPool, ended: Callable[[History], None]) -> None:
        """Run all histories; threads share them once there are several. `ended`: called with each
        at its end, by any thread. Raises TooManyBranches and Stopped."""
        waiting, end = [(0, first)], len(self._program.steps)
        self._pool = pool
        while waiting and len(waiting) < _SHARED * pool.size:
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

    def _follow(self, begin: tuple[int, History], ended: Callable[[History], None]) -> None:
        """Run a history and all into which it divides, depth first: few are held at once."""
        stack, end = [begin], len(self._program.steps)
        interpreter = Interpreter(self._program.steps)
        while stack:
            at, history = stack.pop()
            if at < end:
                stack += interpreter.advance(self, at, history)
                continue
            self._ended += 1
            if history.shots is None and self._ended > self._most:
                raise TooManyBranches(
                    f"more than {self._most} distinct classical records, each with its operators",
                    hint=f"counts, or fewer measurements before the end; {OTHER_ENGINE}",
                )
            ended(history)

    def execute(self, at: int, item: Any, part: History) -> Sequence[History]:
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
        return self._measured(item, part)

    def choose(self, _at: int, item: Branch, part: History) -> Sequence[tuple[int, History]]:
        """Follow a condition, as `Branching`."""
        return ((item.target(item.expression.evaluate(part.record)), part),)

    def _measured(self, step: Measurement, part: History) -> list[History]:
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
            found.append(History(operators, record, shots, weight))
        return found
