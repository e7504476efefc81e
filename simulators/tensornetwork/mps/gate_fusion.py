"""Fusion of gates on the same one or two qubits before they reach a matrix product state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.complexfloating]
Apply = Callable[[tuple[int, ...], Matrix], None]  # qubits; matrix, its first qubit the lowest bit


class GateFusion:
    """Waiting gates: at most one block of one or two qubits for each qubit."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._blocks: dict[int, tuple[tuple[int, ...], Matrix]] = {}  # by each of its qubits

    def copy(self, apply: Apply) -> GateFusion:
        """Copy of the waiting gates, for another state."""
        result = GateFusion(apply)
        result._blocks = self._blocks.copy()
        return result

    def take(self, qubits: tuple[int, ...], gate: Matrix) -> None:
        """Add a gate [2**k, 2**k], its first qubit the lowest bit."""
        if len(qubits) > 2:
            self.flush(qubits)
            self._apply(qubits, gate)
            return
        held = {self._blocks[q][0] for q in qubits if q in self._blocks}
        owner = next((block for block in held if set(qubits) <= set(block)), None)
        if owner is not None:
            _, before = self._blocks[owner[0]]
            self._keep(owner, _widened(gate, qubits, owner) @ before)
            return
        for block in sorted(held):
            if len(block) == 2:
                self._drop(block[0])
        for qubit in qubits:
            if qubit in self._blocks:
                single, before = self._blocks.pop(qubit)
                gate = gate @ _widened(before, single, qubits)
        self._keep(qubits, gate)

    def flush(self, qubits: tuple[int, ...] | None = None) -> None:
        """Apply all waiting gates, or those of some qubits."""
        for qubit in list(self._blocks) if qubits is None else qubits:
            self._drop(qubit)

    def _keep(self, qubits: tuple[int, ...], gate: Matrix) -> None:
        for qubit in qubits:
            self._blocks[qubit] = qubits, gate

    def _drop(self, qubit: int) -> None:
        if qubit not in self._blocks:
            return
        qubits, gate = self._blocks[qubit]
        for each in qubits:
            del self._blocks[each]
        self._apply(qubits, gate)


def _widened(gate: Matrix, qubits: tuple[int, ...], onto: tuple[int, ...]) -> Matrix:
    """Gate on `qubits` as one on `onto`, which contains them."""
    if qubits == onto:
        return gate
    if len(qubits) == 1:
        high, low = (_ONE, gate) if qubits[0] == onto[0] else (gate, _ONE)
        return np.asarray(high[:, None, :, None] * low[None, :, None, :]).reshape(4, 4)
    return gate.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)


_ONE: Matrix = np.eye(2, dtype=complex)
