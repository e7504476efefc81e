"""Error patterns of instances, sorted so that common prefixes are adjacent.

A pattern is the list of errors of an instance. In sorted rows an error is its number in circuit
order, so a row ascends; rows are in lexicographic order, those that end first last.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.errors import BadCircuit


class ErrorPatterns(msgspec.Struct, frozen=True, eq=False):
    """Instance i has the inserts entries[ends[i] : ends[i + 1]], in any order; no one twice."""

    entries: NDArray[np.int64]
    ends: NDArray[np.int64]  # [instances + 1], from 0

    @property
    def count(self) -> int:
        """Number of instances."""
        return self.ends.size - 1


class SortedPatterns(msgspec.Struct, frozen=True, eq=False):
    """What the walk reads: row r of `entries` begins at begins[r] and ends with `end`."""

    entries: NDArray[np.int64]
    begins: NDArray[np.int64]  # [rows]
    order: NDArray[np.int64]  # [rows]: numbers of rows, sorted
    deepest: int  # inserts of a row, at most
    end: int  # greater than any place


def sort(patterns: ErrorPatterns, places: NDArray[np.int64]) -> SortedPatterns:
    """places[insert] = its place. Raises BadCircuit."""
    ends = patterns.ends
    sizes = np.diff(ends)
    entries = patterns.entries
    if ends[0] or ends[-1] != entries.size or (sizes < 0).any():
        raise BadCircuit("ends of patterns do not ascend from 0", hint="ends[0] is 0")
    if entries.size and not 0 <= entries.min() <= entries.max() < places.size:
        raise BadCircuit("a pattern names an insert that is not there", hint="count from 0")
    end = places.size
    begins = ends[:-1] + np.arange(sizes.size)
    found = np.full(entries.size + sizes.size, end, np.int64)
    owner = np.repeat(np.arange(sizes.size), sizes)
    placed = places[entries]
    inner = np.lexsort((placed, owner))
    found[np.arange(entries.size) + owner] = placed[inner]
    if (np.diff(found) == 0)[found[1:] != end].any():
        raise BadCircuit("a pattern has an insert twice", hint="put it into the table twice")
    deepest = int(sizes.max(initial=0))
    some = np.flatnonzero(sizes)
    columns = []
    for depth in reversed(range(deepest)):
        at = begins[some] + np.minimum(depth, sizes[some])
        columns.append(found[at])
    some = some[np.lexsort(columns)] if columns else some
    return SortedPatterns(
        found, begins, np.concatenate((some, np.flatnonzero(sizes == 0))), deepest, end
    )


def alike(rows: SortedPatterns) -> NDArray[np.int64]:
    """Length of the prefix that each sorted row but the first shares with the one before; -1 if
    they are equal."""
    order, begins, entries = rows.order, rows.begins, rows.entries
    found = np.zeros(max(0, order.size - 1), np.int64)
    open_ = np.arange(found.size)
    depth = 0
    while open_.size:
        one = entries[begins[order[open_]] + depth]
        two = entries[begins[order[open_ + 1]] + depth]
        same = one == two
        found[open_[same & (one == rows.end)]] = -1
        depth += 1
        open_ = open_[same & (one != rows.end)]
        found[open_] = depth
    return found


def least_work(rows: SortedPatterns, done: NDArray[np.int64], whole: int) -> int:
    """Operations that no walk can do without: those of all distinct beginnings. done[place]: how
    many operations come before it; `whole`: of the circuit."""
    if not rows.order.size:
        return 0
    shared = alike(rows)
    new = np.flatnonzero(shared >= 0)
    # Where two rows part, the first one's insert comes first: rows are sorted. The second has gone
    # with it up to there, and with no other row further.
    parted = rows.entries[rows.begins[rows.order[new]] + shared[new]]
    return int(whole + (whole - done[parted]).sum())
