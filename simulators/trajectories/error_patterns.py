"""Error patterns of instances, sorted so that common prefixes are adjacent.

A pattern is the list of errors of an instance. In sorted rows an error is its number in circuit
order, so a row ascends; rows are in lexicographic order, with a row after its own extensions.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, kernel
from simulators.errors import BadCircuit


class ErrorPatterns(msgspec.Struct, frozen=True, eq=False):
    """Patterns of instances: instance i has the inserts entries[ends[i] : ends[i + 1]], in any
    order, without repetition."""

    entries: NDArray[np.int64]
    ends: NDArray[np.int64]  # [instances + 1], from 0

    @property
    def count(self) -> int:
        """Number of instances."""
        return self.ends.size - 1


class SortedPatterns(msgspec.Struct, frozen=True, eq=False):
    """Sorted rows for the walk: row r of `entries` begins at begins[r] and ends with `end`."""

    entries: NDArray[np.int64]
    begins: NDArray[np.int64]  # [rows]
    order: NDArray[np.int64]  # [rows]: numbers of rows, sorted
    deepest: int  # largest number of inserts of a row
    end: int  # greater than any place


def sort(patterns: ErrorPatterns, places: NDArray[np.int64]) -> SortedPatterns:
    """Sort patterns; places[insert]: place of the insert. Raises BadCircuit."""
    ends = patterns.ends
    sizes = np.diff(ends)
    entries = patterns.entries
    if ends[0] or ends[-1] != entries.size or (sizes < 0).any():
        raise BadCircuit("ends of patterns do not ascend from 0", hint="ends[0] is 0")
    if entries.size and not 0 <= entries.min() <= entries.max() < places.size:
        raise BadCircuit("a pattern names an insert that is not there", hint="count from 0")
    end = places.size
    begins = ends[:-1] + np.arange(sizes.size)
    result = np.full(entries.size + sizes.size, end, np.int64)
    owner = np.repeat(np.arange(sizes.size), sizes)
    placed = places[entries]
    inner = np.lexsort((placed, owner))
    result[np.arange(entries.size) + owner] = placed[inner]
    if (np.diff(result) == 0)[result[1:] != end].any():
        raise BadCircuit("a pattern has an insert twice", hint="put it into the table twice")
    deepest = int(sizes.max(initial=0))
    some = np.flatnonzero(sizes)
    columns = []
    for depth in reversed(range(deepest)):
        at = begins[some] + np.minimum(depth, sizes[some])
        columns.append(result[at])
    some = some[np.lexsort(columns)] if columns else some
    return SortedPatterns(
        result, begins, np.concatenate((some, np.flatnonzero(sizes == 0))), deepest, end
    )


def row_work(rows: SortedPatterns, done: NDArray[np.int64]) -> NDArray[np.int64]:
    """Operations that each sorted row adds to those of the rows before it, 0 for one that equals
    its neighbour: int64 [rows]. done[place]: number of operations before it; done[-1]: all."""
    result = np.zeros(rows.order.size, np.int64)
    _row_work(rows.order, rows.begins, rows.entries, done, result)
    return result


@kernel(I64, I64, I64, I64, I64, group="trajectories")
def _row_work(order, begins, entries, done, work):  # type: ignore[no-untyped-def]
    """Compiled `row_work`."""
    end = done.size - 1
    for k in range(order.size):
        if k == 0:
            work[k] = done[end]
            continue
        # At the first difference of two rows, the error of the first row comes earlier, because
        # rows are sorted. Up to there the second row shares its states.
        a, b = begins[order[k - 1]], begins[order[k]]
        while entries[a] == entries[b] and entries[a] != end:
            a += 1
            b += 1
        work[k] = 0 if entries[a] == entries[b] else done[end] - done[entries[a]]
