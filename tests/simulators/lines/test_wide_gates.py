"""Gates on three and more qubits as gates on one and two: their product is the gate."""

import numpy as np
import pytest
from reference import apply
from scipy.stats import unitary_group

from simulators.circuit import gates
from simulators.lines.wide_gates import parts_of

NAMED = {
    "ccx": 3, "ccz": 3, "cswap": 3, "rccx": 3, "c3sx": 4, "rcccx": 4, "mcx": 5, "mcphase": 4,
}  # fmt: skip


def product(name: str, matrix: np.ndarray) -> np.ndarray:
    size = len(matrix)
    columns = np.eye(size, dtype=complex)
    for qubits, part in parts_of(name, np.ascontiguousarray(matrix, complex).tobytes()):
        assert len(qubits) <= 2
        columns = np.array([apply(column, part, qubits) for column in columns])
    return columns.T


@pytest.mark.parametrize("name", NAMED)
def test_parts_of_named_gates(name: str) -> None:
    angles = (0.7,) if name == "mcphase" else ()
    matrix = gates.unitary(name, angles, NAMED[name])
    assert np.abs(product(name, matrix) - matrix).max() < 1e-10


@pytest.mark.parametrize("qubits", [3, 4])
def test_parts_of_any_matrix(qubits: int) -> None:
    matrix = unitary_group.rvs(2**qubits, random_state=qubits)
    assert np.abs(product("unitary", matrix) - matrix).max() < 1e-9


def test_parts_of_a_unitary_under_controls_of_either_value() -> None:
    matrix = np.eye(8, dtype=complex)
    where = [k for k in range(8) if k & 1 == 0 and k & 4]
    matrix[np.ix_(where, where)] = unitary_group.rvs(2, random_state=1)
    assert np.abs(product("unitary", matrix) - matrix).max() < 1e-12
    assert len(parts_of("unitary", matrix.tobytes())) == 5
