"""The protocol of peers that run circuits, and their number of shots.

A peer is made with a number of threads. `prepare` converts gates to the library's own form before
the clock starts; `run` simulates, draws the shots and returns counts in the library's own form.
Modules of peers import their library where it is first used, since most peers run in a process of
their own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SHOTS = 1_024
Gate = tuple[str, tuple[int, ...], tuple[float, ...]]  # name, qubits, angles in radians
Counts = Mapping[int, int]  # number of shots by outcome; bit 0 is qubit 0
# Gates that all libraries have: their names in qulacs, cirq and PennyLane.
NAMES = {
    "h": ("H", "H", "Hadamard"), "x": ("X", "X", "PauliX"), "s": ("S", "S", "S"),
    "t": ("T", "T", "T"), "rx": ("RX", "rx", "RX"), "ry": ("RY", "ry", "RY"),
    "rz": ("RZ", "rz", "RZ"), "cx": ("CNOT", "CNOT", "CNOT"), "cz": ("CZ", "CZ", "CZ"),
    "swap": ("SWAP", "SWAP", "SWAP"),
}  # fmt: skip
QULACS, CIRQ, PENNYLANE = range(3)


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


class Peer(Protocol):
    """A library, or simenv's engine, that runs circuits."""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        """Return the argument of `run`."""

    def run(self, job: Any) -> Any:
        """Return counts in the library's own form."""

    def counts(self, result: Any) -> Counts:
        """Convert counts from the library's form; this is not timed."""
