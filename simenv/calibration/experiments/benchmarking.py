"""Sequences of randomized benchmarking: standard, interleaved and simultaneous.

Random Clifford elements, then the inverse of their product. Sequences are spread evenly over the
basis states: X gates on the first qubits are part of the first element, and the outcome that counts
as survival is the basis state. So the mean survival decays to exactly 1/d, whatever the readout
error (Harper et al., Phys. Rev. A 99, 052350). Elements of a pair are synchronized by barriers, so
that an interleaved gate changes no idle time (Magesan et al., Phys. Rev. Lett. 109, 080505).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments.clifford import (
    CliffordGroup,
    compose,
    conjugation,
    inverse,
    one_qubit_group,
)
from simenv.calibration.experiments.native import entangler_matrix, x_turn
from simenv.calibration.experiments.programs import CircuitPiece, NativeGateRows


def sequence(
    alphabet: NativeGateRows,
    group: CliffordGroup,
    length: int,
    flips: int,
    rng: np.random.Generator,
    *,
    interleaved: bool = False,
) -> CircuitPiece:
    """`length` random elements and their inverse, from the basis state `flips` back to it.

    `interleaved`: the entangling gate (with one qubit: the half turn) follows each random element.
    """
    elements = rng.integers(len(group.sequences), size=length, dtype=np.int32)
    images = group.images[elements]
    if interleaved:
        gate = _interleaved_gate(alphabet, group)
        images = compose(images, np.broadcast_to(gate, images.shape))
    closing = group.find(inverse(product(images))[None])
    elements[:1] = _after_flips(group, elements[:1], flips)
    sync = group.num_qubits == 2
    if interleaved:
        elements = np.repeat(elements, 2)
        elements[1::2] = len(group.sequences)
    return alphabet.sequences(group, np.concatenate([elements, closing]), sync=sync)


def _after_flips(
    group: CliffordGroup, elements: NDArray[np.int32], flips: int
) -> NDArray[np.int32]:
    """Elements that act like these after X on the qubits of a mask."""
    images = group.images[elements]
    return group.find(compose(np.broadcast_to(group.pauli_x(flips), images.shape), images))


def _interleaved_gate(alphabet: NativeGateRows, group: CliffordGroup) -> NDArray[np.uint8]:
    entangler = alphabet.gates.entangler
    if group.num_qubits == 2 and entangler is not None:
        return conjugation(entangler_matrix(entangler))
    return conjugation(x_turn(2))


def product(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images under the product of all elements [length, 4^n], by halving."""
    while len(images) > 1:
        if len(images) % 2:
            identity = np.arange(images.shape[1], dtype=np.uint8)[None]
            images = np.concatenate([images, identity])
        images = compose(images[0::2], images[1::2])
    if not len(images):
        return np.arange(images.shape[1], dtype=np.uint8)
    return np.asarray(images[0])


def simultaneous(
    alphabet: NativeGateRows,
    group: CliffordGroup,
    length: int,
    flips: int,
    rng: np.random.Generator,
) -> CircuitPiece:
    """One-qubit sequences on both qubits of a pair at the same time (Gambetta et al., Phys. Rev.
    Lett. 109, 240504). `group`: of two qubits, whose first 576 elements are local."""
    group_1q = one_qubit_group()
    elements = rng.integers(24, size=(2, length), dtype=np.int32)
    closing = [group_1q.find(inverse(product(group_1q.images[row]))[None]) for row in elements]
    for k in range(2):
        elements[k, :1] = _after_flips(group_1q, elements[k, :1], flips >> k & 1)
    first, second = np.concatenate([elements, closing], axis=1)
    return alphabet.sequences(group, second * np.int32(24) + first, sync=False)
