"""Outputs of a circuit that measures, resets or branches before its end."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.chain.product_state import MatrixProductState
from simulators.circuit.analysis import measurements
from simulators.circuit.expressions import expressions_of
from simulators.circuit.gates import CASE, ELSE, END_BLOCK, IF, MEASURE, RESET, STORE, SWITCH, WHILE
from simulators.circuit.ir import Circuit, Operation, num_words, with_matrices
from simulators.errors import TooManyBranches, TooManySteps
from simulators.execution import sampling
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.requests import BindingRun
from simulators.tensornetwork.mps import canonical_chain

# Circuits that measure, reset or branch before their end: one chain for each history of outcomes.
#
# Histories are followed depth first, so there are no more states at once than measurements. Shots
# with the same outcomes so far share a state. Outcomes are drawn by the seed contract (draw 1 +
# operation), so they are those of the statevector engine, up to rounding.

CERTAIN = {"double": 1e-15, "single": 1e-9}  # less probable outcomes never occur
_OWNERS = (IF, WHILE, SWITCH, CASE, STORE)

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

    def __init__(self, run: BindingRun, layout: measurements.MeasurementLayout) -> None:
        self._steps = _steps(run.circuit, run.params, layout)
        self._expressions = expressions_of(run.circuit) if run.circuit.conditions_data else ()
        self._certain = CERTAIN[run.options.precision]
        self._options, self._control = run.options, run.control
        self._executed = 0
        self.count = 0  # finished histories

    def sampled(
        self, empty: canonical_chain.CanonicalChain, shots: int, key: tuple[int, int]
    ) -> Iterator[OutcomeHistory]:
        """Histories of these shots."""
        yield from self._walk(
            OutcomeHistory(canonical_chain.ChainNode(empty.copy()), 0, np.arange(shots)), key
        )

    def exact(self, empty: canonical_chain.CanonicalChain) -> Iterator[OutcomeHistory]:
        """All histories, with their weights. Raises TooManyBranches."""
        yield from self._walk(
            OutcomeHistory(canonical_chain.ChainNode(empty.copy()), 0, np.zeros(0, np.int64)), None
        )

    def _walk(self, start: OutcomeHistory, key: tuple[int, int] | None) -> Iterator[OutcomeHistory]:
        waiting = [start]
        while waiting:
            history = waiting.pop()
            while history.at < len(self._steps):
                self._control.check()
                step = self._steps[history.at]
                history.at += 1
                self._count_step()
                code = step.operation.code
                if step.gate is not None:
                    history.node.fusion.take(step.operation.qubits, step.gate)
                elif code == IF:
                    if not self._expressions[step.expression].evaluate(history.record):
                        history.at = step.jump
                elif code == ELSE:
                    history.at = step.jump
                elif code in (MEASURE, RESET):
                    waiting += self._split(step.operation, history, key)
            self.count += 1
            if key is None and self.count > self._options.max_branches:
                raise TooManyBranches(
                    f"more than {self._options.max_branches} histories of outcomes, each with a"
                    " matrix product state of its own",
                    hint="ask for counts of shots, raise max_branches, or engine='statevector',"
                    " which merges equal states",
                )
            yield history

    def _count_step(self) -> None:
        self._executed += 1
        if self._executed > self._options.max_steps:
            raise TooManySteps(
                f"more than {self._options.max_steps} operations in all histories",
                hint="raise max_steps or take fewer shots",
            )

    def _split(
        self, operation: Operation, history: OutcomeHistory, key: tuple[int, int] | None
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
        outcomes = np.flatnonzero(possible).tolist()
        results = []
        for outcome in outcomes[1:]:
            other = OutcomeHistory(
                history.node.copy(),
                history.record,
                parts[outcome],
                float(shares[outcome]),
                history.at,
            )
            _collapse(operation, other, outcome, probs[outcome])
            results.append(other)
        first = outcomes[0]
        history.shots, history.weight = parts[first], float(shares[first])
        _collapse(operation, history, first, probs[first])
        return results


def _collapse(operation: Operation, history: OutcomeHistory, outcome: int, probs: float) -> None:
    """Project onto an outcome and record it; a reset sets the qubit to 0 and records nothing."""
    resets = operation.code == RESET
    gate = np.zeros((2, 2), complex)
    gate[0 if resets else outcome, outcome] = 1.0 / np.sqrt(probs)
    chain = history.node.chain
    chain.apply(operation.qubits, gate, unitary=False)
    if not resets:
        (clbit,) = operation.clbits
        history.record = history.record & ~(1 << clbit) | outcome << clbit


def _steps(
    circuit: Circuit, params: NDArray[np.float64], layout: measurements.MeasurementLayout
) -> list[_Step]:
    """Operations with an effect, with the jumps of conditions."""
    results: list[_Step] = []
    opened: list[int] = []  # steps of open blocks
    expression = -1
    for operation, gate in with_matrices(circuit, params):
        code, role = operation.code, layout.roles[operation.place]
        expression += code in _OWNERS
        if gate is not None:
            if operation.qubits:
                results.append(_Step(operation, gate))
        elif code == IF:
            opened.append(len(results))
            results.append(_Step(operation, None, expression=expression))
        elif code in (ELSE, END_BLOCK):
            at = opened.pop()
            target = len(results) + (code == ELSE)
            results[at] = msgspec.structs.replace(results[at], jump=target)
            if code == ELSE:
                opened.append(len(results))
                results.append(_Step(operation, None))
        elif (code == MEASURE and role != measurements.TERMINAL) or (
            code == RESET and role != measurements.NO_OP_RESET
        ):
            results.append(_Step(operation, None))
    return results


_BITS_AT_ONCE = 1 << 24


class DynamicMpsState(FinalState):
    """State of a dynamic circuit for one binding. Truncation is the weighted mean of the
    histories."""

    def __init__(
        self,
        layouts: measurements.MeasurementLayouts,
        run: BindingRun,
        order: tuple[int, ...] | None,
    ) -> None:
        self.num_qubits = run.circuit.num_qubits
        self._layouts = layouts
        self._run, self._control = run, run.control
        self._limits = canonical_chain.ChainLimits.of(run.options)
        self._empty = self._limits.empty(self.num_qubits, order)
        self._bond = 1

    def _histories(self, layout: measurements.MeasurementLayout) -> Histories:
        return Histories(self._run, layout)

    def _note(self, state: MatrixProductState, share: float) -> None:
        self._limits.check_weight(state.truncation)
        self._bond = max(self._bond, state.bond)
        self.truncation += share * state.truncation

    def _close(self, histories: Histories) -> None:
        self.remark = f"bond {self._bond}, {histories.count} branches"

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """Sample as `FinalState.sample`, in the order of the shots."""
        layout = self._layouts.clbits
        histories = self._histories(layout)
        self.truncation = 0.0
        records = np.zeros((shots, num_words(layout.source.size)), np.uint64)
        step = max(1, _BITS_AT_ONCE // max(1, self.num_qubits))
        for history in histories.sampled(self._empty, shots, key):
            state = history.node.state()
            self._note(state, history.shots.size / shots)
            before = _without(history.record, layout)
            for low in range(0, history.shots.size, step):
                batch = history.shots[low : low + step]
                bits = state.sample(batch, key, self._control)
                records[batch] = before | sampling.select_bits(bits, layout.source)
        self._close(histories)
        yield records, None

    def probabilities(self) -> sampling.Distribution:
        layout = self._layouts.clbits
        histories = self._histories(layout)
        self.truncation = 0.0
        source = layout.source if layout.measures else None
        records, probs = [], []
        for history in histories.exact(self._empty):
            state = history.node.state()
            self._note(state, history.weight)
            result, shares = sampling.distribution(state.state(), source)
            before = _without(history.record, layout)
            records.append(result | before if source is not None else result)
            probs.append(history.weight * shares)
        self._close(histories)
        return sampling.tally(np.concatenate(records), np.concatenate(probs))

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        histories = self._histories(self._layouts.state)
        self.truncation = 0.0
        result = np.zeros(len(strings))
        for history in histories.exact(self._empty):
            state = history.node.state()
            self._note(state, history.weight)
            result += history.weight * state.means(strings, self._control)
        self._close(histories)
        return result


def _without(record: int, layout: measurements.MeasurementLayout) -> NDArray[np.uint64]:
    """Record as a row, without the clbits that terminal measurements write."""
    written = sum(1 << clbit for clbit in np.flatnonzero(layout.source >= 0).tolist())
    return sampling.records_of([record & ~written], layout.source.size)
