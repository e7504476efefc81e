"""Expectation values of Pauli strings, against plain matrices."""

import numpy as np
import pytest
from paulis import applied

from simulators.engine import RunControl, ThreadPool
from simulators.execution import outputs
from simulators.statevector.backend import pauli_sums
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.state import State


def random_state(num_qubits: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    state = rng.normal(size=1 << num_qubits) + 1j * rng.normal(size=1 << num_qubits)
    return state / np.linalg.norm(state)


def found(state: np.ndarray, labels: list[str], threads: int = 1) -> np.ndarray:
    control = RunControl()
    strings = [outputs.masks(label, len(labels[0])) for label in labels]
    with ThreadPool(threads, control) as thread_pool:
        return LocalBackend(thread_pool, control).expectations(State(state), strings)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4, 6, 12, 14])
@pytest.mark.parametrize("letters", ["IXYZ", "IZ", "XY"])
def test_pauli_expectations_match_dense_matrices(num_qubits: int, letters: str) -> None:
    """Few and many of a kind: many are summed all at once."""
    rng = np.random.default_rng(num_qubits)
    state = random_state(num_qubits, 1)
    labels = ["".join(row) for row in rng.choice(list(letters), (40, num_qubits))]
    expected = [np.vdot(state, applied(label, state)).real for label in labels]
    np.testing.assert_allclose(found(state, labels), expected, atol=1e-13)


def test_expectations_are_identical_for_1_and_2_threads() -> None:
    state = random_state(17, 3)
    rng = np.random.default_rng(0)
    labels = ["".join(row) for row in rng.choice(list("IXYZ"), (12, 17))]
    labels += ["".join(row) for row in rng.choice(list("IZ"), (20, 17))]
    assert found(state, labels).tobytes() == found(state, labels, threads=2).tobytes()


def test_single_precision_is_summed_in_double() -> None:
    state = random_state(13, 5).astype(np.complex64)
    labels = ["Z" * 13, "X" + "I" * 12, "YX" + "Z" * 11]
    expected = [np.vdot(state.astype(complex), applied(label, state)).real for label in labels]
    np.testing.assert_allclose(found(state, labels), expected, atol=1e-12)


def test_pauli_groups_mark_those_summed_for_all_signs() -> None:
    strings = [(0, z) for z in range(8)] + [(3, z) for z in (0, 1)] + [(5, z) for z in range(16)]
    marks = {
        int(x): signs
        for x, _, _, _, signs in (each.strings for each in pauli_sums.pauli_groups(strings))
    }
    assert marks == {0: pauli_sums.EVEN, 3: 0, 5: pauli_sums.EVEN | pauli_sums.ODD}
