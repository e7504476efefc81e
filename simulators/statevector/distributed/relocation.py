"""Relocation of a distributed state's qubits between local and global positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.distributed.gather import Slice
from simulators.statevector.distributed.qubit_layout import Layout

SliceT = TypeVar("SliceT", bound=Slice)


class QubitRelocation(ABC, Generic[SliceT]):
    """Base class of backends of distributed states: swaps of qubits in all ranks alike, and sums
    over the blocks of all ranks."""

    _agreement: ErrorAgreement

    @abstractmethod
    def _swap_local(self, state: SliceT, low: int, high: int) -> None:
        """Exchange two local positions."""

    @abstractmethod
    def _swap_with_rank(self, state: SliceT, bit: int, position: int) -> None:
        """Exchange a bit of the rank number and a local position."""

    def _bring(self, state: SliceT, wanted: int) -> None:
        """Make the qubits of a mask local."""
        self._swap(state, state.layout.exchanges(wanted))

    def _settle(self, state: SliceT) -> None:
        """Make all blocks whole, that is, local."""
        self._swap(state, state.layout.settling())

    def _align(self, state: SliceT, like: Layout) -> None:
        """Bring all qubits to their positions in another layout."""
        self._swap(state, state.layout.aligning(like))

    def _swap(self, state: SliceT, pairs: Iterable[tuple[int, int]]) -> None:
        """Exchange the qubits at pairs of positions, local or global, one pair after the other."""
        local = state.layout.num_local
        for pair in pairs:
            low, high = sorted(pair)
            if high < local:
                self._swap_local(state, low, high)
            elif low < local:
                self._swap_with_rank(state, high - local, low)
            else:
                for position in (low, high, low):
                    self._swap_with_rank(state, position - local, local - 1)
            state.layout.swap(low, high)

    def _shared(self, state: SliceT, mine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of all ranks' blocks, in the order of the blocks, in each rank; blocks must be
        whole. `mine`: of this rank's blocks, float64 [blocks, ...]."""
        agreement, layout = self._agreement, state.layout
        result = np.empty((agreement.size, *mine.shape))
        order = np.concatenate([layout.basis_indices(rank) for rank in range(agreement.size)])
        placed = np.empty((order.size, *mine.shape[1:]))
        agreement.meet()
        agreement.comm.Allgather(np.ascontiguousarray(mine), result)
        placed[order] = result.reshape(placed.shape)
        return placed
