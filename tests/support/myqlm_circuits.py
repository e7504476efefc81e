"""Circuits of records by matrices: qubit 0 is the most significant, as in myQLM's documentation."""

import cmath
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simenv_myqlm.records import Circuit, Gate, Observable

Array = NDArray[np.complex128]
PAULIS: dict[str, Any] = {
    "I": np.eye(2), "X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}  # fmt: skip


def rotation(letters: str, angle: float) -> Array:
    pauli = PAULIS[letters[0]]
    for letter in letters[1:]:
        pauli = np.kron(pauli, PAULIS[letter])
    return math.cos(angle / 2) * np.eye(len(pauli)) - 1j * math.sin(angle / 2) * pauli


def matrix_of(gate: Gate) -> Array:
    """The matrix of a gate with its controls, which come first."""
    name, angles = gate.name, [float(angle) for angle in gate.params]
    if name[:2] == "C-":
        inner = matrix_of(Gate(name[2:], gate.params, gate.qubits[1:], gate.matrix))
        result = np.eye(2 * len(inner), dtype=np.complex128)
        result[len(inner) :, len(inner) :] = inner
        return result
    if name[:2] == "D-":
        return matrix_of(Gate(name[2:], gate.params, gate.qubits, gate.matrix)).conj().T
    if gate.matrix is not None:
        return np.array(gate.matrix)
    if name in ("CNOT", "CSIGN", "CCNOT"):
        longer = {"CNOT": "C-X", "CSIGN": "C-Z", "CCNOT": "C-C-X"}[name]
        return matrix_of(Gate(longer, (), gate.qubits))
    if name in ("RX", "RY", "RZ", "RXX", "RYY", "RZZ"):
        return rotation(name[1:], *angles)
    if name in ("U3", "U"):
        theta, phi, lam = angles
        c, s = math.cos(theta / 2), math.sin(theta / 2)
        return np.array(
            [[c, -s * cmath.exp(1j * lam)],
             [s * cmath.exp(1j * phi), c * cmath.exp(1j * (phi + lam))]]
        )  # fmt: skip
    if name == "U2":
        return matrix_of(Gate("U3", (math.pi / 2, *angles), gate.qubits))
    half = (1 + 1j) / 2
    fixed: dict[str, Any] = {
        **PAULIS, "H": np.array([[1, 1], [1, -1]]) / math.sqrt(2), "S": np.diag([1, 1j]),
        "T": np.diag([1, cmath.exp(1j * math.pi / 4)]),
        "SWAP": np.eye(4)[[0, 2, 1, 3]],
        "ISWAP": np.array([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]]),
        "SQRTSWAP": np.array([[1, 0, 0, 0], [0, half, half.conjugate(), 0],
                              [0, half.conjugate(), half, 0], [0, 0, 0, 1]]),
    }  # fmt: skip
    return fixed[name] if name in fixed else np.diag([1, cmath.exp(1j * angles[0])])  # PH, U1


def state_of(circuit: Circuit) -> Array:
    """Amplitudes by states."""
    size = circuit.num_qubits
    state = np.zeros((2,) * size, dtype=np.complex128)
    state[(0,) * size] = 1
    for gate in circuit.instructions:
        assert isinstance(gate, Gate)
        width = len(gate.qubits)
        tensor = matrix_of(gate).reshape((2,) * (2 * width))
        state = np.tensordot(tensor, state, (range(width, 2 * width), gate.qubits))
        state = np.moveaxis(state, range(width), gate.qubits)
    return state.reshape(-1)


def mean_of(observable: Observable, circuit: Circuit) -> float:
    state, total = state_of(circuit), complex(observable.constant)
    for term in observable.terms:
        letters = dict(zip(term.qubits, term.paulis, strict=True))
        matrix = np.eye(1)
        for qubit in range(circuit.num_qubits):
            matrix = np.kron(matrix, PAULIS[letters.get(qubit, "I")])
        total += term.coefficient * np.vdot(state, matrix @ state)
    return total.real
