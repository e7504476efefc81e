"""Engine `mps`: circuits with noise and without, dynamic ones too."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.chain.product_state import ChainState, MatrixProductState
from simulators.circuit.analysis import measurements
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.analysis.profiler import chain_order
from simulators.circuit.expressions import expressions_of
from simulators.circuit.gates import ELSE, END_BLOCK, IF, MEASURE, RESET
from simulators.circuit.ir import Circuit, Operation, num_words, with_matrices
from simulators.circuit.noise import NoiseProgram
from simulators.engine import EngineResult, Plan, Request, RunControl, RunOptions
from simulators.errors import TooManyBranches, TooManySteps
from simulators.execution import outputs, requests, sampling
from simulators.execution.ranks import Ranks, RanksEngine, are_alike
from simulators.tensornetwork.mps import canonical_chain
from simulators.tensornetwork.mps.trajectories import NoisyChainPlan, run_noisy

CARD = builtin_card("mps")
_BITS_AT_ONCE = 1 << 24

# Circuits that measure, reset or branch before their end: one chain for each history of outcomes.
#
# Histories are followed depth first, so there are no more states at once than measurements. Shots
# with the same outcomes so far share a state. Outcomes are drawn by the seed contract (draw 1 +
# operation), so they are those of the statevector engine, up to rounding.

_DEALT = 4  # histories of each rank, with which it begins
CERTAIN = {"double": 1e-15, "single": 1e-9}  # less probable outcomes never occur

Shots = NDArray[np.int64]


class _Step(msgspec.Struct, frozen=True, gc=False):
    """Operation with an effect. `jump`: for an `if` and an `else`, the next step if the block is
    skipped; `expression`: the number of its condition."""

    operation: Operation
    gate: canonical_chain.Matrix | None
    jump: int = 0
    expression: int = -1


class OutcomeHistory(msgspec.Struct, gc=False):
    """Shots with the same outcomes: their state, and their position in the circuit."""

    node: canonical_chain.ChainNode
    record: int  # bit c: clbit c
    shots: Shots  # numbers of the shots; empty in an exact run
    weight: float = 1.0  # weight in an exact run
    at: int = 0


class Histories:
    """Histories of the outcomes of one binding."""

    def __init__(self, run: requests.BindingRun, layout: MeasurementLayout, ranks: Ranks) -> None:
        self._steps = _steps(run.circuit, run.params, layout)
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
        node = canonical_chain.ChainNode(empty.copy())
        waiting = self._dealt(OutcomeHistory(node, 0, shots), key)
        while waiting:
            history = waiting.pop()
            while history.at < len(self._steps):
                waiting += self._advance(history, key)
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
        """Execute one step of a history; return the history of another outcome, if one occurs."""
        self._control.check()
        step = self._steps[history.at]
        history.at += 1
        self._executed += 1
        if self._executed > self._options.max_steps:
            text = f"more than {self._options.max_steps} operations in all histories"
            raise TooManySteps(text, hint="raise max_steps or take fewer shots")
        code = step.operation.code
        if step.gate is not None:
            history.node.fusion.take(step.operation.qubits, step.gate)
        elif code == IF:
            if not self._expressions[step.expression].evaluate(history.record):
                history.at = step.jump
        elif code == ELSE:
            history.at = step.jump
        elif code in (MEASURE, RESET):
            return self._split(step.operation, history, key)
        return []

    def _split(
        self, operation: Operation, history: OutcomeHistory, key: outputs.SeedKey | None
    ) -> list[OutcomeHistory]:
        """Continue the history with one outcome; return the history of the other outcome, if it
        occurs."""
        (qubit,) = operation.qubits
        history.node.fusion.flush((qubit,))
        probs = history.node.chain.reduced((qubit,)).diagonal().real
        probs = probs / probs.sum()
        possible = probs > self._certain
        shares = np.where(possible, probs, 0.0) * history.weight
        parts = [history.shots, history.shots]
        if key is not None:
            draws = np.empty(history.shots.size)
            sampling.uniforms(*key, 1 + operation.place, history.shots, draws)
            ones = draws >= probs[0] if possible.all() else np.full(draws.size, possible[1])
            parts = [history.shots[~ones], history.shots[ones]]
            possible = np.array([part.size > 0 for part in parts])
        first, *others = np.flatnonzero(possible).tolist()
        results = []
        for outcome in others:
            node, weight = history.node.copy(), float(shares[outcome])
            other = OutcomeHistory(node, history.record, parts[outcome], weight, history.at)
            _collapse(operation, other, outcome, probs[outcome])
            results.append(other)
        history.shots, history.weight = parts[first], float(shares[first])
        _collapse(operation, history, first, probs[first])
        return results


def _collapse(operation: Operation, history: OutcomeHistory, outcome: int, probs: float) -> None:
    """Project onto an outcome and record it; a reset sets the qubit to 0 and records nothing."""
    resets = operation.code == RESET
    gate = np.zeros((2, 2), complex)
    gate[0 if resets else outcome, outcome] = 1.0 / np.sqrt(probs)
    history.node.chain.apply(operation.qubits, gate, unitary=False)
    if not resets:
        (clbit,) = operation.clbits
        history.record = history.record & ~(1 << clbit) | outcome << clbit


def _steps(circuit: Circuit, params: NDArray[np.float64], layout: MeasurementLayout) -> list[_Step]:
    """Operations with an effect, with the jumps of conditions."""
    results: list[_Step] = []
    opened: list[int] = []  # steps of open blocks
    expression = -1
    for operation, gate in with_matrices(circuit, params):
        code, role = operation.code, layout.roles[operation.place]
        if gate is not None:
            if operation.qubits:
                results.append(_Step(operation, gate))
        elif code == IF:
            expression += 1
            opened.append(len(results))
            results.append(_Step(operation, None, expression=expression))
        elif code in (ELSE, END_BLOCK):
            at = opened.pop()
            target = len(results) + (code == ELSE)
            results[at] = replace(results[at], jump=target)
            if code == ELSE:
                opened.append(len(results))
                results.append(_Step(operation, None))
        elif (code == MEASURE and role != measurements.TERMINAL) or (
            code == RESET and role != measurements.NO_OP_RESET
        ):
            results.append(_Step(operation, None))
    return results


class DynamicMpsState(outputs.FinalState):
    """State of a dynamic circuit for one binding. Truncation is the weighted mean of the
    histories."""

    def __init__(self, layouts: MpsPlan, run: requests.BindingRun, ranks: Ranks) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._layouts, self._ranks = layouts, ranks
        self._control = ranks.control
        self._run = replace(run, control=self._control)
        self._limits = canonical_chain.ChainLimits.of(run.options)
        self._empty = self._limits.empty(self.num_qubits, layouts.order)
        self._bond, self._count = 1, 0

    def _ended(
        self, layout: MeasurementLayout, shots: int = 0, key: outputs.SeedKey | None = None
    ) -> Iterator[tuple[OutcomeHistory, MatrixProductState]]:
        """Histories of this rank with their final states; see `Histories.walk`."""
        histories = Histories(self._run, layout, self._ranks)
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

    def _report(self) -> None:
        """Set the truncation and the remark, from those of all ranks."""
        self.truncation = sum(self._ranks.values(self.truncation))
        bond, count = max(self._ranks.values(self._bond)), sum(self._ranks.values(self._count))
        self.remark = f"bond {bond}, {count} branches"


def _without(record: int, layout: MeasurementLayout) -> NDArray[np.uint64]:
    """Record as a row, without the clbits that terminal measurements write."""
    written = sum(1 << clbit for clbit in np.flatnonzero(layout.source >= 0).tolist())
    return sampling.records_of([record & ~written], layout.source.size)


# Engine `mps`: a matrix product state, for wide circuits of little entanglement.
#
# Exact while no bond needs more than the option `bond`; else the result reports the discarded
# weight. Circuits of more than 32 qubits are put into an order in which gates span fewer sites
# (`profiler`). Circuits that measure, reset or branch before their end are run history by history
# (`Histories`), circuits with noise by trajectories.


class MpsPlan(MeasurementLayouts, frozen=True, eq=False):
    """Measurements of a structure, and the site of each qubit."""

    order: tuple[int, ...] | None  # None: the circuit's own

    @property
    def memory_bytes(self) -> int:
        """Approximate bytes of its arrays."""
        return super().memory_bytes + 8 * len(self.order or ())


class SharedChainState(ChainState):
    """Matrix product state in all ranks, which share its shots and Pauli strings."""

    def __init__(self, layouts: MpsPlan, chain: MatrixProductState, ranks: Ranks) -> None:
        super().__init__(layouts, chain, ranks.control)
        self._ranks = ranks

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        own = self._ranks.part(shots)
        records = np.zeros((shots, num_words(self._layout.source.size)), np.uint64)

        def fill() -> None:
            first = own.start
            for batch in self.records(np.arange(own.start, own.stop), key):
                records[first : first + len(batch)] = batch
                first += len(batch)

        self._ranks.summed(records, fill)
        yield records, None

    def expectations(self, strings: outputs.PauliStrings) -> NDArray[np.float64]:
        own, values = self._ranks.part(len(strings)), np.zeros(len(strings))

        def fill() -> None:
            values[own] = self._chain.means(strings[own], self._control)

        self._ranks.summed(values, fill)
        return values

    def probabilities(self) -> sampling.Distribution:
        return self._ranks.run(super().probabilities)

    def statevector(self) -> NDArray[np.complexfloating]:
        return self._ranks.run(super().statevector)

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        return self._ranks.run(partial(super().amplitudes, bits))


class MpsEngine(RanksEngine):
    """Matrix product state engine. Ranks share the splits of each layer, and trajectories, shots
    and Pauli strings; each has the whole state."""

    card = CARD

    def __init__(self, comm: Any = None) -> None:
        super().__init__(comm)
        self._alike = self._comm is None or are_alike(self._comm)

    def plan(self, circuit: Circuit, noise: NoiseProgram | None, options: RunOptions) -> Plan:
        """Prepare the structure. With noise, `run` refuses mid-circuit operations, because only the
        support of its outputs counts."""
        if noise is not None:
            requests.check_request(CARD, circuit, noise, options)
            return NoisyChainPlan(noise)
        layouts = requests.plan_layouts(CARD, circuit, noise, options)
        return MpsPlan(layouts.clbits, layouts.state, chain_order(circuit))

    def run(
        self,
        plan: Plan,
        circuit: Circuit,
        request: Request,
        options: RunOptions,
        control: RunControl,
    ) -> EngineResult:
        if isinstance(plan, NoisyChainPlan):
            ranks = Ranks(control, self._comm)
            own = requests.EngineRun(circuit, request, options, ranks.control)
            result = run_noisy(plan, own, ranks)
            return result if self.is_root else None  # type: ignore[return-value]
        return super().run(plan, circuit, request, options, control)

    def final_state(self, run: outputs.BoundRun) -> outputs.FinalState:
        layouts, ranks = run.layouts, Ranks(run.control, self._comm, alike=self._alike)
        assert isinstance(layouts, MpsPlan)
        if layouts.clbits.branching or layouts.state.branching:
            return DynamicMpsState(layouts, run, ranks)
        limits = canonical_chain.ChainLimits.of(run.options)
        chain = canonical_chain.evolve(run.circuit, run.params, layouts.order, limits, ranks)
        if ranks.size == 1:
            return ChainState(layouts, chain, run.control)
        return SharedChainState(layouts, chain, ranks)
