"""Gates applied one by one in plain numpy, also those of many qubits."""

import numpy as np
from numpy.typing import NDArray
from reference import apply, matrix, operations

from simulators.circuit.ir import Circuit

State = NDArray[np.complex128]


def one_by_one(circuit: Circuit, state: State) -> State:
    """The state after all gates; measurements are left out."""
    for row in operations(circuit):
        if row.name == "global_phase":
            state = state * np.exp(1j * row.params[0])
        elif row.name == "mcx":  # without its matrix, which may be larger than the state
            *controls, target = row.qubits
            index = np.arange(state.size)
            on = np.logical_and.reduce([index >> q & 1 == 1 for q in controls], initial=True)
            state = state[np.where(on, index ^ 1 << target, index)]
        elif row.name == "mcphase":
            on = np.arange(state.size) & sum(1 << q for q in row.qubits)
            state = np.where(on == on.max(), state * np.exp(1j * row.params[0]), state)
        elif row.name != "measure":
            state = apply(state, matrix(row.name, row.params, len(row.qubits)), row.qubits)
    return state
