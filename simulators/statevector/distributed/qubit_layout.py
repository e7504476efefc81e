"""Qubit layout of a distributed state, and a rank's slice of it.

Position p < num_local is bit p of an amplitude's index in a rank; higher positions are the bits of
the rank number. The layout is pure: it names the positions to exchange; the executor moves the
amplitudes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.compiler.kernel import INT, REALS, SINGLES, kernel
from simulators.engine import RunOptions
from simulators.errors import OutOfMemory
from simulators.statevector import state
from simulators.statevector.planning.tables import LANES
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, BlockExecutor, State


class Layout:
    """Permutation of qubits; the same in every rank at any time."""

    __slots__ = ("num_local", "positions", "qubits")

    def __init__(self, num_qubits: int, num_local: int) -> None:
        self.num_local = num_local
        self.positions = list(range(num_qubits))  # of each qubit
        self.qubits = list(range(num_qubits))  # at each position

    def copy(self) -> Layout:
        """Independent copy."""
        result = Layout(0, self.num_local)
        result.positions, result.qubits = self.positions.copy(), self.qubits.copy()
        return result

    def become(self, positions: Sequence[int]) -> None:
        """Set the position of each wire."""
        self.positions = list(positions)
        for qubit, position in enumerate(positions):
            self.qubits[position] = qubit

    def swap(self, a: int, b: int) -> None:
        """Note that the qubits at two positions were exchanged."""
        qubits = self.qubits
        qubits[a], qubits[b] = qubits[b], qubits[a]
        self.positions[qubits[a]], self.positions[qubits[b]] = a, b

    def placed(self, mask: int) -> int:
        """Convert a mask of qubits to a mask of positions."""
        return sum(1 << self.positions[qubit] for qubit in bits(mask))

    def basis_indices(self, rank: int) -> NDArray[np.int64]:
        """Positions of a rank's blocks in the full state: int64 [blocks].

        Valid only if the lowest BLOCK_QUBITS qubits are at their own positions.
        """
        result = np.zeros(1 << (self.num_local - BLOCK_QUBITS), np.int64)
        blocks = np.arange(result.size)
        for position in range(BLOCK_QUBITS, self.num_local):
            bit = blocks >> (position - BLOCK_QUBITS) & 1
            result |= bit << (self.qubits[position] - BLOCK_QUBITS)
        for position in range(self.num_local, len(self.qubits)):
            if rank >> (position - self.num_local) & 1:
                result |= 1 << (self.qubits[position] - BLOCK_QUBITS)
        return result

    def exchanges(self, wanted: int) -> list[tuple[int, int]]:
        """Pairs (position in the rank number, local position) that make all `wanted` qubits local.
        The evicted qubits are above the blocks if possible."""
        abroad = [p for q in bits(wanted) if (p := self.positions[q]) >= self.num_local]
        free = [p for p in range(self.num_local) if not wanted >> self.qubits[p] & 1]
        return list(zip(abroad, reversed(free), strict=False))

    def settling(self) -> Iterator[tuple[int, int]]:
        """Pairs of positions to swap one after the other, so that blocks are whole."""
        for qubit in range(BLOCK_QUBITS):
            if self.positions[qubit] != qubit:
                yield self.positions[qubit], qubit

    def aligning(self, like: Layout) -> Iterator[tuple[int, int]]:
        """Pairs of positions to swap one after the other, so that the layout equals `like`."""
        for position, qubit in enumerate(like.qubits):
            if self.positions[qubit] != position:
                yield self.positions[qubit], position


def bits(mask: int) -> Iterator[int]:
    """Indices of the set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class StateSlice(State):
    """Slice of 2**num_local amplitudes; `num_qubits` is that of the slice."""

    __slots__ = ("fresh", "layout", "rank")

    def __init__(
        self,
        amplitudes: NDArray[np.complexfloating],
        layout: Layout,
        rank: int,
        *,
        dirty: bool = False,
    ) -> None:
        super().__init__(amplitudes, dirty=dirty)
        self.layout = layout
        self.rank = rank
        self.fresh = False  # |0...0>, in any qubit layout

    @property
    def dtype(self) -> np.dtype[np.complexfloating]:
        """Type of its amplitudes, which may not be written yet."""
        return self._amplitudes.dtype

    def begin(self) -> None:
        """Set the amplitude of |0...0>, the first of this slice, to 1."""
        self._amplitudes[0] = 1.0

    @property
    def basis_indices(self) -> NDArray[np.int64]:
        """Positions of blocks, see `State.basis_indices`; blocks must be whole."""
        return self.layout.basis_indices(self.rank)

    @classmethod
    def empty_handed(
        cls, layout: Layout, rank: int, neighbours: int, options: RunOptions
    ) -> StateSlice:
        """Allocate amplitudes that are all 0. Raises OutOfMemory.

        `neighbours`: ranks on this machine, this one included.
        """
        num_qubits, ranks_log2 = len(layout.qubits), len(layout.qubits) - layout.num_local
        need = state_bytes(layout.num_local, options.precision)
        if need * neighbours > PHYSICAL_BYTES:
            raise _too_large(num_qubits, ranks_log2, need, neighbours)
        try:
            amplitudes, clean = state.room(1 << layout.num_local, options.dtype)
        except MemoryError as error:
            raise _too_large(num_qubits, ranks_log2, need, neighbours) from error
        amplitudes[:LANES] = 0.0
        return cls(amplitudes, layout, rank, dirty=not clean)


def _too_large(num_qubits: int, ranks_log2: int, need: int, neighbours: int) -> OutOfMemory:
    return OutOfMemory(
        f"{num_qubits} qubits over {1 << ranks_log2} ranks need {need / 2**30:,.2f} GiB in each;"
        f" a machine with {neighbours} of them has {PHYSICAL_BYTES / 2**30:,.1f} GiB",
        hint="take more ranks on more machines, fewer qubits, or precision 'single'",
    )


@kernel(REALS, SINGLES, INT, INT, INT, INT, group="distributed")
def _swap(reals, singles, low, high, first, last):  # type: ignore[no-untyped-def]
    """Exchange bits low < high of all indices; quadruples first .. last - 1 of amplitudes."""
    below, between = (np.int64(1) << low) - 1, (np.int64(1) << (high - 1)) - 1
    for number in range(first, last):
        base = ((number & ~below) << 1) | (number & below)
        base = ((base & ~((between << 1) | 1)) << 1) | (base & ((between << 1) | 1))
        i, j = 2 * (base | (np.int64(1) << low)), 2 * (base | (np.int64(1) << high))
        if reals.size:
            reals[i], reals[j] = reals[j], reals[i]
            reals[i + 1], reals[j + 1] = reals[j + 1], reals[i + 1]
        else:
            singles[i], singles[j] = singles[j], singles[i]
            singles[i + 1], singles[j + 1] = singles[j + 1], singles[i + 1]


def swap_local(sweeper: BlockExecutor, state: State, a: int, b: int) -> None:
    """Exchange two local positions in each rank."""
    low, high = sorted((a, b))

    def work(first: int, last: int, _number: int) -> None:
        _swap(state.reals, state.singles, low, high, first, last)

    sweeper.parallel_for(state.num_qubits, 2, work)
