"""Circuits of more qubits than go without a plan, from their arrays to results."""

import numpy as np
from arrays import Arrays
from gate_by_gate import one_by_one
from hypothesis import given, settings, strategies as st
from random_circuits import unitary_circuits

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum
from simulators.simulate import simulate

LEAST = 13


def zero(num_qubits: int) -> np.ndarray:
    state = np.zeros(1 << num_qubits, complex)
    state[0] = 1.0
    return state


@settings(derandomize=True, deadline=None, max_examples=40)
@given(circuit=unitary_circuits(LEAST, 14), threads=st.integers(1, 3))
def test_planned_statevector_equals_gate_by_gate(circuit: Circuit, threads: int) -> None:
    expected = one_by_one(circuit, zero(circuit.num_qubits))
    for precision, value in (("double", 1e-12), ("single", 1e-5)):
        result = simulate(
            circuit, shots=0, outputs=("statevector",), precision=precision, threads=threads
        )
        np.testing.assert_allclose(result.row(0).statevector, expected, atol=value)


def entangled(num_qubits: int) -> Arrays:
    arrays = Arrays(num_qubits, num_qubits)
    rng = np.random.default_rng(1)
    for _ in range(3):
        for q in range(num_qubits):
            arrays.add("u", [q], (), rng.uniform(-3, 3, 3).tolist())
        for q in rng.permutation(num_qubits - 1).tolist():
            arrays.add("cx", [q, q + 1])
        arrays.add("swap", [0, num_qubits - 1]).add("swap", [2, 7])
    return arrays


def test_expectations_and_probabilities_use_original_qubit_order() -> None:
    arrays = entangled(14)
    state = one_by_one(arrays.circuit(), zero(14))
    arrays.add("measure", [3], [0])
    observables = (PauliSum(("Z" + "I" * 12 + "X", "I" * 13 + "Y"), np.ones(2)),)
    result = simulate(
        arrays.circuit(), shots=0, outputs=("expectation", "probabilities"), observables=observables
    ).row(0)
    z = np.where(np.arange(state.size) >> 13 & 1, -1.0, 1.0)
    x = np.arange(state.size) ^ 1
    sign = np.where(np.arange(state.size) & 1, 1j, -1j)
    value = np.vdot(state, z * state[x]) + np.vdot(state, sign * state[x])
    assert abs(result.expectations[0][0] - value.real) < 1e-12
    ones = (np.abs(state[np.arange(state.size) >> 3 & 1 == 1]) ** 2).sum()
    assert abs(np.frombuffer(result.probabilities)[1] - ones) < 1e-12
