"""Gates that are given as matrices, as standard gates.

One qubit: Euler angles. Two qubits: Cartan's decomposition in the magic basis, Kraus and Cirac,
Phys. Rev. A 63, 062309 (2001), with four CX at most. Invariant: each result is multiplied out and
compared with the matrix before it is returned.
"""

from __future__ import annotations

import cmath
import math

import numpy as np

from simenv_myqlm.errors import UnsupportedError

MAX_QUBITS = 2
_TOLERANCE = 1e-9  # of an entry of the product, relative to a unitary matrix
_NOT_UNITARY = 1e-6
_TRIES = 32  # random combinations of two commuting matrices; the first nearly always does

Step = tuple[str, tuple[float, ...], tuple[int, ...]]  # gate, angles, indices of its qubits

_H = np.array([[1, 1], [1, -1]]) / math.sqrt(2)
_CX = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
_MAGIC = np.array([[1, 0, 0, 1j], [0, 1j, 1, 0], [0, 1j, -1, 0], [1, 0, 0, -1j]]) / math.sqrt(2)


def steps_of(matrix: object, name: str) -> tuple[list[Step], float]:
    """Return standard gates (u3, cx, rx, rz, rzz, h) in order, and the global phase, in radians, of
    a unitary matrix [2, 2] or [4, 4], the first qubit most significant. Raises UnsupportedError."""
    target = np.asarray(matrix, dtype=np.complex128)
    size = 1 << MAX_QUBITS
    if target.ndim != 2 or target.shape[0] != target.shape[1] or target.shape[0] not in (2, 4):
        hint = f"matrices of {MAX_QUBITS} qubits at most; give larger gates a circuit_generator"
        raise UnsupportedError(f"gate {name!r} has a matrix of shape {target.shape}", hint)
    identity = np.eye(len(target))
    if not np.abs(target.conj().T @ target - identity).max() < _NOT_UNITARY:  # also of NaN
        raise UnsupportedError(f"the matrix of gate {name!r} is not unitary", "check its entries")
    steps = [_turn(target, 0)] if len(target) < size else _two_qubits(target)
    product = _product(steps, len(target))
    phase = cmath.phase(complex(np.vdot(product, target)))
    if not np.abs(product * cmath.exp(1j * phase) - target).max() < _TOLERANCE:
        hint = "give the gate a circuit_generator"
        raise UnsupportedError(f"the matrix of gate {name!r} has no exact decomposition", hint)
    return steps, phase


def _turn(matrix: np.ndarray, qubit: int) -> Step:
    """Return u3(theta, phi, lambda) of a unitary [2, 2], up to its phase."""
    theta = 2 * math.atan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    if abs(matrix[0, 0]) < 1e-12:
        return "u3", (theta, cmath.phase(matrix[1, 0]) - cmath.phase(-matrix[0, 1]), 0.0), (qubit,)
    start = cmath.phase(matrix[0, 0])
    if abs(matrix[1, 0]) < 1e-12:
        return "u3", (theta, 0.0, cmath.phase(matrix[1, 1]) - start), (qubit,)
    phi, lam = cmath.phase(matrix[1, 0]) - start, cmath.phase(-matrix[0, 1]) - start
    return "u3", (theta, phi, lam), (qubit,)


def _two_qubits(matrix: np.ndarray) -> list[Step]:
    """Return the gates of (K1 x K2) exp(i (a XX + b YY + c ZZ)) (K3 x K4)."""
    special = matrix / np.linalg.det(matrix) ** 0.25
    inside = _MAGIC.conj().T @ special @ _MAGIC
    vectors = _real_eigenvectors(inside.T @ inside)
    if np.linalg.det(vectors) < 0:
        vectors[:, 0] = -vectors[:, 0]
    angles = np.angle(np.diag(vectors.T @ inside.T @ inside @ vectors)) / 2
    left = inside @ vectors @ np.diag(np.exp(-1j * angles))
    if np.linalg.det(left).real < 0:  # a square root's sign
        angles[0] += math.pi
        left[:, 0] = -left[:, 0]
    after = _MAGIC @ left @ _MAGIC.conj().T
    before = _MAGIC @ vectors.T @ _MAGIC.conj().T
    # XX, YY and ZZ are diagonal in the magic basis, with these signs.
    signs = [np.real(np.diag(_MAGIC.conj().T @ np.kron(p, p) @ _MAGIC)) for p in _PAULIS]
    a, b, c = (float(sign @ angles) / 4 for sign in signs)
    steps = [_turn(part, k) for k, part in enumerate(_factors(before))]
    if max(abs(math.sin(each)) for each in (a, b, c)) > 1e-12:
        # CX turns XX, YY and ZZ into X1, -X1 Z2 and Z2.
        steps += [("cx", (), (0, 1)), ("rx", (-2 * a,), (0,)), ("rz", (-2 * c,), (1,))]
        if abs(math.sin(b)) > 1e-12:
            steps += [("h", (), (0,)), ("rzz", (2 * b,), (0, 1)), ("h", (), (0,))]
        steps.append(("cx", (), (0, 1)))
    return steps + [_turn(part, k) for k, part in enumerate(_factors(after))]


_PAULIS = (
    np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.array([[1, 0], [0, -1]])
)  # fmt: skip


def _real_eigenvectors(matrix: np.ndarray) -> np.ndarray:
    """Return real orthogonal eigenvectors of a symmetric unitary matrix: its real and imaginary
    parts commute, and a combination of them has nearly always no equal eigenvalues by chance."""
    random = np.random.default_rng(0)
    vectors = np.eye(len(matrix))
    for _ in range(_TRIES):
        first, second = random.standard_normal(2)
        _, vectors = np.linalg.eigh(first * matrix.real + second * matrix.imag)
        inside = vectors.T @ matrix @ vectors
        if np.abs(inside - np.diag(np.diag(inside))).max() < 1e-11:
            break
    return vectors


def _factors(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return unitary A and B with A x B equal to a matrix [4, 4], up to a phase."""
    blocks = matrix.reshape(2, 2, 2, 2)  # row of A, of B, column of A, of B
    row, column = divmod(
        int(np.argmax([np.linalg.norm(blocks[i, :, j]) for i in (0, 1) for j in (0, 1)])), 2
    )
    second = blocks[row, :, column]
    second = second / cmath.sqrt(complex(np.linalg.det(second)))
    first = np.einsum("iajb,ab->ij", blocks, second.conj()) / 2
    return first, second


def _product(steps: list[Step], size: int) -> np.ndarray:
    """Return the matrix of some gates."""
    result = np.eye(size, dtype=np.complex128)
    for name, angles, qubits in steps:
        matrix = _matrix(name, angles)
        if len(matrix) < size:
            first, second = (matrix, np.eye(2)) if qubits[0] == 0 else (np.eye(2), matrix)
            matrix = np.kron(first, second)
        result = matrix @ result
    return result


def _matrix(name: str, angles: tuple[float, ...]) -> np.ndarray:
    if name == "u3":
        theta, phi, lam = angles
        c, s = math.cos(theta / 2), math.sin(theta / 2)
        return np.array(
            [[c, -s * cmath.exp(1j * lam)],
             [s * cmath.exp(1j * phi), c * cmath.exp(1j * (phi + lam))]]
        )  # fmt: skip
    if name in ("cx", "h"):
        return _CX if name == "cx" else _H
    half = angles[0] / 2
    if name == "rx":
        real, imag = math.cos(half), -1j * math.sin(half)
        return np.array([[real, imag], [imag, real]])
    down, up = cmath.exp(-1j * half), cmath.exp(1j * half)
    return np.diag([down, up] if name == "rz" else [down, up, up, down])
