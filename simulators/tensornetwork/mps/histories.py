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

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.chain.product_state import MatrixProductState
from simulators.circuit.analysis import measurements
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.expressions import expressions_of
from simulators.circuit.gates import ELSE, END_BLOCK, IF, MEASURE, RESET
from simulators.circuit.ir import Circuit, Operation, num_words, with_matrices
from simulators.circuit.noise import Readout
from simulators.engine import SHOTS, STEPS, Request
from simulators.errors import TooManyBranches, TooManySteps
from simulators.execution import outputs, readout as execution_readout, requests, sampling
from simulators.execution.ranks import Ranks
from simulators.tensornetwork.mps import canonical_chain
from simulators.trajectories import pattern_sampling, prefix_tree
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


class _Step(msgspec.Struct, frozen=True, gc=False):
    """Operation with an effect, or a location. `jump`: for an `if` and an `else`, the next step if
    the block is skipped; `expression`: the number of its condition. `draw`: of an outcome, and of
    its readout, which errs with the probabilities `flips` for 0 and for 1; `error`: number of the
    location."""

    code: int = 0
    qubits: tuple[int, ...] = ()
    clbit: int = -1
    gate: Matrix | None = None
    jump: int = 0
    expression: int = -1
    draw: int = 0
    flips: tuple[float, float] = (0.0, 0.0)
    error: int = -1


class OutcomeHistory(msgspec.Struct, gc=False):
    """Shots with the same history: their state, and their position in the circuit."""

    node: canonical_chain.ChainNode
    record: int  # bit c: clbit c
    shots: Shots  # numbers of the shots, ascending; empty in an exact run
    weight: float = 1.0  # weight in an exact run
    at: int = 0


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
        self._steps = _steps(run.circuit, run.params, layout, noise)
        self._errors = () if noise is None else noise.errors
        self._hits: list[dict[int, int]] = []  # by location: error of each shot that has one
        self._expressions = expressions_of(run.circuit) if run.circuit.conditions_data else ()
        self._certain = CERTAIN[run.options.precision]
        self._options, self._control = run.options, run.control
        self._ranks = ranks
        self._executed = 0
        self.count = 0  # finished histories

    def walk(
        self, empty: canonical_chain.CanonicalChain, shots: Shots, key: outputs.SeedKey | None
    ) -> Iterator[OutcomeHistory]:
        """Histories of these shots; without a key all histories, with their weights. Over ranks:
        those of this one. Raises TooManyBranches, and TooManySteps of one rank."""
        self._hits = [] if key is None else [_hits(each, shots, key) for each in self._errors]
        node = canonical_chain.ChainNode(empty.copy())
        waiting = self._dealt(OutcomeHistory(node, 0, shots), key)
        unit, count = (STEPS, len(self._steps)) if key is None else (SHOTS, shots.size)
        self._control.expect(count, unit)
        # All steps of all histories, each by its shots or its weight: those of this rank.
        whole = sum(_mass(each, key) * (len(self._steps) - each.at) for each in waiting)
        while waiting:
            history = waiting.pop()
            while history.at < len(self._steps):
                at, mass = history.at, _mass(history, key)
                others = self._advance(history, key)
                self._control.advance(unit, count * mass * (history.at - at) / whole)
                if others:
                    waiting += sorted((history, *others), key=lambda each: -each.shots.size)
                    history = waiting.pop()
            self.count += 1
            if key is None and self.count > self._options.max_branches:
                raise TooManyBranches(
                    f"more than {self._options.max_branches} histories of outcomes, each with a"
                    " matrix product state of its own",
                    hint="ask for counts of shots, raise max_branches, or engine='statevector',"
                    " which merges equal states",
                )
            yield history

    def _dealt(self, root: OutcomeHistory, key: outputs.SeedKey | None) -> list[OutcomeHistory]:
        """Histories from which this rank goes on: all ranks follow the first ones, level by level,
        until there are a few for each."""
        level = [root]
        while self._ranks.size > 1 and len(level) < _DEALT * self._ranks.size:
            following = []
            for history in level:
                others: list[OutcomeHistory] = []
                while history.at < len(self._steps) and not others:
                    others = self._advance(history, key)
                following += [history, *others]
            if len(following) == len(level):  # all have ended
                break
            level = following
        return level[self._ranks.rank :: self._ranks.size]

    def _advance(
        self, history: OutcomeHistory, key: outputs.SeedKey | None
    ) -> list[OutcomeHistory]:
        """Execute one step of a history; return the histories of its other parts, if it divides."""
        step = self._steps[history.at]
        history.at += 1
        if step.error >= 0:
            return self._struck(step, history, key)
        self._control.check()
        self._executed += 1
        if self._executed > self._options.max_steps:
            text = f"more than {self._options.max_steps} operations in all histories"
            raise TooManySteps(text, hint="raise max_steps or take fewer shots")
        if step.gate is not None:
            history.node.fusion.take(step.qubits, step.gate)
        elif step.code == IF:
            if not self._expressions[step.expression].evaluate(history.record):
                history.at = step.jump
        elif step.code == ELSE:
            history.at = step.jump
        else:
            return self._measured(step, history, key)
        return []

    def _measured(
        self, step: _Step, history: OutcomeHistory, key: outputs.SeedKey | None
    ) -> list[OutcomeHistory]:
        """Continue with one outcome; return the histories of the others that occur: each is an
        outcome and what is read."""
        probs = _density(history.node, step.qubits).diagonal().real
        probs = probs / probs.sum()
        possible = probs > self._certain

        def part(shots: Shots, outcome: int, read: int, weight: float = 1.0) -> _Part:
            change = functools.partial(_collapse, step, outcome, read, float(probs[outcome]))
            return _Part(shots, change, weight)

        if key is None:
            shares = history.weight * probs
            chosen = np.flatnonzero(possible).tolist()
            return _divided(history, [part(history.shots, k, k, shares[k]) for k in chosen])
        draws = np.empty(history.shots.size)
        sampling.uniforms(*key, step.draw + 1, history.shots, draws)
        ones = draws >= probs[0] if possible.all() else np.full(draws.size, possible[1])
        read = ones
        if any(step.flips):
            sampling.uniforms(*key, execution_readout.FIRST_DRAW + step.draw, history.shots, draws)
            read = ones ^ (draws < np.where(ones, step.flips[1], step.flips[0]))
        parts = []
        for outcome in range(2):
            for value in range(2):
                mine = (ones == outcome) & (read == value)
                if mine.any():
                    parts.append(part(history.shots[mine], outcome, value))
        return _divided(history, parts)

    def _struck(
        self, step: _Step, history: OutcomeHistory, key: outputs.SeedKey | None
    ) -> list[OutcomeHistory]:
        """Continue with the shots of one error of a location, or of none; return the histories of
        the others."""
        hits = self._hits[step.error]
        if not hits or key is None:
            return []
        location, shots = self._errors[step.error], history.shots
        if shots.size == 1:
            kind = hits.get(int(shots[0]), -1)
            if kind < 0:
                return []
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
                parts += self._drawn(location, history, mine, key)
        return _divided(history, parts)

    def _drawn(
        self, location: LocatedError, history: OutcomeHistory, shots: Shots, key: outputs.SeedKey
    ) -> list[_Part]:
        """Parts of these shots by the Kraus operator that is drawn for each from the state."""
        rho = _density(history.node, location.qubits)
        weights = location.weights(rho)
        draws = np.empty(shots.size)
        sampling.uniforms(*key, prefix_tree.FIRST_DRAW + location.number, shots, draws)
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


def _mass(history: OutcomeHistory, key: outputs.SeedKey | None) -> float:
    """Shots of a history, or its weight."""
    return history.weight if key is None else history.shots.size


def _hits(location: LocatedError, shots: Shots, key: outputs.SeedKey) -> dict[int, int]:
    """Error at a location of each of these shots that has one."""
    rows, kinds = location.struck(key, shots)
    return dict(zip(shots[rows].tolist(), kinds.tolist(), strict=True))


def _divided(history: OutcomeHistory, parts: Sequence[_Part]) -> list[OutcomeHistory]:
    """Make a history that of its first part; return those of the others."""
    first, *others = parts
    results = []
    for part in others:
        other = replace(history, node=history.node.copy(), shots=part.shots, weight=part.weight)
        results.append(other)
    history.shots, history.weight = first.shots, first.weight
    for each, part in zip((history, *results), parts, strict=True):
        if part.change is not None:
            part.change(each)
    return results


def _density(node: canonical_chain.ChainNode, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
    """Density matrix of one or two qubits, after the gates on them that wait."""
    node.fusion.flush(qubits)
    return node.chain.reduced(qubits)


def _collapse(step: _Step, outcome: int, read: int, prob: float, history: OutcomeHistory) -> None:
    """Project onto an outcome and record what is read; a reset sets the qubit to 0 and records
    nothing."""
    resets = step.code == RESET
    gate = np.zeros((2, 2), complex)
    gate[0 if resets else outcome, outcome] = 1.0 / np.sqrt(prob)
    history.node.chain.apply(step.qubits, gate, unitary=False)
    if not resets:
        history.record = history.record & ~(1 << step.clbit) | read << step.clbit


def _flip(qubits: tuple[int, ...], pauli: int, history: OutcomeHistory) -> None:
    for k, qubit in enumerate(qubits):
        letter = pauli >> 2 * k & 3
        if letter:
            history.node.fusion.take((qubit,), paulis(1)[letter])


def _multiply(qubits: tuple[int, ...], operator: Matrix, history: OutcomeHistory) -> None:
    history.node.chain.apply(qubits, operator, unitary=False)


def _steps(
    circuit: Circuit,
    params: NDArray[np.float64],
    layout: MeasurementLayout,
    noise: HistoryNoise | None,
) -> list[_Step]:
    """Operations with an effect, with the jumps of conditions, and the locations after each."""
    results: list[_Step] = []
    opened: list[int] = []  # steps of open blocks
    located: dict[int, list[int]] = {}
    for number, error in enumerate(() if noise is None else noise.errors):
        located.setdefault(error.after, []).append(number)

    def locations(place: int) -> Iterator[_Step]:
        for number in located.get(place, ()):
            assert noise is not None
            error = noise.errors[number]
            if error.unitary is not None:
                yield _Step(qubits=error.qubits, gate=error.unitary)
            if error.probability:
                yield _Step(error=number)

    expression = -1
    results += locations(-1)
    for operation, gate in with_matrices(circuit, params):
        code, role = operation.code, layout.roles[operation.place]
        if gate is not None:
            if operation.qubits:
                results.append(_Step(code, operation.qubits, gate=gate))
        elif code == IF:
            expression += 1
            opened.append(len(results))
            results.append(_Step(code, expression=expression))
        elif code in (ELSE, END_BLOCK):
            at = opened.pop()
            target = len(results) + (code == ELSE)
            results[at] = replace(results[at], jump=target)
            if code == ELSE:
                opened.append(len(results))
                results.append(_Step(code))
        elif (code == MEASURE and role != measurements.TERMINAL) or (
            code == RESET and role != measurements.NO_OP_RESET
        ):
            results.append(_measurement(operation, noise))
        results += locations(operation.place)
    return results


def _measurement(operation: Operation, noise: HistoryNoise | None) -> _Step:
    """Step of a measurement or reset."""
    draw = operation.place if noise is None else int(noise.operations[operation.place])
    if operation.code == RESET:
        return _Step(RESET, operation.qubits, draw=draw)
    flips = (0.0, 0.0)
    if noise is not None and noise.readout is not None:
        flips = noise.readout.flips(operation.qubits[0], operation.place)
    return _Step(MEASURE, operation.qubits, operation.clbits[0], draw=draw, flips=flips)


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
                    records[batch] = before | sampling.select_bits(bits, layout.source)

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
        return sampling.tally(*map(np.concatenate, zip(*parts, strict=True)))

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
        moments = pattern_sampling.Moments(count)
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
    return sampling.records_of([record & ~written], layout.source.size)
