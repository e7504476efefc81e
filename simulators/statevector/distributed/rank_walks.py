"""Trajectories over ranks that hold one state each: contiguous ranges of the sorted rows.

All ranks draw the same patterns; each runs its own range, and the outcomes are added. So a shot has
the outcome that it has in one process.
"""

from __future__ import annotations

import msgspec
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.trajectories.walks import Observables, Walks, rank_cuts
from simulators.trajectories.error_patterns import SortedPatterns


class RankWalks:
    """`Walks` over ranks; the counters are those of this rank."""

    def __init__(self, walks: Walks, done: NDArray[np.int64], agreement: ErrorAgreement) -> None:
        """Set up. `done`: see `Tree.shared_before`."""
        self._walks = walks
        self._done = done
        self._agreement = agreement

    @property
    def operations(self) -> int:
        """See `Walks`."""
        return self._walks.operations

    @property
    def least(self) -> int:
        """See `Walks`."""
        return self._walks.least

    @property
    def states(self) -> int:
        """See `Walks`."""
        return self._walks.states

    @property
    def passes(self) -> int:
        """See `Walks`."""
        return self._walks.passes

    def bind(self, params: NDArray[np.float64], key: tuple[int, int]) -> None:
        """See `Walks`."""
        self._walks.bind(params, key)

    def indices(
        self, rows: SortedPatterns, first: int, final_x: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """See `Walks`; the same in all ranks."""
        mine = self._own_rows(rows)
        result = np.zeros(rows.begins.size, np.int64)
        if mine.order.size:
            result = self._walks.indices(mine, first, final_x)
        self._agreement.meet()
        self._agreement.comm.Allreduce(MPI.IN_PLACE, result, MPI.SUM)
        return result

    def values(
        self, rows: SortedPatterns, first: int, observables: Observables
    ) -> NDArray[np.float64]:
        """See `Walks`; the same in all ranks."""
        mine = self._own_rows(rows)
        result = np.zeros((rows.begins.size, observables.count))
        if mine.order.size:
            result = self._walks.values(mine, first, observables)
        self._agreement.meet()
        self._agreement.comm.Allreduce(MPI.IN_PLACE, result, MPI.SUM)
        return result

    def _own_rows(self, rows: SortedPatterns) -> SortedPatterns:
        """Rows of this rank."""
        rank, size = self._agreement.rank, self._agreement.size
        cuts = rank_cuts(rows, self._done, size)
        own = rows.order[cuts[rank] : cuts[rank + 1]]
        return msgspec.structs.replace(rows, order=np.ascontiguousarray(own))
