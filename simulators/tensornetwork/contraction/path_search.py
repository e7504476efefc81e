"""Search for contraction paths, and their cache by structure.

A path depends on the network's structure alone. It is the best of a number of random greedy
searches from a fixed seed. They are done in batches, and the caller's check runs between these and
between the choices of sliced indices, so a run can be stopped in the middle of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cotengra
import msgspec

from simulators.tensornetwork.contraction.slicing import PathSets, path_sets, sliced_indices

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
