"""Sequences of randomized benchmarking: standard, interleaved and simultaneous.

Random Clifford elements, then the inverse of their product. Outcomes that count as survival are
spread evenly over the sequences by a Pauli X in the last element, so that the mean survival
decays to exactly 1/d (Harper et al., arXiv 1901.00535, section II). Elements of a pair are
synchronized by barriers, so that an interleaved gate changes no idle time (Magesan et al., Phys.
Rev. Lett. 109, 080505).
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
from simenv.calibration.experiments.programs import Alphabet, CircuitPiece


def sequence(
    alphabet: Alphabet,
    group: CliffordGroup,
    length: int,
    flips: int,
    rng: np.random.Generator,
    *,
    interleaved: bool = False,
) -> CircuitPiece:
    """`length` random elements and their inverse, then X on the qubits of the mask `flips`.

    `interleaved`: the entangling gate (of one qubit: the half turn) follows each random element.
    """
    elements = rng.integers(len(group.words), size=length, dtype=np.int32)
    images = group.images[elements]
    if interleaved:
        gate = _interleaved_gate(alphabet, group)
        images = compose(images, np.broadcast_to(gate, images.shape))
    total = product(images)
    last = compose(inverse(total), group.pauli_x(flips))
    closing = group.find(last[None])
    sync = group.num_qubits == 2
    if interleaved:
        elements = np.repeat(elements, 2)
        elements[1::2] = len(group.words)
    return alphabet.words(group, np.concatenate([elements, closing]), sync=sync)


def _interleaved_gate(alphabet: Alphabet, group: CliffordGroup) -> NDArray[np.uint8]:
    entangler = alphabet.gates.entangler
    if group.num_qubits == 2 and entangler is not None:
        return conjugation(entangler_matrix(entangler))
    return conjugation(x_turn(2))


def product(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images under all elements [length, 4^n] one after another, by halving."""
    while len(images) > 1:
        if len(images) % 2:
            identity = np.arange(images.shape[1], dtype=np.uint8)[None]
            images = np.concatenate([images, identity])
        images = compose(images[0::2], images[1::2])
    if not len(images):
        return np.arange(images.shape[1], dtype=np.uint8)
    return images[0]


def simultaneous(
    alphabet: Alphabet, group: CliffordGroup, length: int, flips: int, rng: np.random.Generator
) -> CircuitPiece:
    """One-qubit sequences on both qubits of a pair at the same time (Gambetta et al., Phys. Rev.
    Lett. 109, 240504). `group`: of two qubits, whose first 576 elements are local."""
    one = one_qubit_group()
    elements = rng.integers(24, size=(2, length), dtype=np.int32)
    closing = [
        one.find(compose(inverse(product(one.images[row])), one.pauli_x(flips >> k & 1))[None])
        for k, row in enumerate(elements)
    ]
    first, second = np.concatenate([elements, closing], axis=1)
    return alphabet.words(group, second * np.int32(24) + first, sync=False)
