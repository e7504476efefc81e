"""Choice of the indices along which a contraction is divided into slices.

A contraction is a path over sets of indices, which are bits of integers here: each step unites the
operands' indices, and keeps those that the output or a later operand has. A sliced index takes one
value in each slice, so it is removed from all sets. Indices are chosen one by one: the one whose
removal leaves the fewest operations, of those in the largest tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def path_sets(inputs: Sequence[int], output: int, path: Path) -> PathSets:
    """Sets along a path; `inputs`: of each tensor, as bits."""
    tensors = list(inputs)
    involved, results = [], []
    for step in path:
        taken = [tensors[place] for place in step]
        for place in sorted(step, reverse=True):
            del tensors[place]
        together = 0
        for each in taken:
            together |= each
        later = output
        for each in tensors:
            later |= each
        involved.append(together)
        results.append(together & later)
        tensors.append(together & later)
    return PathSets(tuple(involved), tuple(results), (*inputs, *results))


def sliced_indices(sets: PathSets, output: int, width: int, least: int) -> int:
    """Indices, as bits, whose slices stay within a width and are at least `least` in number; as
    many as can be found."""
    sliced = 0
    while sets.width(sliced) > width or 1 << sliced.bit_count() < least:
        wide = sets.width(sliced)
        large = 0
        for each in sets.largest:
            if (each & ~sliced).bit_count() == wide:
                large |= each
        candidates = _bits(large & ~sliced & ~output)
        if not candidates:
            break
        sliced |= min(candidates, key=lambda bit: (sets.operations(sliced | bit), bit))
    return sliced


def _bits(mask: int) -> list[int]:
    entries = []
    while mask:
        entries.append(mask & -mask)
        mask &= mask - 1
    return entries
