"""Partition of a circuit's qubits over modules, so that few Bell pairs are needed.

Swaps and moves of single qubits as of Kernighan and Lin (Bell Syst. Tech. J. 49, 291, 1970), from
several starts: first on the number of gates between modules, which is cheap, then on that of pairs
after packets. Everything is bounded by counts of operations and random only by a fixed seed, so
that the result is a function of circuit and device.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simenv.errors import ProgramError
from simenv.transpiler.linked.steps import CircuitStep, Packet, between_modules, packets

SEED = 7
STARTS = 4
MOST_SWEEPS = 20  # over all qubits, of a start
MOST_STEPS = 1_000_000  # operations that are looked at to count pairs
WIDEST = 1_024  # qubits of circuits that are searched; the others fill the modules in order
APART = 1e6  # weight of a gate between modules without a link, or inside a block


def partition(
    steps: Sequence[CircuitStep],
    num_qubits: int,
    room: Sequence[int],
    linked: frozenset[tuple[int, int]],
) -> list[int]:
    """Return the module of each qubit. `room`: qubits of each module that hold data; `linked`:
    pairs of modules with a link, in both orders. Raises ProgramError for too many qubits."""
    if num_qubits > sum(room):
        raise ProgramError(
            f"the circuit has {num_qubits} qubits; the modules have {sum(room)} connected ones"
            " beside their communication qubits",
            hint="fewer qubits, or modules with more",
        )
    in_order = [module for module, size in enumerate(room) for _ in range(size)][:num_qubits]
    if len(set(in_order)) == 1 or num_qubits > WIDEST:
        return in_order
    search = _Search(steps, num_qubits, room, linked)
    starts = [in_order]
    for number in range(1, STARTS):
        shuffled = list(in_order)
        random.Random(SEED + number).shuffle(shuffled)
        starts.append(shuffled)
    found = sorted((search.improved(start) for start in starts), key=lambda each: each[0])
    return search.with_fewest_pairs([where for _, where in found])


class _Search:
    """Swaps and moves of qubits for one circuit."""

    def __init__(
        self,
        steps: Sequence[CircuitStep],
        num_qubits: int,
        room: Sequence[int],
        linked: frozenset[tuple[int, int]],
    ) -> None:
        self._steps, self._room = steps, tuple(room)
        self._left = MOST_STEPS
        self._weights = np.zeros((num_qubits, num_qubits))
        for step in steps:
            weight = 1.0 if step.is_gate else APART
            for first, second in step.joined:
                self._weights[first, second] += weight
                self._weights[second, first] += weight
        count = len(room)
        self._distances: NDArray[np.float64] = np.full((count, count), APART)
        for pair in linked:
            self._distances[pair] = 1.0
        np.fill_diagonal(self._distances, 0.0)

    def improved(self, start: Sequence[int]) -> tuple[float, list[int]]:
        """Return the cost of gates between modules and the partition after swaps and moves that
        lower it."""
        where = np.array(start)
        # cost[q, m]: of the gates of qubit q if it were in module m
        cost = self._weights @ self._distances[where]
        for _ in range(MOST_SWEEPS):
            is_better = False
            for qubit in range(len(where)):
                other, module, gain = self._best(where, cost, qubit)
                if gain < 1e-9:
                    continue
                is_better = True
                for each, target in ((qubit, module), (other, where[qubit])):
                    if each >= 0:
                        moved = self._distances[target] - self._distances[where[each]]
                        cost += np.outer(self._weights[:, each], moved)
                        where[each] = target
            if not is_better:
                break
        total = 0.5 * cost[np.arange(len(where)), where].sum()
        return float(total), [int(module) for module in where]

    def _best(
        self, where: NDArray[np.int64], cost: NDArray[np.float64], qubit: int
    ) -> tuple[int, int, float]:
        """Return the best exchange of a qubit: the other qubit (-1: none, a free place), the module
        that it comes to, and what the cost falls by."""
        own = where[qubit]
        every = np.arange(len(where))
        gains = cost[qubit, own] - cost[qubit, where]
        gains += cost[every, where] - cost[every, own]
        # Both count the gates of the two as if the other one had stayed.
        gains -= 2.0 * self._weights[qubit] * self._distances[own, where]
        gains[where == own] = 0.0
        other = int(np.argmax(gains))
        best = other, int(where[other]), float(gains[other])
        for module, size in enumerate(self._room):
            gain = float(cost[qubit, own] - cost[qubit, module])
            if gain > best[2] and np.count_nonzero(where == module) < size:
                best = -1, module, gain
        return best

    def with_fewest_pairs(self, found: Sequence[list[int]]) -> list[int]:
        """Return the partition with the fewest pairs after swaps that lower their number, of those
        found; as many swaps as the bound on operations allows."""
        best, pairs = found[0], self._pairs(found[0])
        for where in found[1:]:
            if (number := self._pairs(where)) < pairs:
                best, pairs = where, number
        is_better = True
        while is_better and pairs:
            is_better = False
            for first in range(len(best)):
                for second in range(first):
                    if best[first] == best[second] or not self._weights[[first, second]].any():
                        continue
                    if self._left < 0:
                        return best
                    tried = list(best)
                    tried[first], tried[second] = tried[second], tried[first]
                    if (number := self._pairs(tried)) < pairs:
                        best, pairs, is_better = tried, number, True
        return best

    def _pairs(self, where: Sequence[int]) -> float:
        """Number of pairs; much more for gates between modules that cannot be."""
        cost = self._weights * self._distances[np.ix_(where, where)]
        apart = float(cost[cost >= APART].sum())
        if apart:
            return apart
        steps = between_modules(self._steps, where)
        found = [each for each in packets(steps, where) if isinstance(each, Packet)]
        self._left -= len(steps) + sum(each.looked_at for each in found)
        return len(found)
