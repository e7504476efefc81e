"""Arrays of a circuit and of its operations, in the forms that kernels take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.compiler.kernel import F64, I64, INT, NAMES, U16, record


@record
class CircuitArrays(NamedTuple):
    """Arrays of a `Circuit`, with the rows of its table."""

    rows: NAMES
    ops: U16
    qubits: U16
    clbits: U16
    params: F64
    num_qubits: INT
    num_clbits: INT

    @classmethod
    def of(cls, circuit: Circuit, params: NDArray[np.float64] | None = None) -> CircuitArrays:
        """Arrays of a circuit; `params`: read-only, in place of its own."""
        return cls(
            circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits,
            circuit.params if params is None else params, circuit.num_qubits, circuit.num_clbits,
        )  # fmt: skip


@record
class Operands(NamedTuple):
    """Qubits of operation k: `wires[first[k] : first[k + 1]]`."""

    codes: I64  # [operations]
    counts: I64  # [operations]: qubits
    first: I64  # [operations + 1]
    wires: I64

    @classmethod
    def of(cls, circuit: Circuit) -> Operands:
        """Operands of an admissible circuit."""
        rows = circuit.table.rows
        codes, counts = rows[:, 0][circuit.ops], rows[:, 1][circuit.ops]
        first = np.zeros(counts.size + 1, np.int64)
        counts.cumsum(out=first[1:])
        return cls(codes, counts, first, circuit.qubits.astype(np.int64))

    def qubits(self, k: int) -> tuple[int, ...]:
        return tuple(self.wires[self.first[k] : self.first[k + 1]].tolist())
