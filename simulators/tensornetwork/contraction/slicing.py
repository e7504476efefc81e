"""Choice of the indices along which a contraction is divided into slices.

A contraction is a path over sets of indices, which are bits of integers here: each step unites the
operands' indices, and keeps those that the output or a later operand has. A sliced index takes one
value in each slice, so it is removed from all sets. Indices are chosen one by one: the one whose
removal leaves the fewest operations, of those in the largest tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

Path = Sequence[tuple[int, ...]]  # operands of each step, by position in the list so far


class PathSets(msgspec.Struct, frozen=True):
    """Index sets of a contraction: the union of each step's operands, and its result."""

    involved: tuple[int, ...]
    results: tuple[int, ...]
    largest: tuple[int, ...]  # index sets of tensors: operands and results

    def width(self, sliced: int = 0) -> int:
        """log2 of the values of the largest tensor."""
        return max(((each & ~sliced).bit_count() for each in self.largest), default=0)

    def operations(self, sliced: int = 0) -> int:
        """Multiplications of all slices."""
        each = sum(1 << (step & ~sliced).bit_count() for step in self.involved)
        return each << sliced.bit_count()


def path_sets(inputs: Sequence[Sequence[int]], output: Sequence[int], path: Path) -> PathSets:
    """Sets along a path; `inputs`: the indices of each tensor."""
    tensors = [set(each) for each in inputs]
    holders = Counter(index for each in (*tensors, set(output)) for index in each)
    masks = [_mask(each) for each in tensors]
    involved, results = [], []
    for step in path:
        together: set[int] = set()
        for place in sorted(step, reverse=True):
            taken = tensors.pop(place)
            together |= taken
            holders.subtract(taken)
        kept = {index for index in together if holders[index]}
        holders.update(kept)
        involved.append(_mask(together))
        results.append(_mask(kept))
        tensors.append(kept)
    return PathSets(tuple(involved), tuple(results), (*masks, *results))


def sliced_indices(sets: PathSets, output: int, width: int, least: int) -> Iterator[int]:
    """Indices, each as its bit, whose slices stay within a width and are at least `least` in
    number; as many as can be chosen."""
    sliced = 0
    while (wide := sets.width(sliced)) > width or 1 << sliced.bit_count() < least:
        large = 0
        for each in sets.largest:
            if (each & ~sliced).bit_count() == wide:
                large |= each
        candidates = large & ~sliced & ~output
        if not candidates:
            return
        bit = _best(sets, sliced, candidates)
        yield bit
        sliced |= bit


def _best(sets: PathSets, sliced: int, candidates: int) -> int:
    """The candidate that leaves the fewest operations if it is sliced, too: that whose steps have
    the most, because slicing halves a step with the index and repeats all steps twice."""
    shared = Counter(dict.fromkeys(_bits(candidates), 0))
    for step in sets.involved:
        operations = 1 << (step & ~sliced).bit_count()
        for bit in _bits(step & candidates):
            shared[bit] += operations
    return min(shared, key=lambda bit: (-shared[bit], bit))


def _mask(indices: Iterable[int]) -> int:
    mask = 0
    for index in indices:
        mask |= 1 << index
    return mask


def _bits(mask: int) -> list[int]:
    entries = []
    while mask:
        entries.append(mask & -mask)
        mask &= mask - 1
    return entries
