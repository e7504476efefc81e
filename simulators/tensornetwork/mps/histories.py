"""Circuits that measure, reset or branch before their end: one chain for each history of outcomes.

Histories are followed depth first, and of the parts into which one divides the largest last, so
there are never more states than divisions on a path. Shots with the same history so far share a
state. Outcomes are drawn by the seed contract (draw 1 + operation), so they are those of the
statevector engine, up to rounding.

With noise, a location divides a history like a hidden measurement. Whether a shot has an error
there, and which one, is drawn for all shots beforehand; the Kraus operator of a channel's rest is
drawn from the reduced density matrix of its qubits, and a misread outcome is a history with another
record.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.chain.product_state import MatrixProductState
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.gates import MEASURE
from simulators.circuit.ir import Circuit, num_words, operations, with_matrices
from simulators.circuit.noise import Readout
from simulators.dynamic.instructions import Assembler, Branch, Measure, Reset
from simulators.dynamic.interpreter import Interpreter
from simulators.engine import SHOTS, STEPS, Request
from simulators.errors import OTHER_ENGINE, TooManyBranches, TooManySteps
from simulators.execution import (
    outputs,
    packing,
    philox,
    readout as execution_readout,
    requests,
    sampling,
)
from simulators.execution.ranks import Ranks
from simulators.tensornetwork.mps import canonical_chain
from simulators.trajectories import prefix_tree, shot_blocks
from simulators.trajectories.locations import LocatedError

_BITS_AT_ONCE = 1 << 24
_DEALT = 4  # histories of each rank, with which it begins
CERTAIN = {"double": 1e-15, "single": 1e-9}  # less probable outcomes never occur

Shots = NDArray[np.int64]
Matrix = canonical_chain.Matrix


class HistoryNoise(msgspec.Struct, frozen=True, eq=False):
    """Noise of a part of a circuit. `operations`: numbers of the part's operations in the whole
    circuit, which number their random draws."""

    errors: tuple[LocatedError, ...]
    readout: Readout | None
    operations: NDArray[np.int64]

    def flips(self, circuit: Circuit) -> dict[int, tuple[float, float]]:
        """Probabilities with which 0 and 1 are misread, by the number of the measurement in the
        whole circuit."""
        if self.readout is None:
            return {}
        return {
            int(self.operations[each.place]): self.readout.flips(each.qubits[0], each.place)
            for each in operations(circuit, circuit.params)
            if each.code == MEASURE
        }


class _Gate(msgspec.Struct, frozen=True, gc=False):
    """Unitary gate."""

    qubits: tuple[int, ...]
    matrix: Matrix


class _Error(msgspec.Struct, frozen=True, gc=False):
    """Random error of the location with this number."""

    number: int


class OutcomeHistory(msgspec.Struct, gc=False):
    """Shots with the same history: their state, and their position in the circuit."""

    node: canonical_chain.ChainNode
    record: int  # bit c: clbit c
    shots: Shots  # numbers of the shots, ascending; empty in an exact run
    weight: float = 1.0  # weight in an exact run
    at: int = 0  # position up to which the progress is reported


class _Part(msgspec.Struct, frozen=True, gc=False):
    """Shots of a history that go on alike, and the change of their history."""

    shots: Shots
    change: Callable[[OutcomeHistory], None] | None
    weight: float = 1.0


class Histories:
    """Histories of the outcomes of one binding."""

    def __init__(
        self,
        run: requests.BindingRun,
        layout: MeasurementLayout,
        ranks: Ranks,
        noise: HistoryNoise | None = None,
    ) -> None:
        self._items = _instructions(run.circuit, run.params, layout, noise)
        self._interpreter = Interpreter(self._items)
        self._errors = () if noise is None else noise.errors
        self._flips = {} if noise is None else noise.flips(run.circuit)
        self._hits: list[dict[int, int]] = []  # by location: error of each shot that has one
        self._key: outputs.SeedKey | None = None  # None: an exact run
        self._certain = CERTAIN[run.options.precision]
        self._options, self._control = run.options, run.control
        self._ranks = ranks
        self._executed = 0
        self._unit, self._share = SHOTS, 0.0  # progress of a step of one shot, or of weight 1
        self.count = 0  # finished histories

    def walk(
        self, empty: canonical_chain.CanonicalChain, shots: Shots, key: outputs.SeedKey | None
    ) -> Iterator[OutcomeHistory]:
        """Histories of these shots; without a key all histories, with their weights. Over ranks:
        those of this one. Raises TooManyBranches, and TooManySteps of one rank."""
        self._key = key
        self._hits = [] if key is None else [_hits(each, shots, key) for each in self._errors]
        node, end = canonical_chain.ChainNode(empty.copy()), len(self._items)
        waiting = self._dealt(OutcomeHistory(node, 0, shots))
        self._unit, count = (STEPS, end) if key is None else (SHOTS, shots.size)
        self._control.expect(count, self._unit)
        # All steps of all histories, each by its shots or its weight: those of this rank.
        whole = sum(self._mass(each) * (end - at) for at, each in waiting)
        self._share = count / whole if whole else 0.0
        while waiting:
            at, history = waiting.pop()
            while at < end:
                parts = self._interpreter.advance(self, at, history)
                if len(parts) > 1:
                    waiting += sorted(parts, key=lambda each: -each[1].shots.size)
                    at, history = waiting.pop()
                else:
                    at, history = parts[0]
            self._reached(end, history)
            self.count += 1
            if key is None and self.count > self._options.max_branches:
                raise TooManyBranches(
                    f"more than {self._options.max_branches} histories of outcomes, each with a"
                    " matrix product state of its own",
                    hint=f"ask for counts of shots, or raise max_branches; {OTHER_ENGINE}",
                )
            yield history

    def _dealt(self, root: OutcomeHistory) -> list[tuple[int, OutcomeHistory]]:
        """Histories from which this rank goes on, with their positions: all ranks follow the first
        ones, level by level, until there are a few for each."""
        level = [(0, root)]
        while self._ranks.size > 1 and len(level) < _DEALT * self._ranks.size:
            following: list[tuple[int, OutcomeHistory]] = []
            for each in level:
                parts: Sequence[tuple[int, OutcomeHistory]] = [each]
                while len(parts) == 1 and parts[0][0] < len(self._items):
                    parts = self._interpreter.advance(self, *parts[0])
                following += parts
            has_divided, level = len(following) > len(level), following
            if not has_divided:  # all have ended
                break
        return level[self._ranks.rank :: self._ranks.size]

    def _mass(self, history: OutcomeHistory) -> float:
        """Shots of a history, or its weight."""
        return history.weight if self._key is None else history.shots.size

    def _reached(self, at: int, history: OutcomeHistory) -> None:
        """Report the progress of a history up to a position."""
        self._control.advance(self._unit, self._share * self._mass(history) * (at - history.at))
        history.at = at

    def execute(self, at: int, item: Any, part: OutcomeHistory) -> Sequence[OutcomeHistory]:
        """Execute one step of a history, as `Branching`."""
        self._reached(at, part)
        if isinstance(item, _Error):
            return self._struck(item, part)
        self._step()
        if isinstance(item, _Gate):
            part.node.fusion.take(item.qubits, item.matrix)
            return (part,)
        return self._measured(item, part)

    def choose(
        self, at: int, item: Branch, part: OutcomeHistory
    ) -> Sequence[tuple[int, OutcomeHistory]]:
        """Follow a condition, as `Branching`."""
        del at
        self._step()
        return [(item.target(item.expression.evaluate(part.record)), part)]

    def _step(self) -> None:
        """Count an operation of a history. Raises TooManySteps and Stopped."""
        self._control.check()
        self._executed += 1
        if self._executed > self._options.max_steps:
            text = f"more than {self._options.max_steps} operations in all histories"
            raise TooManySteps(text, hint="raise max_steps or take fewer shots")

    def _measured(self, item: Measure | Reset, history: OutcomeHistory) -> list[OutcomeHistory]:
        """Histories of the outcomes that occur: each is an outcome and what is read."""
        key = self._key
        probs = _density(history.node, (item.qubit,)).diagonal().real
        probs = probs / probs.sum()
        possible = probs > self._certain

        def part(shots: Shots, outcome: int, read: int, weight: float = 1.0) -> _Part:
            change = functools.partial(_collapse, item, outcome, read, float(probs[outcome]))
            return _Part(shots, change, weight)

        if key is None:
            shares = history.weight * probs
            chosen = np.flatnonzero(possible).tolist()
            return _divided(history, [part(history.shots, k, k, shares[k]) for k in chosen])
        draws = np.empty(history.shots.size)
        philox.uniforms(*key, item.op + 1, history.shots, draws)
        ones = draws >= probs[0] if possible.all() else np.full(draws.size, possible[1])
        read = ones
        p01, p10 = self._flips.get(item.op, (0.0, 0.0))
        if p01 or p10:
            philox.uniforms(*key, execution_readout.FIRST_DRAW + item.op, history.shots, draws)
            read = ones ^ (draws < np.where(ones, p10, p01))
        parts = []
        for outcome in range(2):
            for value in range(2):
                mine = (ones == outcome) & (read == value)
                if mine.any():
                    parts.append(part(history.shots[mine], outcome, value))
        return _divided(history, parts)

    def _struck(self, item: _Error, history: OutcomeHistory) -> Sequence[OutcomeHistory]:
        """Histories of the errors of a location, and of none."""
        if self._key is None or not (hits := self._hits[item.number]):
            return (history,)
        location, shots = self._errors[item.number], history.shots
        if shots.size == 1:
            kind = hits.get(int(shots[0]), -1)
            if kind < 0:
                return (history,)
            kinds = np.array([kind])
        else:
            kinds = np.full(shots.size, -1)
            places = np.searchsorted(shots, np.fromiter(hits, np.int64, len(hits)))
            places = np.minimum(places, shots.size - 1)
            for place, (shot, kind) in zip(places.tolist(), hits.items(), strict=True):
                if shots[place] == shot:
                    kinds[place] = kind
        parts = []
        for kind in np.unique(kinds).tolist():
            mine = shots[kinds == kind]
            if kind < 0:
                parts.append(_Part(mine, None))
            elif kind < len(location.paulis):
                pauli = location.paulis[kind]
                parts.append(_Part(mine, functools.partial(_flip, location.qubits, pauli)))
            else:
                parts += self._drawn(location, history, mine, self._key)
        return _divided(history, parts)

    def _drawn(
        self, location: LocatedError, history: OutcomeHistory, shots: Shots, key: outputs.SeedKey
    ) -> list[_Part]:
        """Parts of these shots by the Kraus operator that is drawn for each from the state."""
        rho = _density(history.node, location.qubits)
        weights = location.weights(rho)
        draws = np.empty(shots.size)
        philox.uniforms(*key, prefix_tree.FIRST_DRAW + location.number, shots, draws)
        chosen = location.choose(weights, draws)
        return [
            _Part(
                shots[chosen == k],
                functools.partial(
                    _multiply, location.qubits, location.kraus[k] / np.sqrt(weights[k])
                ),
            )
            for k in np.unique(chosen).tolist()
        ]


def _hits(location: LocatedError, shots: Shots, key: outputs.SeedKey) -> dict[int, int]:
    """Error at a location of each of these shots that has one."""
    rows, kinds = location.struck(key, shots)
    return dict(zip(shots[rows].tolist(), kinds.tolist(), strict=True))


def _divided(history: OutcomeHistory, parts: Sequence[_Part]) -> list[OutcomeHistory]:
    """Make a history that of its first part; return it and those of the others."""
    first, *others = parts
    results = [history]
    for part in others:
        other = replace(history, node=history.node.copy(), shots=part.shots, weight=part.weight)
        results.append(other)
    history.shots, history.weight = first.shots, first.weight
    for each, part in zip(results, parts, strict=True):
        if part.change is not None:
            part.change(each)
    return results


def _density(node: canonical_chain.ChainNode, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
    """Density matrix of one or two qubits, after the gates on them that wait."""
    node.fusion.flush(qubits)
    return node.chain.reduced(qubits)


def _collapse(
    item: Measure | Reset, outcome: int, read: int, prob: float, history: OutcomeHistory
) -> None:
    """Project onto an outcome and record what is read; a reset sets the qubit to 0 and records
    nothing."""
    gate = np.zeros((2, 2), complex)
    gate[outcome if isinstance(item, Measure) else 0, outcome] = 1.0 / np.sqrt(prob)
    history.node.chain.apply((item.qubit,), gate, unitary=False)
    if isinstance(item, Measure):
        history.record = history.record & ~(1 << item.clbit) | read << item.clbit


def _flip(qubits: tuple[int, ...], pauli: int, history: OutcomeHistory) -> None:
    for k, qubit in enumerate(qubits):
        letter = pauli >> 2 * k & 3
        if letter:
            history.node.fusion.take((qubit,), paulis(1)[letter])


def _multiply(qubits: tuple[int, ...], operator: Matrix, history: OutcomeHistory) -> None:
    history.node.chain.apply(qubits, operator, unitary=False)


def _instructions(
    circuit: Circuit,
    params: NDArray[np.float64],
    layout: MeasurementLayout,
    noise: HistoryNoise | None,
) -> list[Any]:
    """Operations with an effect, and the locations after each."""
    assembler = Assembler(circuit, layout.roles, None if noise is None else noise.operations)
    items, marks = assembler.items, assembler.marks()
    located: dict[int, list[_Gate | _Error]] = {}
    for number, error in enumerate(() if noise is None else noise.errors):
        steps = located.setdefault(error.after, [])
        if error.unitary is not None:
            steps.append(_Gate(error.qubits, error.unitary))
        if error.probability:
            steps.append(_Error(number))
    items += located.get(-1, ())
    for operation, gate in with_matrices(circuit, params):
        if marks[operation.place]:
            assembler.add(operation.place)
        elif gate is not None and operation.qubits:
            items.append(_Gate(operation.qubits, gate))
        items += located.get(operation.place, ())
    return items


class DynamicMpsState(outputs.FinalState):
    """State of a dynamic circuit for one binding, with noise or without. Truncation is the weighted
    mean of the histories."""

    def __init__(
        self,
        layouts: MeasurementLayouts,
        order: tuple[int, ...] | None,
        run: requests.BindingRun,
        ranks: Ranks,
        noise: HistoryNoise | None = None,
    ) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._layouts, self._ranks = layouts, ranks
        self._control = ranks.control
        self._run = replace(run, control=self._control)
        self._limits = canonical_chain.ChainLimits.of(run.options)
        self._empty = self._limits.empty(self.num_qubits, order)
        self._noise = noise
        self._bond, self._count = 1, 0

    def _ended(
        self, layout: MeasurementLayout, shots: int = 0, key: outputs.SeedKey | None = None
    ) -> Iterator[tuple[OutcomeHistory, MatrixProductState]]:
        """Histories of this rank with their final states; see `Histories.walk`."""
        histories = Histories(self._run, layout, self._ranks, self._noise)
        self.truncation = 0.0
        for history in histories.walk(self._empty, np.arange(shots), key):
            state = history.node.state()
            self._limits.check_weight(state.truncation)
            self._bond = max(self._bond, state.bond)
            share = history.weight if key is None else history.shots.size / shots
            self.truncation += share * state.truncation
            yield history, state
        self._count = histories.count

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        layout = self._layouts.clbits
        records = np.zeros((shots, num_words(layout.source.size)), np.uint64)
        step = max(1, _BITS_AT_ONCE // max(1, self.num_qubits))

        def fill() -> None:
            for history, state in self._ended(layout, shots, key):
                before = _without(history.record, layout)
                for low in range(0, history.shots.size, step):
                    batch = history.shots[low : low + step]
                    bits = state.sample(batch, key, self._control)
                    records[batch] = before | packing.select_bits(bits, layout.source)

        self._ranks.summed(records, fill)
        self._report()
        yield records, None

    def probabilities(self) -> sampling.Distribution:
        layout = self._layouts.clbits
        source = layout.source if layout.measures else None
        own: list[sampling.Distribution] = []

        def fill() -> None:
            for history, state in self._ended(layout):
                result, shares = sampling.distribution(state.state(), source)
                before = _without(history.record, layout)
                result = result | before if source is not None else result
                own.append((result, history.weight * shares))

        self._ranks.run(fill)
        self._report()
        parts = [each for one in self._ranks.values(own) for each in one]
        return packing.tally(*map(np.concatenate, zip(*parts, strict=True)))

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        result = np.zeros(len(strings))

        def fill() -> None:
            for history, state in self._ended(self._layouts.state):
                result[...] += history.weight * state.means(strings, self._control)

        self._ranks.summed(result, fill)
        self._report()
        return result

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`; with noise, means over the trajectories."""
        if self._noise is None:
            return super().estimates(strings, request, key)
        count = len(request.observables)
        owners, weights = outputs.owners_and_weights(request.observables)
        values = np.zeros((request.shots, count))

        def fill() -> None:
            for history, state in self._ended(self._layouts.state, request.shots, key):
                each = weights * state.means(strings, self._control)
                values[history.shots] = np.bincount(owners, each, count)

        self._ranks.summed(values, fill)
        self._report()
        moments = shot_blocks.Moments(count)
        moments.add(values)
        return moments.estimates()

    def _report(self) -> None:
        """Set the truncation and the remark, from those of all ranks."""
        self.truncation = sum(self._ranks.values(self.truncation))
        bond, count = max(self._ranks.values(self._bond)), sum(self._ranks.values(self._count))
        self.remark = f"bond {bond}, {count} branches"


def _without(record: int, layout: MeasurementLayout) -> NDArray[np.uint64]:
    """Record as a row, without the clbits that terminal measurements write."""
    written = sum(1 << clbit for clbit in np.flatnonzero(layout.source >= 0).tolist())
    return packing.records_of([record & ~written], layout.source.size)
