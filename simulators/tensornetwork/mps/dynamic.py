"""Outputs of a circuit that measures, resets or branches before its end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.chain.product_state import MatrixProductState
from simulators.circuit.analysis.measurements import MeasurementLayout, MeasurementLayouts
from simulators.circuit.ir import Circuit, num_words
from simulators.control import RunControl
from simulators.engine import RunOptions
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.sampling import Distribution, distribution, records_of, select_bits, tally
from simulators.tensornetwork.mps.branches import Histories
from simulators.tensornetwork.mps.canonical_chain import CanonicalChain
from simulators.tensornetwork.mps.evolve import site_order
from simulators.tensornetwork.mps.limits import ChainLimits

_BITS_AT_ONCE = 1 << 24


class DynamicMpsState(FinalState):
    """State of a dynamic circuit for one binding. Truncation is the weighted mean of the
    histories."""

    def __init__(
        self,
        layouts: MeasurementLayouts,
        circuit: Circuit,
        params: NDArray[np.float64],
        order: tuple[int, ...] | None,
        options: RunOptions,
        control: RunControl,
    ) -> None:
        self.num_qubits = circuit.num_qubits
        self._layouts = layouts
        self._circuit, self._params = circuit, params
        self._options, self._control = options, control
        self._limits = ChainLimits.of(options)
        self._empty = CanonicalChain(
            site_order(max(1, circuit.num_qubits), order),
            bond=self._limits.bond,
            cutoff=self._limits.cutoff,
            dtype=self._limits.dtype,
        )
        self._bond = 1

    def _histories(self, layout: MeasurementLayout) -> Histories:
        return Histories(self._circuit, self._params, layout, self._options, self._control)

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
                records[batch] = before | select_bits(bits, layout.source)
        self._close(histories)
        yield records, None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        layout = self._layouts.clbits
        histories = self._histories(layout)
        self.truncation = 0.0
        source = layout.source if layout.measures else None
        records, probs = [], []
        for history in histories.exact(self._empty):
            state = history.node.state()
            self._note(state, history.weight)
            result, shares = distribution(state.state(), source)
            before = _without(history.record, layout)
            records.append(result | before if source is not None else result)
            probs.append(history.weight * shares)
        self._close(histories)
        return tally(np.concatenate(records), np.concatenate(probs))

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        histories = self._histories(self._layouts.state)
        self.truncation = 0.0
        result = np.zeros(len(strings))
        for history in histories.exact(self._empty):
            state = history.node.state()
            self._note(state, history.weight)
            result += history.weight * state.means(strings, self._control)
        self._close(histories)
        return result


def _without(record: int, layout: MeasurementLayout) -> NDArray[np.uint64]:
    """Record as a row, without the clbits that terminal measurements write."""
    written = sum(1 << clbit for clbit in np.flatnonzero(layout.source >= 0).tolist())
    return records_of([record & ~written], layout.source.size)
