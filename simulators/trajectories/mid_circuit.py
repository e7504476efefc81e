"""Measurements and resets before the end of a circuit whose errors are drawn beforehand."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.analysis.measurements import MeasurementLayout
from simulators.circuit.noise import Readout
from simulators.execution.readout import FIRST_DRAW


class MidCircuit(msgspec.Struct, frozen=True, eq=False):
    """What decides about the measurements and resets of a circuit before its end; [operations] are
    those of the circuit with the unitary parts of its noise."""

    roles: NDArray[np.int64]  # [operations], see `measurements.classify`
    readout: Readout | None
    numbers: NDArray[np.int64]  # [operations]: number to which the readout error refers
    draws: NDArray[np.int64]  # [operations]: number of the draw of that error

    @classmethod
    def of(
        cls,
        layout: MeasurementLayout,
        readout: Readout | None = None,
        operations: NDArray[np.int64] | None = None,
        fresh: NDArray[np.bool_] | None = None,
    ) -> MidCircuit:
        """Make it for a layout without the unitary parts, which `fresh` marks. `operations`: their
        numbers in the whole circuit."""
        roles = layout.roles
        if fresh is None:
            fresh = np.zeros(roles.size, np.bool_)
        if operations is None:
            operations = np.arange(roles.size)
        own = np.maximum(np.cumsum(~fresh) - 1, 0)
        return cls(roles[own], readout, own, FIRST_DRAW + operations[own])

    def readout_error(self, place: int, qubit: int) -> tuple[int, float, float]:
        """Draw of the readout error of a measurement, p01 and p10."""
        rates = (0.0, 0.0)
        if self.readout is not None:
            rates = self.readout.flips(qubit, int(self.numbers[place]))
        return int(self.draws[place]), *rates
