"""States and operators of Pulser's interface, compared with dense matrices."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pulser")

from simenv.errors import LimitExceededError, OptionError
from simenv.frontends.pulser import SimenvOperator, SimenvState
from simenv.frontends.pulser.states import pauli_sums, pauli_terms, projector_terms

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
OPERATIONS = [
    (0.5, [({"gr": 1.0, "rg": 1.0}, [0, 2]), ({"gr": 1.0j, "rg": -1.0j}, [1])]),
    (2.0, [({"rr": 1.0}, [1])]),
    (1.0 - 0.5j, [({"gr": 0.3, "rr": 1.0j}, [2])]),
    (0.25, []),
]


def dense(operations: Any, atoms: int, basis: str) -> Any:
    """Matrix of an operator, written out."""
    total = np.zeros((2**atoms, 2**atoms), np.complex128)
    for coefficient, product in operations:
        factors = [np.eye(2, dtype=np.complex128) for _ in range(atoms)]
        for single, places in product:
            matrix = np.zeros((2, 2), np.complex128)
            for name, weight in single.items():
                matrix[basis.index(name[0]), basis.index(name[1])] += weight
            for place in places:
                factors[place] = matrix
        total += coefficient * reduce(np.kron, factors)
    return total


def random_state(atoms: int) -> SimenvState:
    rng = np.random.default_rng(5)
    vector = rng.normal(size=2**atoms) + 1j * rng.normal(size=2**atoms)
    return SimenvState(vector / np.linalg.norm(vector))


def operator(operations: Any) -> SimenvOperator:
    return SimenvOperator.from_operator_repr(
        eigenstates=("r", "g"), n_qudits=3, operations=operations
    )


def test_operators_are_the_dense_matrices() -> None:
    matrix, state = dense(OPERATIONS, 3, "gr"), random_state(3)
    other = operator(OPERATIONS[:2])
    applied = operator(OPERATIONS).apply_to(state).statevector
    assert applied == pytest.approx(matrix @ state.statevector)
    product = other @ operator(OPERATIONS) + (-2j) * other
    expected = dense(OPERATIONS[:2], 3, "gr") @ matrix - 2j * dense(OPERATIONS[:2], 3, "gr")
    value = np.vdot(state.statevector, expected @ state.statevector)
    assert product.expect(state) == pytest.approx(complex(value))
    assert isinstance(other.expect(state), float), "Hermitian"


def test_pauli_labels_are_those_of_workers() -> None:
    real, imaginary = pauli_sums(pauli_terms("gr", 3, OPERATIONS), 3)
    total = np.zeros((8, 8), np.complex128)
    for part, unit in ((real, 1.0), (imaginary, 1.0j)):
        for label, coefficient in part.items():
            total += unit * coefficient * reduce(np.kron, [PAULI[letter] for letter in label])
    assert total == pytest.approx(dense(OPERATIONS, 3, "gr"))


def test_projector_on_a_state() -> None:
    amplitudes = {0b101: 0.6 + 0.0j, 0b010: 0.8j}
    state = random_state(3)
    projector = SimenvOperator(projector_terms(3, amplitudes), 3, ("g", "r"))
    target = SimenvState.from_state_amplitudes(
        eigenstates=("r", "g"), amplitudes={"rgr": 0.6, "grg": 0.8j}
    )
    assert projector.expect(state) == pytest.approx(target.overlap(state))
    assert target.get_basis_state_from_index(0b101) == "rgr"


def test_samples_have_the_first_atom_first_and_errors_of_detection() -> None:
    state = SimenvState.from_state_amplitudes(eigenstates=("r", "g"), amplitudes={"rgg": 1.0})
    assert state.sample(num_shots=50) == {"100": 50}
    assert state.sample(num_shots=50, one_state="g") == {"011": 50}
    assert state.sample(num_shots=50, p_false_pos=1.0) == {"111": 50}
    assert state.sample(num_shots=50, p_false_neg=1.0) == {"000": 50}


def test_faults_are_named() -> None:
    with pytest.raises(OptionError, match="eigenstates"):
        SimenvState.from_state_amplitudes(eigenstates=("r", "h"), amplitudes={"rh": 1.0})
    with pytest.raises(LimitExceededError, match="40 atoms"):
        SimenvState.from_state_amplitudes(eigenstates=("r", "g"), amplitudes={"g" * 40: 1.0})
    with pytest.raises(OptionError, match="3 atoms"):
        operator(OPERATIONS).expect(random_state(2))
    wide = [(1.0, [({"rr": 1.0}, range(20))])]
    with pytest.raises(LimitExceededError, match="Pauli terms"):
        pauli_terms("gr", 20, wide)
