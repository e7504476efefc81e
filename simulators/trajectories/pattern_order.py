"""Order of error patterns for the walk: rows sorted so that common prefixes are adjacent."""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import kernel
from simulators.trajectories.noise_table import ErrorPatterns, SortedPatterns


@kernel("I64 I64 INT I64 I64 I64 I64 I64 I64", group="trajectories")
def sort_rows(ends, entries, places, begins, terminated, order, other, sizes, counts):  # type: ignore[no-untyped-def]
    """Sort rows of ascending places lexicographically, with a row after its own extensions: by the
    last column first, like a radix sort of strings of different lengths. terminated[begins[row] :]:
    the row, and `places` at its end. sizes: int64 [longest + 2], counts: int64 [places + 1], order,
    other: int64 [rows]."""
    rows = ends.size - 1
    for k in range(sizes.size):
        sizes[k] = 0
    for row in range(rows):
        begins[row] = ends[row] + row
        for k in range(ends[row], ends[row + 1]):
            terminated[k + row] = entries[k]
        terminated[ends[row + 1] + row] = places
        sizes[ends[row + 1] - ends[row] + 1] += 1
    for k in range(1, sizes.size):  # sizes[s]: rows that are shorter than s
        sizes[k] += sizes[k - 1]
    for row in range(rows):  # rows by length, each in its order, from the end of `other`
        size = ends[row + 1] - ends[row]
        other[sizes[size]] = row
        sizes[size] += 1
    for k in range(sizes.size - 1, 0, -1):
        sizes[k] = sizes[k - 1]
    sizes[0] = 0
    # by_length: other[sizes[s] : sizes[s + 1]] has length s; `order` is filled from its front.
    active = np.int64(0)
    for depth in range(sizes.size - 3, -1, -1):
        low, high = sizes[depth + 1], sizes[depth + 2]
        for k in range(counts.size):
            counts[k] = 0
        for k in range(active):
            counts[terminated[begins[order[k]] + depth] + 1] += 1
        for k in range(low, high):
            counts[terminated[begins[other[k]] + depth] + 1] += 1
        for k in range(1, counts.size):
            counts[k] += counts[k - 1]
        # Rows longer than depth + 1 are order[:active]; those of that length come after them. The
        # sorted ones go to the end of `other`, where no shorter row is.
        base = low
        total = active + high - low
        for k in range(low, high):
            order[active + k - low] = other[k]
        for k in range(total):
            row = order[k]
            place = terminated[begins[row] + depth]
            other[base + counts[place]] = row
            counts[place] += 1
        for k in range(total):
            order[k] = other[base + k]
        active = total
    for k in range(sizes[0], sizes[1]):
        order[active + k - sizes[0]] = other[k]


def sort_places(patterns: ErrorPatterns, places: int) -> SortedPatterns:
    """Rows of ascending places below `places`, sorted."""
    rows = patterns.count
    deepest = int(np.diff(patterns.ends).max(initial=0))
    begins, order, other = (np.empty(rows, np.int64) for _ in range(3))
    terminated = np.empty(patterns.entries.size + rows, np.int64)
    sort_rows(
        patterns.ends, patterns.entries, places, begins, terminated, order, other,
        np.empty(deepest + 2, np.int64), np.empty(places + 2, np.int64),
    )  # fmt: skip
    return SortedPatterns(terminated, begins, order, deepest, places)
