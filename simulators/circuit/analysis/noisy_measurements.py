"""Classification of measurements and resets where noise acts on their qubits."""

from __future__ import annotations

import msgspec
import numpy as np

from simulators.circuit.analysis.measurements import (
    NO_OP_RESET,
    ORDINARY,
    TERMINAL,
    MeasurementLayout,
    measurement_layout,
)
from simulators.circuit.gates import MEASURE, RESET
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import AFTER_OP, Q0, Q1, NoiseProgram
from simulators.compiler.kernel import I64, INTS2, NAMES, U16, kernel


def noisy_layout(circuit: Circuit, noise: NoiseProgram, *, keep: bool = False) -> MeasurementLayout:
    """Layout of a circuit with noise. A measurement or reset stays at its place if a channel acts
    on its qubit later, and so does a reset of a qubit in |0> on which a channel acted."""
    layout = measurement_layout(circuit, keep=keep)
    _place_measurements(
        circuit.table.rows, circuit.ops, circuit.qubits, circuit.clbits, noise.locations,
        np.empty((2, circuit.num_qubits), np.int64), layout.roles, layout.source, layout.operations,
    )  # fmt: skip
    return msgspec.structs.replace(layout, branching=True)


@kernel(NAMES, U16, U16, U16, INTS2, INTS2, I64, I64, I64, group="attachment")
def _place_measurements(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, locations, bounds, roles, source, op_ids
):
    """Change the arrays of a layout; see `noisy_layout`. `bounds` [2, qubits]: scratch."""
    for q in range(bounds.shape[1]):
        bounds[0, q], bounds[1, q] = ops.size, -2  # the first and the last location of a qubit
    for place in range(locations.shape[0]):
        after = locations[place, AFTER_OP]
        for column in (Q0, Q1):
            q = locations[place, column]
            if q >= 0:
                bounds[0, q] = min(bounds[0, q], after)
                bounds[1, q] = max(bounds[1, q], after)
    at = bit = 0
    for k in range(ops.size):
        code = rows[ops[k], 0]
        if roles[k] != ORDINARY:
            first, last = bounds[0, qubits[at]], bounds[1, qubits[at]]
            if code == MEASURE and last >= k:
                if roles[k] == TERMINAL:
                    source[clbits[bit]] = op_ids[clbits[bit]] = -1
                roles[k] = ORDINARY
            elif code == RESET and roles[k] == NO_OP_RESET and (last >= k or first < k):
                roles[k] = ORDINARY
        at += rows[ops[k], 1]
        bit += rows[ops[k], 2]
