"""Plans of large states, carried out in plain numpy, against gates applied one by one."""

from __future__ import annotations

import numpy as np
import plain_sweeps
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from random_circuits import unitary_circuits
from reference import apply, matrix, operations

from simulators.circuit.ir import Circuit
from simulators.statevector.planning.stretch import Ends, Stretch, Where, plan

WIDTH = 9  # the least: many passes, with few qubits


def planned(circuit: Circuit, ends: Ends, width: int = WIDTH) -> Stretch:
    return plan(circuit, Where(0, circuit.ops.size, 0, 0), ends, width)


def carried_out(
    made: Stretch, circuit: Circuit, state: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """The state after all passes, in the order of the qubits."""
    found = plain_sweeps.run(made.sweeps, made.floats(circuit, circuit.params), state)
    index = np.arange(state.size)
    at = np.zeros_like(index)
    for qubit, position in enumerate(made.positions):
        at |= (index >> qubit & 1) << position
    return found[at]


def one_by_one(circuit: Circuit, state: NDArray[np.complex128]) -> NDArray[np.complex128]:
    for row in operations(circuit):
        if row.name == "global_phase":
            state = state * np.exp(1j * row.params[0])
        else:
            state = apply(state, matrix(row.name, row.params, len(row.qubits)), row.qubits)
    return state


def start(num_qubits: int, zero: bool) -> NDArray[np.complex128]:
    state = np.zeros(1 << num_qubits, complex)
    state[0] = 1.0
    if not zero:
        rng = np.random.default_rng(5)
        state = rng.normal(size=state.size) + 1j * rng.normal(size=state.size)
        state /= np.linalg.norm(state)
    return state


@settings(derandomize=True, deadline=None, max_examples=100)
@given(circuit=unitary_circuits(9, 11), zero=st.booleans(), free=st.booleans())
def test_a_plan_is_another_circuit(circuit: Circuit, zero: bool, free: bool) -> None:
    state = start(circuit.num_qubits, zero)
    made = planned(circuit, Ends(zero=zero, free=free))
    found = carried_out(made, circuit, state)
    np.testing.assert_allclose(found, one_by_one(circuit, state), atol=1e-12)
    if not free:
        assert made.positions == tuple(range(circuit.num_qubits))
