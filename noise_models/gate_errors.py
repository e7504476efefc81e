"""Channels of one calibrated gate: coherent over-rotation, depolarizing rest, relaxation.

The three act in this order. Their composition has the measured average gate infidelity e: F(R D
V) = (1 - p) F(R V) + p / d for a depolarizing parameter p, so p = (F(R V) - (1 - e)) / (F(R V) -
1 / d). Where R V alone has an infidelity of e or more, p is 0 and the infidelity stays above e.
(Horodecki et al., quant-ph/9807091; Qiskit Aer's device models.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from noise_models import channel as channels
from noise_models.calibration import GateCalibration, PauliError

_X, _Y, _Z = 1, 2, 3
# Generators of one-qubit gates: Pauli numbers; X for all others.
_AXES = {
    "y": (_Y,), "ry": (_Y,), "sy": (_Y,), "sydg": (_Y,), "h": (_X, _Z),
    "z": (_Z,), "rz": (_Z,), "p": (_Z,), "u1": (_Z,),
    "s": (_Z,), "sdg": (_Z,), "t": (_Z,), "tdg": (_Z,),
}  # fmt: skip
# Generators of two-qubit gates: numbers 4 * second + first; ZZ for all others.
_ZX, _XX, _YY, _ZZ = 4 * _X + _Z, 4 * _X + _X, 4 * _Y + _Y, 4 * _Z + _Z
_PAIRS = {
    "cx": (_ZX,), "ecr": (_ZX,), "rzx": (_ZX,), "ch": (_ZX,), "cy": (4 * _Y + _Z,),
    "rxx": (_XX,), "ms": (_XX,), "xx": (_XX,), "ryy": (_YY,),
    "iswap": (_XX, _YY), "xx_plus_yy": (_XX, _YY), "siswap": (_XX, _YY),
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def _generator(name: str, num_qubits: int) -> NDArray[np.complex128]:
    """Return the Hermitian generator H of a gate's rotation, with tr H^2 = 2^n."""
    indices = _AXES.get(name, (_X,)) if num_qubits == 1 else _PAIRS.get(name, (_ZZ,))
    result = sum(channels.paulis(num_qubits)[number] for number in indices)
    return np.asarray(result / math.sqrt(len(indices)))


def over_rotation(name: str, num_qubits: int, angle_rad: float) -> channels.Channel:
    """Return the channel of exp(-i angle H / 2) for the generator H of a gate's rotation. For cx
    and ecr, control (Z) is the first and drive (X) the second qubit. The axis is X (one qubit) or
    ZZ (two qubits) if it depends on the gate's parameters."""
    values, vectors = np.linalg.eigh(_generator(name, num_qubits))
    phases = np.exp(-0.5j * angle_rad * values)
    return channels.from_unitary((vectors * phases) @ vectors.conj().T)


def coherent_error(
    gate: GateCalibration, num_qubits: int, factor: float = 1.0
) -> channels.Channel | None:
    """Return the over-rotation and then the other rotations of a gate, all angles multiplied by
    `factor`; None: no coherent error."""
    result: channels.Channel | None = None
    if gate.over_rotation_rad and factor:
        result = over_rotation(gate.name, num_qubits, gate.over_rotation_rad * factor)
    for each in gate.rotations if factor else ():
        built = pauli_rotation(each.pauli, each.angle_rad * factor)
        result = built if result is None else result.then(built)
    return result


def pauli_rotation(name: str, angle_rad: float) -> channels.Channel:
    """Return the channel of exp(-i angle P / 2); the first letter of the Pauli acts on the first
    qubit."""
    size = len(name)
    half = 0.5 * angle_rad
    pauli = channels.paulis(size)[channels.pauli_number(name)]
    matrix = math.cos(half) * np.eye(1 << size) - 1j * math.sin(half) * pauli
    return channels.from_unitary(matrix)


def depolarizing_rest(error: float, infidelity: float, num_qubits: int) -> float:
    """Return the depolarizing parameter p that raises an infidelity to the measured error. p is 0
    if the infidelity is not below the error. The error is limited to d / (d + 1), the infidelity of
    the lowest possible average fidelity."""
    side = 1 << num_qubits
    error = min(error, side / (side + 1))
    if error <= infidelity:
        return 0.0
    parameter = side * (error - infidelity) / (side * (1.0 - infidelity) - 1.0)
    return min(parameter, largest_parameter(num_qubits))


def largest_parameter(num_qubits: int) -> float:
    """Return the largest depolarizing parameter of a completely positive map: 4^n / (4^n - 1)."""
    size = 1 << 2 * num_qubits
    return size / (size - 1)


def depolarize(parameter: float, num_qubits: int) -> channels.Channel | None:
    """Return the depolarizing channel, its parameter limited to the largest one; None for 0."""
    if parameter <= 0.0:
        return None
    return channels.depolarizing(min(parameter, largest_parameter(num_qubits)), num_qubits)


def pauli_mixture(
    paulis: Sequence[PauliError], num_qubits: int, factor: float = 1.0
) -> channels.Channel | None:
    """Return the channel of Pauli errors, their probabilities times a factor, at which they are
    limited to a sum of 1; None for 0."""
    probabilities = np.zeros(1 << 2 * num_qubits)
    for each in paulis:
        probabilities[channels.pauli_number(each.pauli)] = each.probability * factor
    total = float(probabilities.sum())
    if total <= 0.0:
        return None
    probabilities /= max(total, 1.0)
    probabilities[0] = max(1.0 - total, 0.0)
    return channels.from_paulis(probabilities)


# Pauli errors of gates on more than two qubits.
#
# Channels act on two qubits at most. In place of the depolarizing channel of n qubits, each pair
# has one of the nine Paulis that act on both of its qubits with probability p in all. A Pauli on
# one qubit of a pair keeps the part g = 1 - 4 p / 3, one on both h = 1 - 8 p / 9; one on w of n
# qubits g^(w (n - w)) h^(w (w - 1) / 2). p gives the average gate fidelity of the depolarizing
# channel; populations after a gate on three qubits then agree with it to first order.


def errors_on_both(probability: float) -> NDArray[np.float64]:
    """Return probabilities of the 16 Paulis of a pair: `probability` on the nine that act on both
    of its qubits."""
    result = np.zeros((4, 4))
    result[1:, 1:] = probability / 9.0
    result[0, 0] = 1.0 - probability
    return result.ravel()


def pair_errors(error: float, relaxation: Sequence[channels.Channel | None]) -> float:
    """Return p of each pair of a gate whose average gate infidelity is `error` with the relaxation
    of its qubits; 0 if the relaxation alone has it."""
    size = len(relaxation)
    side = 1 << size
    # Sum of the diagonal of the relaxation's transfer matrix over Paulis on w qubits, for each w.
    sums = np.ones(1)
    for each in relaxation:
        diagonal = np.ones(4) if each is None else np.diag(each.ptm)
        sums = np.convolve(sums, (1.0, diagonal[1:].sum()))
    weights = np.arange(size + 1)

    def infidelity(p: float) -> float:
        single, both = 1.0 - 4.0 * p / 3.0, 1.0 - 8.0 * p / 9.0
        parts = single ** (weights * (size - weights)) * both ** (weights * (weights - 1) // 2)
        return float((side - (sums @ parts) / side) / (side + 1))

    low, high = 0.0, 0.75
    if error <= infidelity(low):
        return 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if infidelity(middle) < error else (low, middle)
    return low
