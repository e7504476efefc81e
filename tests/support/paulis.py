"""Pauli strings in plain numpy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def applied(label: str, state: NDArray[Any]) -> NDArray[np.complex128]:
    """The string's matrix times the state, one letter after the other; qubit 0 comes last."""
    moved = state.astype(complex)
    for qubit, letter in enumerate(reversed(label)):
        pairs = moved.reshape(-1, 2, 1 << qubit).copy()
        if letter in "XY":
            pairs = pairs[:, ::-1].copy()
        if letter == "Y":
            pairs[:, 0] *= -1j
            pairs[:, 1] *= 1j
        if letter == "Z":
            pairs[:, 1] *= -1
        moved = pairs.reshape(-1)
    return moved
