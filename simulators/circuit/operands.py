"""Operands of a circuit's operations, in the form that passes over its arrays need."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit


class Operands(msgspec.Struct, frozen=True, eq=False):
    """Qubits of operation k: `wires[first[k] : first[k + 1]]`."""

    codes: NDArray[np.int64]  # [operations]
    counts: NDArray[np.int64]  # [operations]: qubits
    first: NDArray[np.int64]  # [operations + 1]
    wires: NDArray[np.int64]

    @classmethod
    def of(cls, circuit: Circuit) -> Operands:
        """Operands of an admissible circuit."""
        rows = circuit.table.rows
        codes, counts = rows[:, 0][circuit.ops], rows[:, 1][circuit.ops]
        first = np.zeros(counts.size + 1, np.int64)
        counts.cumsum(out=first[1:])
        return cls(codes, counts, first, circuit.qubits.astype(np.int64))

    def qubits(self, k: int) -> tuple[int, ...]:
        """Qubits of operation k."""
        return tuple(self.wires[self.first[k] : self.first[k + 1]].tolist())
