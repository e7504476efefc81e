"""Readout error: probabilities that a measurement returns another outcome."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.errors import NoiseError


class ReadoutGroup(msgspec.Struct, frozen=True, eq=False):
    """Correlated readout of a few qubits; it replaces their own errors if all of them are
    measured."""

    qubits: tuple[int, ...]
    confusion: NDArray[np.float64]  # [2^k, 2^k]: row read, column true; qubits[0] is bit 0


class Readout(msgspec.Struct, frozen=True, eq=False):
    """Readout error of each qubit. Of a model for any number of qubits, the last entry holds for
    all further ones."""

    p01: NDArray[np.float64]  # [qubits]: probability that 0 is read as 1
    p10: NDArray[np.float64]  # [qubits]: probability that 1 is read as 0
    groups: tuple[ReadoutGroup, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (("p01", self.p01), ("p10", self.p10)):
            if values.size and not (values.min() >= 0.0 and values.max() <= 1.0):  # or it is NaN
                raise NoiseError(f"{name} has a value outside 0 to 1", hint="give probabilities")

    @property
    def is_exact(self) -> bool:
        """True if there is no readout error."""
        return not (self.p01.any() or self.p10.any() or self.groups)

    def widened(self, num_qubits: int) -> Readout:
        """Return the readout of this number of qubits, or more, with the last entry repeated."""
        missing = num_qubits - len(self.p01)
        if missing <= 0:
            return self
        p01, p10 = (np.pad(each, (0, missing), "edge") for each in (self.p01, self.p10))
        return Readout(p01, p10, self.groups)

    def of(self, qubits: NDArray[np.int64]) -> Readout:
        """Return the readout of some qubits, renumbered in the given order.

        A group is kept if all of its qubits are among them.
        """
        new = {int(q): k for k, q in enumerate(qubits.tolist())}
        groups = tuple(
            ReadoutGroup(tuple(new[q] for q in group.qubits), group.confusion)
            for group in self.groups
            if all(q in new for q in group.qubits)
        )
        return Readout(self.p01[qubits], self.p10[qubits], groups)
