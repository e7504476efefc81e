"""Order in which the sweeps take the lines: the greedy one with the cheapest frontiers.

The tensor of a sweep has the hidden values of the lines of its frontier: those taken that share a
gate with one not yet taken. The cost of an order is the sum of 2^(hidden values) over its steps.
From each line the next one is always that of the least frontier; the cheapest of these orders is
taken.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import kernel
from simulators.lines.lowering import Structure

_TRIES = 256  # first lines that are tried, of few lines
_STEPS = 2**26  # of all tries: each looks at the lines that remain, for each line


@functools.lru_cache(maxsize=64)
def order_of(lines: Structure) -> tuple[tuple[int, ...], float]:
    """Order of the lines, and log2 of its cost. Bindings of a circuit share it."""
    count = len(lines.first) - 1
    weights = np.maximum(0, np.diff(lines.first) - 2).astype(np.int64)
    line_of = np.repeat(np.arange(count), np.diff(lines.first)).tolist()
    ends = ((line_of[one], line_of[two]) for one, two in lines.pairs)
    pairs = {(min(a, b), max(a, b)) for a, b in ends}
    order, bits = greedy_order(count, sorted(pairs), weights)
    return tuple(order), bits


def greedy_order(
    count: int, pairs: list[tuple[int, int]], weights: NDArray[np.int64]
) -> tuple[list[int], float]:
    """Order of the nodes of a graph with these edges, and log2 of its cost. `weights`: bits of a
    node in the frontier."""
    near = [list[int]() for _ in range(count)]
    for a, b in pairs:
        near[a].append(b)
        near[b].append(a)
    begins = np.cumsum([0, *map(len, near)])
    others = np.array([b for each in near for b in each], np.int64)
    order, best = np.zeros(count, np.int64), np.zeros(count, np.int64)
    scratch = np.zeros((4, count), np.int64)
    tries = min(count, _TRIES, max(1, _STEPS // count**2))
    starts = np.unique(np.linspace(0, count - 1, tries).astype(np.int64))
    cost = _greedy(begins, others, weights, starts, best, order, scratch)
    return best.tolist(), float(cost)


@kernel("I64 I64 I64 I64 I64 I64 INTS2 -> REAL", group="sweeps")
def _greedy(begins, others, weights, starts, best, order, scratch):  # type: ignore[no-untyped-def]
    """Fill `best`; return log2 of its cost. scratch: int64 [4, nodes]."""
    count = best.size
    taken, left, place, age = scratch[0], scratch[1], scratch[2], scratch[3]
    least = np.inf
    for k in range(starts.size):
        start = starts[k]
        for n in range(count):
            taken[n] = 0
            left[n] = begins[n + 1] - begins[n]  # neighbours not yet taken
            place[n] = 0
            age[n] = count
        cost, width = 0.0, np.int64(0)
        for step in range(count):
            chosen = -1
            fewest, oldest = np.int64(0), np.int64(0)
            for candidate in range(count) if step else range(start, start + 1):
                # A neighbour of the frontier if there is any, then any other line.
                if taken[candidate]:
                    continue
                near = age[candidate] < count
                added = np.int64(0)
                if left[candidate] > 0:
                    added += weights[candidate]
                for j in range(begins[candidate], begins[candidate + 1]):
                    if taken[others[j]] and left[others[j]] == 1:
                        added -= weights[others[j]]
                if width > 0 and not near:
                    added += 1 << 40
                first = chosen < 0 or added < fewest
                if first or (added == fewest and age[candidate] < oldest):
                    chosen, fewest, oldest = candidate, added, age[candidate]
            order[step] = chosen
            taken[chosen] = 1
            if left[chosen] > 0:
                width += weights[chosen]
            peak = width if left[chosen] > 0 else width + weights[chosen]
            cost += 2.0 ** min(peak, np.int64(1000))
            for j in range(begins[chosen], begins[chosen + 1]):
                other = others[j]
                left[other] -= 1
                if taken[other] and left[other] == 0:
                    width -= weights[other]
                if not taken[other] and age[other] == count:
                    age[other] = step
            if cost >= least:
                break
        if cost < least:
            least = cost
            for n in range(count):
                best[n] = order[n]
    return np.log2(least)
