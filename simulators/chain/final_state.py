"""Outputs of a matrix product state, for the engines that make one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulators.chain.product_state import MatrixProductState
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.control import RunControl
from simulators.execution.outputs import Batch, FinalState, PauliStrings, SeedKey
from simulators.execution.sampling import Distribution, distribution, select_bits

_SHOTS_AT_ONCE = 8_192
_BITS_AT_ONCE = 1 << 24


class ChainState(FinalState):
    """Matrix product state of one binding."""

    def __init__(
        self, layouts: MeasurementLayouts, chain: MatrixProductState, control: RunControl
    ) -> None:
        self.num_qubits = len(chain.tensors)
        self._layout = layouts.clbits
        self._control = control
        self._chain = chain
        self.truncation = chain.truncation
        self.remark = f"bond {chain.bond}"

    @cached_property
    def _amplitudes(self) -> NDArray[np.complexfloating]:
        return self._chain.state()

    def sample(self, shots: int, key: SeedKey) -> Iterator[Batch]:
        """See `FinalState`."""
        step = max(1, min(_SHOTS_AT_ONCE, _BITS_AT_ONCE // max(1, self.num_qubits)))
        for first in range(0, shots, step):
            shot_ids = np.arange(first, min(first + step, shots))
            bits = self._chain.sample(shot_ids, key, self._control)
            yield select_bits(bits, self._layout.source), None

    def probabilities(self) -> Distribution:
        """See `FinalState`."""
        source = self._layout.source if self._layout.measures else None
        return distribution(self._amplitudes, source)

    def expectations(self, strings: PauliStrings) -> NDArray[np.float64]:
        """See `FinalState`."""
        return self._chain.means(strings, self._control)

    def statevector(self) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        return self._amplitudes

    def amplitudes(self, bits: NDArray[np.uint8]) -> NDArray[np.complexfloating]:
        """See `FinalState`."""
        return self._chain.amplitudes(bits, self._control)
