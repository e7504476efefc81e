"""What peers that run circuits have in common: gates, matrices, counts, the number of shots.

A peer is made with a number of threads. `prepare` converts a number of qubits and gates to the
library's own form before the clock starts; `run` simulates it, draws the shots and returns counts
in the library's own form; `counts` makes a dict by outcome of them. Modules of peers import their
library where it is first used, since most peers run in a process of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOTS = 1_024
# Name, qubits, angles in radians; of "unitary": its matrix instead of angles.
Gate = tuple[str, tuple[int, ...], tuple[Any, ...]]
Counts = Mapping[int, int]  # number of shots by outcome; bit 0 is qubit 0


@functools.cache
def matrix(name: str, angles: tuple[float, ...] = ()) -> NDArray[np.complex128]:
    """Return Qiskit's matrix of a gate; bit 0 of an index is the first qubit."""
    from qiskit.circuit.library import get_standard_gate_name_mapping

    kind = get_standard_gate_name_mapping()[name].base_class
    return np.asarray(kind(*angles).to_matrix(), np.complex128)


def counted(bits: Any) -> tuple[Any, Any]:
    """Return outcomes and their numbers of shots, from bits [shots, qubits], qubit 0 last."""
    weights = 1 << np.arange(bits.shape[1] - 1, -1, -1)
    return np.unique(np.asarray(bits).astype(np.int64) @ weights, return_counts=True)


def by_outcome(result: tuple[Any, Any]) -> Counts:
    """Return counts by outcome, from the arrays of `counted`."""
    return dict(zip(*(part.tolist() for part in result), strict=True))
