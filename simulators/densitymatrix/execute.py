"""Exact evolution of a program, and its final density matrix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayout
from simulators.circuit.ir import num_words
from simulators.compiler.kernel import device_function, kernel
from simulators.densitymatrix.evolution import SCRATCH, apply_blocks, populations, tiles
from simulators.densitymatrix.fusion import Blocks
from simulators.densitymatrix.program import Measurement, Program, Segment, WideGate, apply_wide
from simulators.dynamic.instructions import Branch
from simulators.dynamic.interpreter import Interpreter
from simulators.engine import ThreadPool
from simulators.errors import OTHER_ENGINE, TooManyBranches
from simulators.execution import packing, philox, sampling
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.requests import BindingRun

# Exact evolution of a program: one state for each distinct classical record.
#
# States with equal records are added, since density matrices add: a dynamic circuit needs as many
# states as it has different records of the bits that were measured, and that a condition or an
# output reads later.

State = NDArray[np.float64]
Branches = dict[int, State]  # by record; the weight of a state is its first entry

_LEAST = 1e-16  # weight of a branch; a smaller one is rounding
_THREADED_QUBITS = 9  # narrower states are evolved by one thread
_GRAIN = 512  # least tiles of a range
_STATES_BYTES = 4 * 2**30  # limit of all branches if the request names none
_WIDE_STATES = 3  # copies of a state that `apply_wide` makes


class ExactEvolution:
    """Runs the steps of one program for one binding."""

    def __init__(
        self,
        program: Program,
        run: BindingRun,
        pool: ThreadPool,
    ) -> None:
        """Set up. `run`: with the parameters of the program."""
        self._program = program
        self._params = run.params
        self._control, options = run.control, run.options
        self._pool = pool
        self._num_qubits = program.num_qubits
        self._blocks = Blocks(program.num_qubits, program.longest)
        self._scratch = np.empty((pool.size, SCRATCH))
        size = 8 * 4**program.num_qubits
        memory = options.memory_bytes or _STATES_BYTES
        self._most = max(1, options.max_branches)
        # Less what an operation holds for a moment: parts of a measured state, or three copies.
        is_wide = any(isinstance(step, WideGate) for step in program.steps)
        more = _WIDE_STATES if is_wide else 1
        self._most_states = max(1, memory // size - more)
        self._states = 1  # of all branches
        self._progress: Callable[[float], None] = lambda _: None
        self._done = 0.0  # part of the work that was reported

    def run(self, progress: Callable[[float], None] = lambda _: None) -> Branches:
        """The states at the end. `progress`: called with each part of the program that is done, of
        1. Raises TooManyBranches and Stopped."""
        branches = {0: np.zeros(4**self._num_qubits)}
        populations(branches[0], self._num_qubits, 1, branches[0][:0])
        self._progress = progress
        branches = Interpreter(self._program.steps).run(self, branches, self._joined) or {}
        self._report(1.0)
        return branches

    def _report(self, done: float) -> None:
        """Report that this part of the program is done."""
        if done > self._done:
            self._progress(done - self._done)
            self._done = done

    def execute(self, at: int, item: Any, part: Branches) -> Sequence[Branches]:
        """Apply gates and channels, or measure, as `Branching`."""
        self._control.check()
        if isinstance(item, Segment):
            self._segment(at, item, part)
        elif isinstance(item, WideGate):
            ptm = item.ptm(self._params)
            for record, state in part.items():
                part[record] = apply_wide(state, self._num_qubits, ptm, item.qubits)
        else:
            part = self._measure(item, part)
        return (part,)

    def choose(self, at: int, item: Branch, part: Branches) -> Sequence[tuple[int, Branches]]:
        """Divide the records by a condition, as `Branching`; of those that differ in bits that
        nothing reads from there on, the states are added. Empties `part`."""
        parts: dict[int, Branches] = {at + 1: {}, item.targets[0]: {}}
        while part:
            record = next(iter(part))
            target = item.target(item.expression.evaluate(record))
            parts[target][record] = part.pop(record)
        live = self._program.live
        for target, each in parts.items():
            if live[at] & ~live[target]:
                self._states -= len(each)
                parts[target] = _merged(each, live[target])
                self._states += len(parts[target])
        return [(target, each) for target, each in parts.items() if each]

    def _joined(self, parts: Sequence[Branches]) -> Branches:
        """Add the states of equal records, where branches meet. Empties all parts but the first."""
        result, *others = parts
        for rest in others:
            while rest:
                record, state = rest.popitem()
                if record in result:
                    result[record] += state
                    self._states -= 1
                else:
                    result[record] = state
                    self._check(len(result), self._states)
        return result

    def _segment(self, at: int, segment: Segment, branches: Branches) -> None:
        blocks, n = self._blocks, self._num_qubits
        program = self._program
        blocks.fill(segment.items, self._params, program.gates, program.channels)
        total = tiles(n)
        done, end = program.work[at : at + 2]
        for k, state in enumerate(branches.values()):
            if n < _THREADED_QUBITS:
                self._apply(state, 0, blocks.count, 0, total, 0)
                self._control.check()
                self._report(done + (end - done) * (k + 1) / len(branches))
                continue
            for block in range(blocks.count):
                self._pool.run(
                    functools.partial(self._apply, state, block, block + 1),
                    total,
                    max(_GRAIN, -(-total // (4 * self._pool.size))),
                )
                share = (k + (block + 1) / blocks.count) / len(branches)
                self._report(done + (end - done) * share)

    def _apply(
        self, state: State, block: int, end: int, first: int, last: int, thread: int
    ) -> None:
        blocks = self._blocks
        apply_blocks(
            state, self._num_qubits, blocks.fused, block, end, first, last, self._scratch[thread],
            self._control.flag,
        )  # fmt: skip

    def _measure(self, step: Measurement, branches: Branches) -> Branches:
        """Split by the true outcome, then add up by the recorded one. Empties `branches`: the array
        of each state holds one of its results."""
        if step.clbit < 0:
            for state in branches.values():  # X and Y of the qubit vanish
                state.reshape(-1, 4, 4**step.qubit)[:, 1:3] = 0.0
            return branches
        entries: Branches = {}
        others = self._states - len(branches)  # of the branches that wait
        while branches:
            record = next(iter(branches))
            state = branches.pop(record)
            parts = state.reshape(-1, 4, 4**step.qubit)
            outcomes = [0.5 * (parts[:, 0] + sign * parts[:, 3]) for sign in (1.0, -1.0)]
            free: State | None = state
            state.fill(0.0)
            for true, outcome in enumerate(outcomes):
                if not outcome[0, 0] > _LEAST:
                    continue
                for read in range(2):
                    weight = step.confusion[read, true]
                    if weight == 0.0:
                        continue
                    key = record & ~(1 << step.clbit) | read << step.clbit
                    into = entries.get(key)
                    if into is None:
                        self._check(len(entries) + 1, len(entries) + 1 + len(branches) + others)
                        into = entries[key] = np.zeros_like(state) if free is None else free
                        free = None
                    view = into.reshape(-1, 4, 4**step.qubit)
                    view[:, 0] += weight * outcome
                    view[:, 3] += (1.0 - 2.0 * true) * weight * outcome
        self._states = others + len(entries)
        return entries

    def _check(self, records: int, states: int) -> None:
        """Raise TooManyBranches above the limits of the records of a part, and of the states of all
        of them in memory."""
        if records > self._most or states > self._most_states:
            hint = "take fewer measurements before the end, raise max_branches or memory;"
            hint += f" {OTHER_ENGINE}"
            most = self._most if records > self._most else self._most_states
            text = f"more than {most} distinct classical records, each with a density matrix"
            raise TooManyBranches(text, hint=hint)


def _merged(branches: Branches, live: int) -> Branches:
    """Add the states whose records have equal live bits. Empties `branches`."""
    results: Branches = {}
    while branches:
        record = next(iter(branches))
        if record & live in results:
            results[record & live] += branches.pop(record)
        else:
            results[record & live] = branches.pop(record)
    return results


class BranchProbabilities(msgspec.Struct, frozen=True, eq=False):
    """Probabilities of all basis states in all branches."""

    records: tuple[int, ...]  # ascending
    probs: NDArray[np.float64]  # [records, 2^n]


def distribution(branches: Branches, num_qubits: int) -> BranchProbabilities:
    """Populations of each branch; rounding errors below 0 are set to 0."""
    records = tuple(sorted(branches))
    probs = np.empty((len(records), 1 << num_qubits))
    for row, record in zip(probs, records, strict=True):
        populations(branches[record], num_qubits, 0, row)
    return BranchProbabilities(records, np.maximum(probs, 0.0, out=probs))


# Final density matrix of one binding, and its outputs.

_SHOTS_AT_ONCE = 1 << 18
_1 = np.uint64(1)
_LEAST_PROBABILITY = 1e-15  # probabilities below this are rounding errors of zero


class MixedState(FinalState):
    """States of a circuit at its end, one for each classical record. The outcome of a shot is one
    draw, number 0 of the seed contract, from the joint distribution of records and basis states;
    readout errors before the end are part of it."""

    def __init__(
        self,
        num_qubits: int,
        layout: MeasurementLayout,
        evolve: Callable[[bool], Branches],
        padded: int,
    ) -> None:
        """Set up. `evolve(keep)`: returns the branches, states on `padded` qubits; `keep`: True if
        an output needs the final state."""
        self.num_qubits = num_qubits
        self._layout = layout
        self._evolve = evolve
        self._padded = padded
        self._branches = 0

    def _joint(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Record of each branch, and probabilities [branches, 2^n]."""
        branches = self._evolve(False)
        self._branches = len(branches)
        result = distribution(branches, self._padded)
        size = 8 * num_words(self._layout.source.size)
        data = b"".join(record.to_bytes(size, "little") for record in result.records)
        records = np.array(np.frombuffer(data, "<u8")).reshape(len(result.records), -1)
        return records, result.probs[:, : 1 << self.num_qubits]

    def sample(self, shots: int, key: SeedKey, draw: int = 0) -> Iterator[Batch]:
        """Sample as `FinalState.sample`, in the order of the shots. `draw`: draw number."""
        records, probs = self._joint()
        edges = np.empty(probs.size)
        cells = np.empty(num_cells(probs.size) + 1, np.int64)
        _cumulate(np.ascontiguousarray(probs).reshape(-1), edges, cells)
        outcomes = np.empty((probs.size, records.shape[1]), np.uint64)
        _outcome_records(self.num_qubits, records, self._layout.source, outcomes)
        for first in range(0, shots, _SHOTS_AT_ONCE):
            result = np.empty((min(_SHOTS_AT_ONCE, shots - first), records.shape[1]), np.uint64)
            _sample(edges, cells, outcomes, *key, draw, first, result)
            yield result, None

    def probabilities(self) -> sampling.Distribution:
        records, probs = self._joint()
        probs = probs / probs.sum()
        row, index = np.nonzero(probs > _LEAST_PROBABILITY)
        weights = probs[row, index]
        if not self._layout.measures:
            return index.astype(np.uint64).reshape(-1, 1), weights
        result = records[row]
        packing.write(result, index, self._layout.source)
        return packing.tally(result, weights)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """Expectation values as `FinalState.expectations`: entries of the vector."""
        branches = self._evolve(True)
        self._branches = len(branches)
        places = [
            sum(_DIGITS[x >> q & 1, z >> q & 1] << 2 * q for q in range(self.num_qubits))
            for x, z in strings
        ]
        total = sum(float(state[0]) for state in branches.values())
        result = np.zeros(len(strings))
        for state in branches.values():
            result += state[places]
        return np.clip(result / total, -1.0, 1.0)

    @property
    def remark(self) -> str:  # type: ignore[override]  # known once it has run
        """Number of classical records, if there are several."""
        return f"{self._branches} branches" if self._branches > 1 else ""


class CombinedState(FinalState):
    """States of unconnected components: the bits of a shot are joined."""

    def __init__(self, num_qubits: int, pieces: Sequence[tuple[MixedState, int]]) -> None:
        """Set up. `pieces`: each with its draw number."""
        self.num_qubits = num_qubits
        self._pieces = pieces

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        batches = [state.sample(shots, key, draw) for state, draw in self._pieces]
        for parts in zip(*batches, strict=True):
            records = parts[0][0]
            for more, _ in parts[1:]:
                records |= more
            yield records, None


def num_cells(outcomes: int) -> int:
    """Number of equal parts in which draws of so many outcomes are looked up: see `cumulate`."""
    return max(1 << 10, 1 << (8 * outcomes - 1).bit_length())


@device_function
def cumulate(probs, edges, cells):  # type: ignore[no-untyped-def]
    """Fill `edges` [outcomes], the cumulative sums, and `cells` [cells + 1]: the first outcome
    whose edge is above the lower bound of each of equal parts, whose number is a power of two. A
    draw is looked up by its part, and searched for from there (Chen and Asau, 1974)."""
    total = 0.0
    for k in range(probs.size):
        total += probs[k]
        edges[k] = total
    last = probs.size - 1
    outcome = 0
    scale = 1.0 / (cells.size - 1)
    for cell in range(cells.size):
        bound = cell * scale * total
        while outcome < last and edges[outcome] <= bound:
            outcome += 1
        cells[cell] = outcome


_cumulate = kernel("REALS REALS I64", group="noise")(cumulate)


@device_function
def write_outcomes(num_qubits, records, source, outcomes):  # type: ignore[no-untyped-def]
    """Fill `outcomes` [outcomes, words]: outcome k is basis state k mod 2^num_qubits of branch k //
    2^num_qubits, with the record of the branch but for the clbits that a qubit is read into at the
    end; clbit c reads qubit `source[c]`."""
    for outcome in range(outcomes.shape[0]):
        branch = outcome >> num_qubits
        for word in range(outcomes.shape[1]):
            outcomes[outcome, word] = records[branch, word]
        for clbit in range(source.size):
            if source[clbit] >= 0:
                bit = np.uint64(outcome >> source[clbit] & 1) << np.uint64(clbit & 63)
                mask = ~(_1 << np.uint64(clbit & 63))
                outcomes[outcome, clbit >> 6] = outcomes[outcome, clbit >> 6] & mask | bit


_outcome_records = kernel("INT WORDS2 I64 WORDS2", group="noise")(write_outcomes)


@device_function
def draw_records(edges, cells, outcomes, seed, binding, draw, first, records):  # type: ignore[no-untyped-def]
    """Fill `records` [shots, words] with the records of the shots from `first` on."""
    total = edges[edges.size - 1]
    last = np.int64(edges.size - 1)
    parts = np.float64(cells.size - 1)
    number = np.int64(-1)
    a = b = c = d = np.uint64(0)
    for row in range(records.shape[0]):
        shot = first + row
        if shot >> 2 != number:
            number = shot >> 2
            a, b, c, d = philox.block(np.uint64(number) + _1, draw, seed, binding)
        lane = shot & 3
        value = philox.uniform(a if lane == 0 else b if lane == 1 else c if lane == 2 else d)
        outcome = cells[np.int64(value * parts)]
        value *= total
        while outcome < last and edges[outcome] <= value:
            outcome += 1
        for word in range(records.shape[1]):
            records[row, word] = outcomes[outcome, word]


_sample = kernel("REALS I64 WORDS2 WORD WORD WORD INT WORDS2", group="noise")(draw_records)


_DIGITS = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}
