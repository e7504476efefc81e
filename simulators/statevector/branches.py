"""The branches of a dynamic circuit: quantum states, and the shots or records that are in each.

The classical record is kept for each shot, not for each branch, so that branches may be merged
whatever was measured on the way. The rows of all branches stand in one array, so an operation of
the circuit is one step over all of them, however many branches there are. While a circuit runs, its
variables lie in the record too, behind the words of the clbits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.sampling import tally
from simulators.statevector.ensemble import Ensemble

Tags = NDArray[Any]  # int64 shot numbers; or float64 weights
Numbers = NDArray[np.int64]


class Branches:
    """Some branches of one run. Every branch has a row at least.

    `states`: number of each branch's state in the ensemble, int64 [branches]. `branch_of`: branch
    of each row, as an index into `states`, int64 [rows]. `records`: uint64 [rows, words]. `tags`:
    shot numbers or weights, [rows].
    """

    __slots__ = ("branch_of", "ensemble", "records", "states", "tags")

    def __init__(
        self,
        ensemble: Ensemble,
        states: Numbers,
        branch_of: Numbers,
        records: NDArray[np.uint64],
        tags: Tags,
    ) -> None:
        self.ensemble = ensemble
        self.states = states
        self.branch_of = branch_of
        self.records = records
        self.tags = tags

    @classmethod
    def single(
        cls, ensemble: Ensemble, state: int, records: NDArray[np.uint64], tags: Tags
    ) -> Branches:
        """One branch with all these rows."""
        return cls(ensemble, np.array([state]), np.zeros(len(records), np.int64), records, tags)

    @classmethod
    def joined(cls, parts: Sequence[Branches]) -> Branches:
        """All branches of these parts, at least one, which share an ensemble."""
        parts = [part for part in parts if len(part)] or list(parts[:1])
        if len(parts) == 1:
            return parts[0]
        begins = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
        return cls(
            parts[0].ensemble,
            np.concatenate([part.states for part in parts]),
            np.concatenate([p.branch_of + k for p, k in zip(parts, begins, strict=True)]),
            np.concatenate([part.records for part in parts]),
            np.concatenate([part.tags for part in parts]),
        )

    def __len__(self) -> int:
        return self.states.size

    @property
    def exact(self) -> bool:
        """Whether the rows carry weights, not shots."""
        return self.tags.dtype == np.float64

    def none(self) -> Branches:
        """No branches, of the same ensemble."""
        return Branches(
            self.ensemble,
            self.states[:0],
            self.branch_of[:0],
            self.records[:0],
            self.tags[:0],
        )

    def each(self) -> Iterator[tuple[int, NDArray[np.uint64], Tags]]:
        """State, records and tags of one branch after the other."""
        if len(self) == 1:
            yield int(self.states[0]), self.records, self.tags
            return
        order = np.argsort(self.branch_of, kind="stable")
        ends = np.cumsum(np.bincount(self.branch_of, minlength=len(self)))[:-1]
        for state, rows in zip(self.states.tolist(), np.split(order, ends), strict=True):
            yield state, self.records[rows], self.tags[rows]

    def merged(self, into: Numbers) -> Branches:
        """The same with branch k in branch into[k], which stays itself.

        Rows with weights and equal records become one.
        """
        stays = into == np.arange(into.size)
        number = np.cumsum(stays) - 1
        found = Branches(
            self.ensemble,
            self.states[stays],
            number[into][self.branch_of],
            self.records,
            self.tags,
        )
        found.tally()
        return found

    def tally(self) -> None:
        """Join the rows of a branch that carry weights and have equal records."""
        if not self.exact:
            return
        keys = np.concatenate((self.records, self.branch_of[:, None].view(np.uint64)), axis=1)
        keys, self.tags = tally(keys, self.tags)
        self.records = np.ascontiguousarray(keys[:, :-1])
        self.branch_of = np.ascontiguousarray(keys[:, -1]).view(np.int64)

    def widen(self, words: int) -> None:
        """Give the records room for variables, all 0."""
        more = np.zeros((len(self.records), words - self.records.shape[1]), np.uint64)
        self.records = np.concatenate((self.records, more), axis=1)

    def narrow(self, words: int) -> None:
        """Forget the variables."""
        self.records = np.ascontiguousarray(self.records[:, :words])
        self.tally()
