"""A branch of a dynamic circuit: one quantum state, and the shots or records that are in it.

The classical record is kept for each shot, not for each branch, so that branches may be merged
whatever was measured on the way. While a circuit runs, its variables lie in the record too, behind
the words of the clbits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.sampling import tally
from simulators.statevector.state import State

Tags = NDArray[Any]  # int64 shot numbers, ascending; or float64 weights
Part = tuple[NDArray[np.uint64], Tags]  # some rows of a branch


class Branch:
    """A state, and the rows in it: classical records with shot numbers, or with weights."""

    __slots__ = ("records", "state", "tags")

    def __init__(self, state: State, records: NDArray[np.uint64], tags: Tags) -> None:
        self.state = state
        self.records = records  # [rows, words]
        self.tags = tags  # [rows]

    @property
    def exact(self) -> bool:
        """Whether the rows carry weights, not shots."""
        return self.tags.dtype == np.float64

    def rows(self, which: NDArray[np.bool_]) -> Part:
        """Some of its rows."""
        return self.records[which], self.tags[which]

    def widen(self, words: int) -> None:
        """Give the records room for variables, all 0."""
        more = np.zeros((len(self.records), words - self.records.shape[1]), np.uint64)
        self.records = np.concatenate((self.records, more), axis=1)

    def narrow(self, words: int) -> None:
        """Forget the variables."""
        self.records = np.ascontiguousarray(self.records[:, :words])
        if self.exact:
            self.records, self.tags = tally(self.records, self.tags)

    def join(self, other: Branch) -> None:
        """Take over the rows of a branch whose state is the same."""
        records = np.concatenate((self.records, other.records))
        tags = np.concatenate((self.tags, other.tags))
        if self.exact:
            self.records, self.tags = tally(records, tags)
            return
        order = np.argsort(tags, kind="stable")
        self.records, self.tags = records[order], tags[order]
