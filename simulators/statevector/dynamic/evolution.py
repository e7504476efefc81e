"""Evolution of the branches of a dynamic circuit: measurements split them, equal states are merged.

All branches execute a block together, pass by pass, so an operation is a few calls for any number
of branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import num_words, record_words
from simulators.circuit.noise import Readout
from simulators.dynamic.instructions import Branch, JoinPoint, LoopPass, Measure, Reset, Store
from simulators.dynamic.interpreter import Interpreter
from simulators.dynamic.liveness import live_bits, output_mask
from simulators.engine import PASSES
from simulators.execution.philox import draw_number
from simulators.execution.requests import BindingRun
from simulators.statevector import program
from simulators.statevector.backend import reductions
from simulators.statevector.backend.protocol import Ensemble
from simulators.statevector.checkpoint import Evolution, digest
from simulators.statevector.dynamic.branches import (
    FOR_STEPS,
    WHILE_STEPS,
    Branches,
    BranchMerger,
    Budget,
    Projector,
    parted,
    without_light,
)
from simulators.statevector.dynamic.noise import NoiseSplitter, RecordedReadout
from simulators.statevector.planning.fusion import ONE_WIRE, SWEEP
from simulators.trajectories.locations import LocatedFlag

_SLOWEST_S = 20e-9  # longest time of an operation on an amplitude, on any machine


def _before_corrections(items: Sequence[Any]) -> frozenset[int]:
    """Positions of measurements whose outcome is a condition before any further gate. The states of
    the two outcomes differ until the correction has acted: they are compared where its branches
    meet."""
    result = set()
    reads = blocks = 0  # bits of the next conditions; blocks that are open, from their end
    for at in reversed(range(len(items))):
        item = items[at]
        if isinstance(item, JoinPoint):
            blocks += 1
        elif isinstance(item, Branch) and item.kind != "while":
            blocks -= 1
            reads |= item.expression.reads
        elif isinstance(item, Measure) and not blocks:
            if reads >> item.clbit & 1 and not item.clear:
                result.add(at)
        elif not blocks and not isinstance(item, program.Noise | program.Flag):
            reads = 0
    return frozenset(result)


class EnsembleEvolution:
    """One execution of a program, for some shots of one binding, or exactly; the interpreter's
    parts are `Branches`."""

    def __init__(
        self,
        ensemble: Ensemble,
        schedule: program.Program,
        run: BindingRun,
        readout: Readout | None = None,
        *,
        flags: bool = False,
    ) -> None:
        """Set up. `readout`: error of measurements that are not final; `flags`: qubits leak."""
        circuit, key, options = run.circuit, run.key, run.options
        self._ensemble, self._key = ensemble, key
        self._schedule = schedule
        self._options = options
        self._num_qubits = circuit.num_qubits
        self._floats = [passes.floats(circuit, run.params) for passes in schedule.stretches]
        max_states = ensemble.states.max_live_states(circuit.num_qubits, options)
        self._budget = Budget(max_states, options)
        self._merger = BranchMerger(self._budget, options.precision)
        self._collapse = Projector(self._budget, key, options.precision)
        self._errors = NoiseSplitter(self._budget, key)
        self._readout = None if readout is None else RecordedReadout(readout, key)
        self._interpreter = Interpreter(schedule.items)
        self._words = num_words(circuit.num_clbits)
        self._all_words = record_words(circuit)
        self._flag_words = num_words(circuit.num_qubits) if flags else 0
        hidden = sum(1 << int(clbit) for clbit in np.flatnonzero(schedule.layout.source >= 0))
        self._read = output_mask(circuit) & ~hidden  # bits that are read after the last item
        self._live: tuple[int, ...] = ()  # of an exact run, see `live_bits`
        self._merged_later = _before_corrections(schedule.items)
        self._furthest = 0  # position that all branches have reached
        self._progress: Callable[[float], None] = lambda _: None

    @property
    def peak(self) -> int:
        """Largest number of states held at once."""
        return self._budget.peak

    def expect_passes(self) -> None:
        """Add the passes over a large state, without branching, to the work of the run."""
        costs = self._pass_costs()
        if costs:
            largest = max(costs)
            sizes = [cost / largest for cost in costs]
            self._ensemble.states.expect(len(costs), PASSES, sizes)

    def _pass_costs(self) -> list[float]:
        """Cost of each pass over a large state, without branching."""
        costs: list[float] = []
        for item in self._schedule.items:
            if isinstance(item, program.Gates):
                costs += item.passes.costs
            elif isinstance(item, program.Unitary):
                costs.append(SWEEP + ONE_WIRE * 2.0 ** (item.dense.wires.size - 1))
        return costs

    def may_last(self, seconds: float) -> bool:
        """Return whether the run could take this time on the slowest machine."""
        steps = sum(segment.num_steps for segment in self._schedule.stretches)
        steps += sum(
            1 << item.dense.wires.size
            for item in self._schedule.items
            if isinstance(item, program.Unitary)
        )
        return (steps << self._num_qubits) * _SLOWEST_S >= seconds

    def way(self) -> Evolution:
        """Evolution of a state, without branching."""
        schedule, options = self._schedule, self._options
        arrays = [array for segment in schedule.stretches for array in segment.arrays()]
        where = [item.dense.wires for item in schedule.items if isinstance(item, program.Unitary)]
        order = [type(item).__name__ for item in schedule.items]
        result = digest(
            [*arrays, *self._floats, *schedule.matrices, *where],
            order,
            self._num_qubits,
            options.precision,
        )
        return Evolution(result, len(self._pass_costs()))

    def start(
        self, branches: Branches, progress: Callable[[float], None] = lambda _: None
    ) -> Branches:
        """Run the whole program from one branch. `progress`: called with each part of the program
        that is done, of 1. Raises TooManyBranches, TooManySteps, Stopped."""
        self._budget.begin()
        self._furthest, self._progress = 0, progress
        if branches.exact and not self._live:
            self._live = live_bits(self._schedule.items, self._read)
        all_words = self._all_words + self._flag_words
        if all_words > self._words:
            branches.widen(all_words)
        none = branches.none()
        branches = self._interpreter.run(self, branches, self._joined) or none
        self._reached(len(self._schedule.items))
        if all_words > self._words:
            branches.narrow(self._words)
        return branches

    def _reached(self, at: int) -> None:
        if at > self._furthest:
            self._progress((at - self._furthest) / len(self._schedule.items))
            self._furthest = at

    def execute(self, at: int, item: Any, part: Branches) -> Sequence[Branches]:
        """Execute an instruction, as `Branching`: measurements and noise split branches."""
        self._ensemble.states.check()
        self._reached(at)
        if isinstance(item, program.Gates):
            self._budget.step(len(part) * item.passes.operations)
            self._ensemble.apply(part.states, item.passes, self._floats[item.number])
            return (part,)
        if isinstance(item, LoopPass):
            self._budget.step(WHILE_STEPS if item.count < 0 else FOR_STEPS)
            part = without_light(part, self._budget)
            return (part,) if len(part) else ()
        self._budget.step(len(part))
        passes = self._interpreter.passes
        if isinstance(item, Measure | Reset):
            part = self._collapse.split(item, part, draw_number(item.op, passes))
            if self._readout is not None and isinstance(item, Measure):
                self._readout.flip(item, part, passes)
            self._forget(part, at + 1)
            if at not in self._merged_later:
                part = self._merger.merge(part)
        elif isinstance(item, program.Noise):
            part = self._errors.split(item, part, passes)
        elif isinstance(item, program.Flag):
            part = self._flag(item, part, passes)
        elif isinstance(item, Store):
            item.expression.store(part.records)
        else:
            self._ensemble.multiply(part.states, item.dense)
        return (part,)

    def choose(self, at: int, item: Branch, part: Branches) -> Sequence[tuple[int, Branches]]:
        """Divide the rows by the value of an expression, as `Branching`."""
        self._ensemble.states.check()
        self._reached(at)
        if item.kind != "while":  # each of its passes is counted as WHILE_STEPS
            self._budget.step(len(part))
        values, inverse = item.expression.values(part.records)
        targets = [item.target(value) for value in values]
        positions = sorted(set(targets))
        parts = [part]
        if len(positions) > 1:
            chosen = np.array([positions.index(target) for target in targets])[inverse]
            parts = parted(part, chosen, len(positions), self._budget)
        for target, each in zip(positions, parts, strict=True):
            self._forget(each, target)
        return list(zip(positions, parts, strict=True))

    def _forget(self, branches: Branches, at: int) -> None:
        """Join the records of an exact run that differ in bits which nothing reads from a position
        on. Records of shots stay: their number is that of the shots."""
        if not branches.exact:
            return
        size = 8 * branches.records.shape[1]
        live = (self._live[at] & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        mask = np.frombuffer(live, np.uint64)
        if (branches.records & ~mask).any():
            branches.records = branches.records & mask
            branches.tally()

    def _joined(self, parts: Sequence[Branches]) -> Branches:
        """Join branches that meet, and merge equal ones."""
        return self._merger.merge(Branches.joined(parts))

    def _flag(self, item: program.Flag, branches: Branches, passes: Sequence[int]) -> Branches:
        """Step of the flag of a qubit, bit `qubit` of the words after the variables."""
        word, bit = self._all_words + (item.location.qubit >> 6), item.location.qubit & 63
        mask = np.uint64(1 << bit)
        leaked = (branches.records[:, word] & mask) != 0
        clear, flagged = parted(branches, leaked, 2, self._budget)
        gone = clear.none()
        if item.stays is not None and len(clear):
            clear, gone = self._leak(item.location, clear, passes)
            gone.records[:, word] |= mask
            self._ensemble.multiply(clear.states, item.stays)
        if len(flagged):
            back: slice | NDArray[np.bool_] = slice(None)
            if item.leaked is not None:
                flagged, kinds = self._errors.struck(item.leaked, flagged, passes)
                back = kinds > 0
            if item.location.clears:
                flagged.records[back, word] &= ~mask
        return Branches.joined((clear, gone, flagged))

    def _leak(
        self, location: LocatedFlag, branches: Branches, passes: Sequence[int]
    ) -> tuple[Branches, Branches]:
        """Branches of the shots that stay, and of those that leak, in |1>."""
        shots = branches.shots_or_weights.astype(np.int64, copy=False)
        rows, least = location.candidates(self._key, shots, passes)
        if not rows.size:
            return branches, branches.none()
        owners, number = np.unique(branches.branch_of[rows], return_inverse=True)
        weights = self._ensemble.probs(branches.states[owners], location.qubit)
        ones = weights[:, 1] / weights.sum(axis=1)
        leaks = np.zeros(shots.size, np.bool_)
        leaks[rows[least < ones[number]]] = True
        stays, gone = parted(branches, leaks, 2, self._budget)
        if len(gone):
            weights = self._ensemble.probs(gone.states, location.qubit)
            projection = reductions.Projection(location.qubit, 1, False)
            factors = 1.0 / np.sqrt(weights[:, 1])
            self._ensemble.project(gone.states, gone.states, projection, factors)
        return stays, gone
