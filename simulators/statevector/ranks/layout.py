"""Which qubit stands where in a state that is divided among ranks.

Position p < num_local is bit p of an amplitude's index in a rank; the positions above are the bits
of the rank's number. Pure: it says what should change places, others move the amplitudes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.statevector.state import BLOCK_QUBITS


class Layout:
    """A permutation of qubits; the same in every rank at any moment."""

    __slots__ = ("num_local", "positions", "qubits")

    def __init__(self, num_qubits: int, num_local: int) -> None:
        self.num_local = num_local
        self.positions = list(range(num_qubits))  # of each qubit
        self.qubits = list(range(num_qubits))  # at each position

    def copy(self) -> Layout:
        """Another one, equal to this."""
        found = Layout(0, self.num_local)
        found.positions, found.qubits = self.positions.copy(), self.qubits.copy()
        return found

    def become(self, positions: Sequence[int]) -> None:
        """The wires stand there now."""
        self.positions = list(positions)
        for qubit, position in enumerate(positions):
            self.qubits[position] = qubit

    def swap(self, one: int, two: int) -> None:
        """The qubits at two positions have changed places."""
        qubits = self.qubits
        qubits[one], qubits[two] = qubits[two], qubits[one]
        self.positions[qubits[one]], self.positions[qubits[two]] = one, two

    def placed(self, mask: int) -> int:
        """A mask of qubits as a mask of positions."""
        return sum(1 << self.positions[qubit] for qubit in bits(mask))

    def numbers(self, rank: int) -> NDArray[np.int64]:
        """Where a rank's blocks stand in the whole state: int64 [blocks].

        Right only where the lowest BLOCK_QUBITS qubits stand at their own positions.
        """
        found = np.zeros(1 << (self.num_local - BLOCK_QUBITS), np.int64)
        blocks = np.arange(found.size)
        for position in range(BLOCK_QUBITS, self.num_local):
            bit = blocks >> (position - BLOCK_QUBITS) & 1
            found |= bit << (self.qubits[position] - BLOCK_QUBITS)
        for position in range(self.num_local, len(self.qubits)):
            if rank >> (position - self.num_local) & 1:
                found |= 1 << (self.qubits[position] - BLOCK_QUBITS)
        return found

    def exchanges(self, wanted: int) -> list[tuple[int, int]]:
        """Pairs (position in the rank's number, local position) that bring all `wanted` home. Who
        leaves stands above the blocks if at all possible."""
        abroad = [p for q in bits(wanted) if (p := self.positions[q]) >= self.num_local]
        free = [p for p in range(self.num_local) if not wanted >> self.qubits[p] & 1]
        return list(zip(abroad, reversed(free), strict=False))

    def settling(self) -> Iterator[tuple[int, int]]:
        """Pairs of positions to be swapped, one after the other, so that blocks are whole."""
        for qubit in range(BLOCK_QUBITS):
            if self.positions[qubit] != qubit:
                yield self.positions[qubit], qubit

    def aligning(self, like: Layout) -> Iterator[tuple[int, int]]:
        """Pairs of positions to be swapped, one after the other, to become equal to `like`."""
        for position, qubit in enumerate(like.qubits):
            if self.positions[qubit] != position:
                yield self.positions[qubit], position


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
