"""Interpreter of dynamic circuits, and the noise that splits their branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.circuit.ir import num_words, record_words
from simulators.circuit.noise import Readout
from simulators.engine import PASSES
from simulators.execution.requests import BindingRun
from simulators.execution.sampling import draw_number
from simulators.statevector import program
from simulators.statevector.backend import reductions
from simulators.statevector.backend.matrix import by_columns, place
from simulators.statevector.backend.protocol import Ensemble, Numbers, StateBackend, StateHandle
from simulators.statevector.checkpoint import Evolution, digest
from simulators.statevector.dynamic import branches as dynamic_branches
from simulators.statevector.dynamic.branches import FOR_STEPS, WHILE_STEPS, Branches
from simulators.statevector.planning.fusion import ONE_WIRE, SWEEP
from simulators.statevector.program import Program
from simulators.trajectories import prefix_tree
from simulators.trajectories.locations import LocatedFlag
from simulators.trajectories.pattern_sampling import location_draws

# Noise of dynamic circuits: a location splits the shots of a branch like a hidden measurement.
#
# Whether a shot has an error, and which one, are draws of the location and the shot, independent of
# the state; the Kraus operator of a channel's rest is drawn from the reduced density matrix of its
# qubits.

READOUT_DRAW = 2**59  # number of the draw of the readout error at operation 0


def reduced_density(
    states: StateBackend, state: StateHandle, qubits: tuple[int, ...]
) -> NDArray[np.complex128]:
    """Density matrix of one or two qubits of a state, [2^q, 2^q]; qubits[0] is bit 0 of an index.
    It is computed from the expectation values of their Paulis, which any backend has."""
    strings = []
    for index in range(4 ** len(qubits)):
        letters = [index >> 2 * j & 3 for j in range(len(qubits))]
        x = sum(1 << q for q, letter in zip(qubits, letters, strict=True) if letter in (1, 2))
        z = sum(1 << q for q, letter in zip(qubits, letters, strict=True) if letter >= 2)
        strings.append((x, z))
    values = states.expectations(state, strings)
    result: NDArray[np.complex128] = np.tensordot(values, paulis(len(qubits)), 1) / 2 ** len(qubits)
    return result


class NoiseSplitter:
    """Errors of branches; `key` is (seed, binding)."""

    def __init__(self, budget: dynamic_branches.Budget, key: tuple[int, int]) -> None:
        self._budget = budget
        self._key = key

    def split(self, item: program.Noise, branches: Branches, passes: Sequence[int]) -> Branches:
        """Branches with the errors of their shots applied. Raises TooManyBranches."""
        return self.struck(item, branches, passes)[0]

    def struck(
        self, item: program.Noise, branches: Branches, passes: Sequence[int]
    ) -> tuple[Branches, Numbers]:
        """The result of `split`, and the error of each row: 0 for none, then Paulis, then
        operators."""
        shots = branches.shots_or_weights.astype(np.int64, copy=False)
        location = item.location
        hit, error = location.struck(self._key, shots, passes)
        kinds = np.zeros(shots.size, np.int64)
        if not hit.size:
            return branches, kinds
        kinds[hit] = 1 + error
        probs = np.zeros((0, 0))
        if len(location.kraus):
            rest = hit[error == len(item.paulis)]
            probs = self._odds(item, branches, rest)
            number = prefix_tree.FIRST_DRAW + location.number
            draws = location_draws(self._key, number, passes, shots[rest])
            kinds[rest] += location.choose(probs[branches.branch_of[rest]], draws)
        return self._apply(item, branches, kinds, probs), kinds

    def _odds(self, item: program.Noise, branches: Branches, rows: Numbers) -> NDArray[np.float64]:
        """Probability of each Kraus operator in the state of each branch that needs it."""
        location = item.location
        result = np.zeros((len(branches), len(location.kraus)))
        for branch in np.unique(branches.branch_of[rows]).tolist():
            ensemble = branches.ensemble
            state = ensemble.state(int(branches.states[branch]))
            rho = reduced_density(ensemble.states, state, location.qubits)
            result[branch] = location.weights(rho)
        return result

    def _apply(
        self, item: program.Noise, branches: Branches, kinds: Numbers, probs: NDArray[np.float64]
    ) -> Branches:
        """Apply error kinds[row] to each row: the first kind of a branch takes its state over, the
        others get copies."""
        ensemble, size = branches.ensemble, len(branches)
        count = 1 + len(item.paulis) + len(item.location.kraus)
        cell = kinds * size + branches.branch_of
        present = (np.bincount(cell, minlength=count * size) > 0).reshape(count, size)
        copies = present & (np.cumsum(present, axis=0) > 1)
        states = np.tile(branches.states, (count, 1))
        if copies.any():
            self._budget.grow(int(copies.sum()))
            states[copies] = ensemble.copied(states[copies])
        for kind in np.flatnonzero(present[1:].any(axis=1)).tolist():
            branch_ids = np.flatnonzero(present[kind + 1])
            if kind < len(item.paulis):
                ensemble.multiply(states[kind + 1, branch_ids], item.paulis[kind])
                continue
            operator = kind - len(item.paulis)
            for branch in branch_ids.tolist():
                matrix = item.location.kraus[operator] / np.sqrt(probs[branch, operator])
                columns = by_columns(matrix.tobytes(), len(item.location.qubits))
                dense = place(columns, list(item.location.qubits))
                ensemble.multiply(states[kind + 1, branch : branch + 1], dense)
        number = np.cumsum(present.ravel()) - 1
        return Branches(
            ensemble, states[present], number[cell], branches.records, branches.shots_or_weights
        )


class RecordedReadout:
    """Readout error of measurements whose outcome is used before the end: the recorded bit flips,
    the state does not."""

    def __init__(self, readout: Readout, key: tuple[int, int]) -> None:
        self._readout = readout
        self._key = key

    def flip(self, item: program.Measure, branches: Branches, passes: Sequence[int]) -> None:
        """Flip the recorded bit of each shot with its probability."""
        p01, p10 = self._readout.flips(item.qubit, item.op)
        if not (p01 or p10):
            return
        shots = branches.shots_or_weights.astype(np.int64, copy=False)
        draws = location_draws(self._key, READOUT_DRAW + item.op, passes, shots)
        column = branches.records[:, item.clbit >> 6]
        place_ = np.uint64(item.clbit & 63)
        ones = (column >> place_) & np.uint64(1) == 1
        flipped = draws < np.where(ones, p10, p01)
        column ^= flipped.astype(np.uint64) << place_


# Interpreter of dynamic circuits: measurements split branches, equal states are merged.
#
# The number of states is that of distinct states, not of histories. All branches execute a block
# together, iteration by iteration, so one list of iteration counts of the open loops serves all of
# them, and an operation is a few calls for any number of branches.

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
        schedule: Program,
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
        self._budget = dynamic_branches.Budget(max_states, options)
        self._merger = dynamic_branches.BranchMerger(self._budget, options.precision)
        self._collapse = dynamic_branches.Projector(self._budget, key, options.precision)
        self._errors = NoiseSplitter(self._budget, key)
        self._readout = None if readout is None else RecordedReadout(readout, key)
        self._loops: list[_Loop] = []
        self._words = num_words(circuit.num_clbits)
        self._all_words = record_words(circuit)
        self._flag_words = num_words(circuit.num_qubits) if flags else 0

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
        self._loops.clear()
        all_words = self._all_words + self._flag_words
        if all_words > self._words:
            branches.widen(all_words)
        items = self._schedule.items
        for item in items:
            branches = self._run((item,), branches)
            progress(1.0 / len(items))
        if all_words > self._words:
            branches.narrow(self._words)
        return branches

    def _run(self, items: tuple[program.Instruction, ...], branches: Branches) -> Branches:
        """Run a block; returns the branches that reach its end."""
        for item in items:
            self._ensemble.states.check()
            if not len(branches):
                break
            branches = self._apply_item(item, branches)
        return branches

    def _apply_item(self, item: program.Instruction, branches: Branches) -> Branches:
        if isinstance(item, program.Gates):
            self._budget.step(len(branches) * item.passes.operations)
            floats = self._floats[item.number]
            self._ensemble.apply(branches.states, item.passes, floats)
            return branches
        if isinstance(item, program.For | program.While):
            return self._loop(item, branches)
        if isinstance(item, program.Break | program.Continue):
            loop = self._loops[-1]
            (loop.broken if isinstance(item, program.Break) else loop.continued).append(branches)
            return branches.none()
        self._budget.step(len(branches))
        if isinstance(item, program.Measure | program.Reset):
            passes = [loop.passes for loop in self._loops]
            result = self._collapse.split(item, branches, draw_number(item.op, passes))
            if self._readout is not None and isinstance(item, program.Measure):
                self._readout.flip(item, result, passes)
            return self._merger.merge(result)
        if isinstance(item, program.Noise):
            return self._errors.split(item, branches, [loop.passes for loop in self._loops])
        if isinstance(item, program.Flag):
            return self._flag(item, branches, [loop.passes for loop in self._loops])
        if isinstance(item, program.If):
            no, yes = self._parted(item.condition.truths(branches.records), branches, 2)
            return self._merged(self._run(item.then, yes), self._run(item.otherwise, no))
        if isinstance(item, program.Switch):
            return self._switch(item, branches)
        if isinstance(item, program.Store):
            item.expression.store(branches.records)
        else:
            self._ensemble.multiply(branches.states, item.dense)
        return branches

    def _flag(self, item: program.Flag, branches: Branches, passes: Sequence[int]) -> Branches:
        """Step of the flag of a qubit, bit `qubit` of the words after the variables."""
        word, bit = self._all_words + (item.location.qubit >> 6), item.location.qubit & 63
        mask = np.uint64(1 << bit)
        leaked = (branches.records[:, word] & mask) != 0
        clear, flagged = self._parted(leaked, branches, 2)
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
        stays, gone = self._parted(leaks, branches, 2)
        if len(gone):
            weights = self._ensemble.probs(gone.states, location.qubit)
            projection = reductions.Projection(location.qubit, 1, False)
            factors = 1.0 / np.sqrt(weights[:, 1])
            self._ensemble.project(gone.states, gone.states, projection, factors)
        return stays, gone

    def _merged(self, *parts: Branches) -> Branches:
        return self._merger.merge(Branches.joined(parts))

    def _switch(self, item: program.Switch, branches: Branches) -> Branches:
        last = len(item.blocks) - 1
        values, inverse = item.target.values(branches.records)
        chosen = np.array([item.chosen.get(value, last) for value in values])[inverse]
        parts = self._parted(chosen, branches, last + 1)
        ends = [self._run(block, part) for block, part in zip(item.blocks, parts, strict=True)]
        return self._merged(*ends)

    def _loop(self, item: program.For | program.While, branches: Branches) -> Branches:
        loop = _Loop()
        self._loops.append(loop)
        done = branches.none()
        while len(branches) and not (isinstance(item, program.For) and loop.passes == item.count):
            self._budget.step(FOR_STEPS if isinstance(item, program.For) else WHILE_STEPS)
            if isinstance(item, program.While):
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
                self._ensemble, states[part, present[part]], number[part, branches.branch_of[rows]],
                branches.records[rows], branches.shots_or_weights[rows],
            )  # fmt: skip
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
            self._ensemble, branches.states[present],
            (np.cumsum(present) - 1)[branches.branch_of[rows]], branches.records[rows],
            branches.shots_or_weights[rows],
        )  # fmt: skip
