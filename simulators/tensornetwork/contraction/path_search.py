"""Search for contraction paths, and their cache by structure.

A path depends on the network's structure alone. It is the best of a number of random greedy
searches from a fixed seed. They are done in batches, and the caller's check runs between these and
between the choices of sliced indices, so a run can be stopped in the middle of a search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cotengra
import msgspec

# Choice of the indices along which a contraction is divided into slices.
#
# A contraction is a path over sets of indices, which are bits of integers here: each step unites
# the operands' indices, and keeps those that the output or a later operand has. A sliced index
# takes one value in each slice, so it is removed from all sets. Indices are chosen one by one: the
# one whose removal leaves the fewest operations, of those in the largest tensors.

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


try:  # compiled searches; cotengra has the same ones in Python
    import cotengrust  # noqa: F401  # cotengra finds it by itself
except ImportError:
    _COMPILED = False
else:
    _COMPILED = True

_SEED = 0x5EED  # seed of the searches for paths
_KEPT = 4_096  # cached paths; the oldest is evicted
# Tensors of the trials of a batch: about 0.5 s on a core.
_BATCH_TENSORS = 50_000 if _COMPILED else 5_000

# Indices are numbered by their first occurrence; 0 is the batch.
Structure = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]
Check = Callable[[], None]  # raises Stopped


class ContractionPath(msgspec.Struct, frozen=True):
    """Contraction path of a structure."""

    tree: Any  # cotengra.ContractionTree
    path: tuple[tuple[int, ...], ...]
    sets: PathSets


class SlicedPath(msgspec.Struct, frozen=True):
    """Contraction path of each slice of a structure; `indices`: the sliced indices."""

    tree: Any
    indices: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of slices."""
        return 1 << len(self.indices)


class SliceBounds(msgspec.Struct, frozen=True):
    """Bounds of slices: log2 of the values of their largest tensor, and their number."""

    width: int
    min_slices: int
    max_slices: int


class PathCache:
    """Bounded cache of paths by structure; the oldest is evicted."""

    def __init__(self) -> None:
        self._paths: dict[tuple[Structure, int], ContractionPath] = {}
        self._sliced: dict[tuple[Structure, int, SliceBounds], SlicedPath] = {}

    def path(self, structure: Structure, trials: int, check: Check) -> ContractionPath:
        """Path of a structure."""
        key = structure, trials
        result = self._paths.get(key)
        if result is None:
            _forget(self._paths)
            result = self._paths[key] = search(structure, trials, check)
        return result

    def sliced(
        self, structure: Structure, trials: int, bounds: SliceBounds, check: Check
    ) -> SlicedPath:
        """Path of a structure in slices. They exceed a bound only if no slices are within all."""
        key = structure, trials, bounds
        result = self._sliced.get(key)
        if result is None:
            _forget(self._sliced)
            full = self.path(structure, trials, check)
            output = sum(1 << index for index in structure[1])
            cut = 0
            for bit in sliced_indices(full.sets, output, bounds.width, bounds.min_slices):
                check()
                cut |= bit
                if 1 << cut.bit_count() > bounds.max_slices:
                    break
            indices = tuple(k for k in range(cut.bit_length()) if cut >> k & 1)
            inputs = tuple(
                tuple(index for index in each if not cut >> index & 1) for each in structure[0]
            )
            result = SlicedPath(_tree((inputs, structure[1]), full.path), indices)
            self._sliced[key] = result
        return result


def _forget(kept: dict[Any, Any]) -> None:
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]


def search(structure: Structure, trials: int, check: Check) -> ContractionPath:
    """Search for a path. Equal arguments give equal paths, and equal numbers of checks."""
    batch = max(1, _BATCH_TENSORS // max(1, len(structure[0])))
    optimizer = cotengra.RandomGreedyOptimizer(seed=_SEED, accel=_COMPILED, parallel=False)

    def best_path(
        inputs: Sequence[Any], output: Any, sizes: dict[str, int], **options: Any
    ) -> Sequence[Sequence[int]]:
        for first in range(0, trials, batch):
            check()
            optimizer.max_repeats = min(batch, trials - first)
            best = optimizer.ssa_path(inputs, output, sizes, **options)
        check()
        linear: Sequence[Sequence[int]] = cotengra.pathfinders.path_basic.ssa_to_linear(best)
        return linear

    tree = _tree(structure, best_path)
    check()
    path = tuple(tuple(step) for step in tree.get_path())
    return ContractionPath(tree, path, path_sets(*structure, path))


def _tree(structure: Structure, optimize: Any) -> Any:
    """Contraction tree of cotengra; its indices are symbols."""
    inputs = tuple([tuple([_symbol(index) for index in each]) for each in structure[0]])
    sizes = {symbol: 2 for each in inputs for symbol in each}
    output = tuple([_symbol(index) for index in structure[1]])
    return cotengra.array_contract_tree(
        inputs, output, sizes, optimize=optimize, canonicalize=False
    )


_symbol = cotengra.get_symbol
