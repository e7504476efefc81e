"""Gates on three and more qubits: their transfer matrices, and their action on a state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_QUBITS = 4  # widest gate: its transfer matrix has 65,536 entries


def wide_ptm(matrix: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Transfer matrix [4^k, 4^k] of a unitary [2^k, 2^k]; the first qubit is the lowest digit.

    The map rho -> U rho U^+ is written in the Pauli basis one qubit at a time.
    """
    side = len(matrix)
    count = side.bit_length() - 1
    paulis = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    full = np.ones((1, 1, 1), np.complex128)
    for _ in range(count):  # the next qubit is a higher digit
        full = np.einsum("aij,bkl->abikjl", paulis, full).reshape(
            4 * len(full), 2 * full.shape[1], 2 * full.shape[2]
        )
    moved = matrix @ full @ matrix.conj().T
    result = full.reshape(len(full), -1).conj() @ moved.reshape(len(full), -1).T / side
    return np.ascontiguousarray(result.real)


def apply_wide(
    v: NDArray[np.float64], num_qubits: int, ptm: NDArray[np.float64], qubits: tuple[int, ...]
) -> NDArray[np.float64]:
    """The vector [4^n] after a gate on some qubits."""
    count = len(qubits)
    axes = [num_qubits - 1 - qubit for qubit in reversed(qubits)]
    gate = ptm.reshape((4,) * (2 * count))
    moved = np.tensordot(gate, v.reshape((4,) * num_qubits), axes=(range(count, 2 * count), axes))
    return np.ascontiguousarray(np.moveaxis(moved, range(count), axes)).reshape(-1)
