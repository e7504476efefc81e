"""The table of gates against Qiskit's."""

from __future__ import annotations

import numpy as np
import pytest
from qiskit._accelerate.circuit import StandardGate
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Clifford
from reference import matrix

from simulators.circuit.gates import ANY, GATES, OTHERS, unitary

RNG = np.random.default_rng(1)
STANDARD = {gate.name: gate for gate in StandardGate.all_gates()}


def test_all_qiskit_standard_gates_are_known() -> None:
    assert set(STANDARD) <= set(GATES)
    assert not set(GATES) & set(OTHERS)


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_gate_arity_equals_qiskit(name: str) -> None:
    gate, item = GATES[name], STANDARD[name]
    assert gate.params == item.num_params
    assert gate.qubits in (item.num_qubits, ANY)


@pytest.mark.parametrize("name", sorted(GATES))
def test_gate_matrix_equals_qiskit_and_diagonal_flag_is_correct(name: str) -> None:
    gate = GATES[name]
    for width in (1, 2, 3, 5) if gate.qubits == ANY else (gate.qubits,):
        params = tuple(RNG.uniform(-6, 6, gate.params))
        result = unitary(name, params, width)
        np.testing.assert_allclose(result, matrix(name, params, width), atol=1e-12)
        assert gate.diagonal == (np.count_nonzero(result - np.diag(np.diag(result))) == 0)


@pytest.mark.parametrize("name", sorted(set(GATES) - {"global_phase"}))
def test_clifford_flag_agrees_with_qiskit(name: str) -> None:
    gate = GATES[name]
    width = 4 if gate.qubits == ANY else gate.qubits
    operator = unitary(name, (0.7, 0.4, -0.9, 0.3)[: gate.params], width)
    if gate.clifford:
        Clifford.from_matrix(operator)
    else:
        with pytest.raises(QiskitError):
            Clifford.from_matrix(operator)


@pytest.mark.parametrize("name", sorted(GATES))
def test_leading_qubits_are_controls(name: str) -> None:
    gate = GATES[name]
    width = 4 if gate.qubits == ANY else gate.qubits
    controls = width - 1 if gate.controls == ANY else gate.controls
    result = unitary(name, tuple(RNG.uniform(1, 2, gate.params)), width)
    for index in range(1 << width):
        if index & (1 << controls) - 1 != (1 << controls) - 1:
            assert result[index, index] == 1.0
            assert np.count_nonzero(result[index]) == 1
