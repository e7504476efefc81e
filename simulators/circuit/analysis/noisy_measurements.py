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


def noisy_layout(circuit: Circuit, noise: NoiseProgram, *, keep: bool = False) -> MeasurementLayout:
    """Layout of a circuit with noise. A measurement or reset takes place where it stands if a
    channel acts on its qubit later, and so does a reset of a qubit in |0> on which one acted."""
    layout = measurement_layout(circuit, keep=keep)
    roles = layout.roles.copy()
    rows = circuit.table.rows[circuit.ops]
    begins = rows[:, 1:3].cumsum(axis=0) - rows[:, 1:3]
    last = np.full(circuit.num_qubits, -2)
    first = np.full(circuit.num_qubits, circuit.ops.size)
    for column in (Q0, Q1):  # locations are in the order of their operations
        mine = noise.locations[noise.locations[:, column] >= 0]
        last[mine[:, column]] = np.maximum(last[mine[:, column]], mine[:, AFTER_OP])
        back = mine[::-1]
        first[back[:, column]] = np.minimum(first[back[:, column]], back[:, AFTER_OP])
    source, numbers = layout.source.copy(), layout.operations.copy()
    for k in np.flatnonzero(roles != ORDINARY).tolist():
        qubit = int(circuit.qubits[begins[k, 0]])
        later = last[qubit] >= k
        if rows[k, 0] == MEASURE and later:
            if roles[k] == TERMINAL:
                clbit = circuit.clbits[begins[k, 1]]
                source[clbit] = numbers[clbit] = -1
            roles[k] = ORDINARY
        elif rows[k, 0] == RESET and roles[k] == NO_OP_RESET and (later or first[qubit] < k):
            roles[k] = ORDINARY
    return msgspec.structs.replace(
        layout, roles=roles, source=source, operations=numbers, branching=True
    )
