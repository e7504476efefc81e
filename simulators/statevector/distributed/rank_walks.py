"""Trajectories over ranks that hold one state each: contiguous ranges of the sorted rows.

All ranks draw the same patterns; each runs its own range, and the outcomes are added. So a shot has
the outcome that it has in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.trajectories.walks import Observables, Walks, rank_cuts
from simulators.trajectories.error_patterns import SortedPatterns

Numbers = TypeVar("Numbers", NDArray[np.int64], NDArray[np.float64])


class RankWalks:
    """`Walks` over ranks."""

    def __init__(self, walks: Walks, done: NDArray[np.int64], agreement: ErrorAgreement) -> None:
        """Set up. `done`: see `Tree.shared_before`."""
        self._walks = walks
        self._done = done
        self._agreement = agreement

    def bind(self, params: NDArray[np.float64], key: tuple[int, int]) -> None:
        """See `Walks`."""
        self._walks.bind(params, key)

    def indices(
        self, rows: SortedPatterns, first: int, final_x: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """See `Walks`; the same in all ranks."""
        result = np.zeros(rows.begins.size, np.int64)
        return self._shared(rows, result, lambda mine: self._walks.indices(mine, first, final_x))

    def values(
        self, rows: SortedPatterns, first: int, observables: Observables
    ) -> NDArray[np.float64]:
        """See `Walks`; the same in all ranks."""
        result = np.zeros((rows.begins.size, observables.count))
        return self._shared(rows, result, lambda mine: self._walks.values(mine, first, observables))

    def _shared(
        self, rows: SortedPatterns, result: Numbers, walk: Callable[[SortedPatterns], Numbers]
    ) -> Numbers:
        """Run the rows of this rank; returns `result` with those of all ranks."""
        rank, size = self._agreement.rank, self._agreement.size
        cuts = rank_cuts(rows, self._done, size)
        own = rows.order[cuts[rank] : cuts[rank + 1]]
        if own.size:
            result = walk(msgspec.structs.replace(rows, order=np.ascontiguousarray(own)))
        self._agreement.meet()
        self._agreement.comm.Allreduce(MPI.IN_PLACE, result, MPI.SUM)
        return result
