"""Gate lists: gates of a narrow state as placed factors, in order."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import FIRST_GATE
from simulators.circuit.ir import Circuit
from simulators.compiler.kernel import kernel
from simulators.statevector.checkpoint import arrays_of
from simulators.statevector.small.gate_kernels import COUNTS, place


@kernel("NAMES U16 U16 F64 INT INT INT INT WORDS2 REALS2 -> INT", group="deferred")
def place_all(  # type: ignore[no-untyped-def]
    rows, ops, qubits, params, first, last, at_qubit, at_param, ints, floats
):
    """Write the steps of operations first .. last - 1 in order; returns their number."""
    row = first - first
    for k in range(first, last):
        op = ops[k]
        if rows[op, 0] >= FIRST_GATE:
            row = place(
                rows[op, 0], qubits, at_qubit, rows[op, 1], params, at_param, ints, floats, row
            )
        at_qubit += rows[op, 1]
        at_param += rows[op, 3]
    return row


class GateList(msgspec.Struct, frozen=True, eq=False):
    """Steps of a range of operations; a binding supplies the numbers (`floats`)."""

    first: int  # operations first .. last - 1
    last: int
    at_qubit: int  # index of their first qubit and parameter
    at_param: int
    steps: NDArray[np.uint64]  # [steps, 4]
    costs: tuple[float, ...] = ()  # the state is small
    num_steps: int = 0

    @property
    def operations(self) -> int:
        return self.last - self.first

    @property
    def memory_bytes(self) -> int:
        return self.steps.nbytes

    def arrays(self) -> list[NDArray[Any]]:
        return arrays_of(self)

    def floats(self, circuit: Circuit, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrices of all steps for these parameters: float64 [steps, 8]."""
        floats = np.empty((len(self.steps), 8))
        self._place(circuit, params, np.empty_like(self.steps), floats)
        return floats

    def _place(
        self,
        circuit: Circuit,
        params: NDArray[np.float64],
        steps: NDArray[np.uint64],
        floats: NDArray[np.float64],
    ) -> None:
        place_all(
            circuit.table.rows, circuit.ops, circuit.qubits, params, self.first, self.last,
            self.at_qubit, self.at_param, steps, floats,
        )  # fmt: skip


def plan_gate_list(
    circuit: Circuit, first: int, last: int, at_qubit: int, at_param: int
) -> GateList:
    """Plan the gates among operations first .. last - 1; other operations have no effect."""
    steps = int(COUNTS[circuit.table.rows[circuit.ops[first:last], 0]].sum())
    result = GateList(first, last, at_qubit, at_param, np.empty((steps, 4), np.uint64))
    result._place(circuit, circuit.params, result.steps, np.empty((steps, 8)))
    return result
