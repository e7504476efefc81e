"""The protocol of peers that run circuits, and their number of shots.

A peer is made with a number of threads. `prepare` converts gates to the library's own form before
the clock starts; `run` simulates, draws the shots and returns counts in the library's own form.
Modules of peers import their library where it is first used, since most peers run in a process of
their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

SHOTS = 1_024
Gate = tuple[str, tuple[int, ...], tuple[float, ...]]  # name, qubits, angles in radians
# Matrix of ecr on qubits (a, b); bit 0 of an index is qubit a, as Qiskit defines it.
ECR = np.array([[0, 1, 0, 1j], [1, 0, -1j, 0], [0, 1j, 0, 1], [-1j, 0, 1, 0]]) * 0.5**0.5
Counts = Mapping[int, int]  # number of shots by outcome; bit 0 is qubit 0


class Peer(Protocol):
    """A library, or simenv's engine, that runs circuits."""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        """Return the argument of `run`."""

    def run(self, job: Any) -> Any:
        """Return counts in the library's own form."""

    def counts(self, result: Any) -> Counts:
        """Convert counts from the library's form; this is not timed."""
