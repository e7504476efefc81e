"""Contraction of networks by cotengra: paths by structure, slices, ranks.

A path is searched for once for a structure. A network whose largest tensor has more values than
allowed is divided into slices; if there would be too many, it is refused with the bytes of that
tensor. Ranks process slices in turn and add their results. Tasks can share the slices, too: each
task gives a partial sum, and its caller adds the partial sums of all.
"""

from __future__ import annotations

import hashlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cotengra
import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import CONTRACTION_BATCH
from simulators.engine import SLICES
from simulators.errors import OutOfMemory
from simulators.execution.ranks import Ranks
from simulators.tensornetwork.contraction.greedy import GreedySearch
from simulators.tensornetwork.contraction.network import BATCH, Indices, NetworkTensor, Tensor

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
            for index in taken:
                holders[index] -= 1
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
        # The candidate that leaves the fewest operations if it is sliced, too: that whose steps
        # have the most, because slicing halves a step with the index and repeats all steps twice.
        shared = Counter(dict.fromkeys(_bits(candidates), 0))
        for step in sets.involved:
            operations = 1 << (step & ~sliced).bit_count()
            for bit in _bits(step & candidates):
                shared[bit] += operations
        bit = min(shared, key=lambda bit: (-shared[bit], bit))
        yield bit
        sliced |= bit


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


# Search for contraction paths, and their cache by structure.
#
# A path depends on the network's structure alone. It is the best of a number of random greedy
# searches from a fixed seed. They are done in batches, and the caller's check runs between these
# and between the choices of sliced indices, so a run can be stopped in the middle of a search.

# Multiplications of a contraction for which one trial is enough: 1 ms. Rows of a batch count: a
# path is searched once for all of them.
_CHEAP = 1e6
PATH_TENSORS = 50_000  # of all paths that are cached
_SEED = 0x5EED  # seed of the searches for paths
_BATCH_TENSORS = 50_000  # of the trials of a batch: about 0.4 s on a core

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
        return 1 << len(self.indices)


class SliceBounds(msgspec.Struct, frozen=True):
    """Bounds of slices: log2 of the values of their largest tensor, and their number."""

    width: int
    min_slices: int
    max_slices: int


class PathCache:
    """Cache of paths by structure, bounded by their tensors; the oldest is evicted."""

    def __init__(self) -> None:
        self._paths: dict[tuple[Structure, int, int], ContractionPath] = {}
        self._sliced: dict[tuple[Structure, int, SliceBounds], SlicedPath] = {}
        self._tensors = 0  # of all structures in both

    def path(self, structure: Structure, trials: int, width: int, check: Check) -> ContractionPath:
        key = structure, trials, width
        result = self._paths.get(key)
        if result is None:
            result = search(structure, trials, width, check)
            self._make_room(structure)
            self._paths[key] = result
        return result

    def sliced(
        self, structure: Structure, trials: int, bounds: SliceBounds, check: Check
    ) -> SlicedPath:
        """Path of a structure in slices. They exceed a bound only if no slices are within all."""
        key = structure, trials, bounds
        result = self._sliced.get(key)
        if result is None:
            full = self.path(structure, trials, bounds.width, check)
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
            self._make_room(structure)
            self._sliced[key] = result
        return result

    def _make_room(self, structure: Structure) -> None:
        self._tensors += len(structure[0])
        caches: tuple[dict[Any, Any], ...] = (self._sliced, self._paths)
        for kept in caches:
            while kept and self._tensors > PATH_TENSORS:
                oldest = next(iter(kept))
                del kept[oldest]
                self._tensors -= len(oldest[0][0])


def search(structure: Structure, trials: int, width: int, check: Check) -> ContractionPath:
    """Search for a path. Equal arguments give equal paths, and equal numbers of checks. One trial
    is enough where the contraction then takes less than the calls of its steps, and no tensor has
    more than 2^`width` values, so that none is sliced."""
    inputs, output = structure
    check()
    if len(inputs) < 2:
        return _contraction_path(structure, [])
    cheap = _CHEAP / (_ROWS_AT_ONCE / 2) if 0 in output else _CHEAP
    searched = GreedySearch(inputs, output, _SEED)
    searched.run(1)
    result = _contraction_path(structure, searched.path)
    if searched.operations <= cheap and result.sets.width() <= width:
        return result
    batch = max(1, _BATCH_TENSORS // len(inputs))
    for first in range(1, trials, batch):
        check()
        searched.run(min(batch, trials - first))
    check()
    return _contraction_path(structure, searched.path)


def _contraction_path(structure: Structure, steps: Path) -> ContractionPath:
    """Path of steps that number the results of the ones before."""
    tree = _tree(structure, cotengra.pathfinders.path_basic.ssa_to_linear(steps))
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


_LIBRARY = importlib.import_module("cotengra.contract")  # the package has a function of that name
_SMALL_VALUES = 1 << 10  # product of two tensors' sizes: transposes for `matmul` take longer
_SPREAD_WIDTH = 12  # ranks and tasks do not share contractions of smaller tensors
_ROWS_AT_ONCE = 1 << 10  # of a batch of bit strings

Rows = NDArray[np.uint8]


class ContractionLimits(msgspec.Struct, frozen=True):
    """Limits of contractions, see the card's options."""

    width: int
    slices: int
    trials: int
    shares: int  # number of tasks that share the slices
    share: int  # number of this task among them
    itemsize: int  # bytes of a value


class Contractor:
    """Contraction of networks within limits; over ranks, all of them contract the same networks
    together."""

    def __init__(self, paths: PathCache, limits: ContractionLimits, ranks: Ranks) -> None:
        self._paths = paths
        self._limits = limits
        self._ranks = ranks
        self.widest = 0  # log2 of the largest tensor so far
        self.most_slices = 1
        self._slicing = hashlib.blake2b(digest_size=4)  # of all structures and sliced indices

    def check(self) -> None:
        """Raise Stopped if a run was asked to stop; in all ranks alike."""
        self._ranks.agree()

    def rows_at_once(self, nodes: list[NetworkTensor], output: Indices) -> int:
        """Number of rows of a batch whose tensors stay within the limit, and within
        2^CONTRACTION_BATCH values; 1: rows are contracted one by one."""
        structure, _ = _structure(nodes, output)
        sets = self._path(structure).sets
        return 1 << max(0, min(20, min(self._limits.width, CONTRACTION_BATCH) - sets.width(1)))

    @property
    def remark(self) -> str:
        """Remark of a result. That of a partial sum has a digest of all structures and slices: only
        partial sums with the same digest belong together."""
        limits = self._limits
        text = f"width {self.widest}"
        if self.most_slices > 1:
            text += f", {self.most_slices} slices"
        if limits.shares == 1:
            return text
        partial = f"partial sum, share {limits.share} of {limits.shares}"
        return f"{partial}; {text}, slicing {self._slicing.hexdigest()}"

    def owns(self, item: int) -> bool:
        """Return whether this task computes an item that is not sliced."""
        return item % self._limits.shares == self._limits.share

    def contract(self, nodes: list[NetworkTensor], output: Indices, item: int = 0) -> Tensor:
        """Contract the nodes; the result has the axes of `output`. If tasks share the slices, the
        result is this task's partial sum; a contraction that is not sliced is 0 in all tasks but
        the one that owns `item`."""
        structure, arrays = _structure(nodes, output)
        result = self._path(structure)
        if BATCH in output:
            self.widest = max(self.widest, result.sets.width(1))
            return self._contracted(result.tree, arrays)
        width = result.sets.width()
        least = self._places()[1] if width >= _SPREAD_WIDTH else 1
        if width <= self._limits.width and least == 1:
            self.widest = max(self.widest, width)
            self._record(structure, ())
            if not self.owns(item):
                return np.zeros((2,) * len(output), arrays[0].dtype)
            return self._contracted(result.tree, arrays)
        sliced = self._sliced(structure, result, least)
        self._record(structure, sliced.indices)
        return self._summed(structure, sliced, arrays)

    def _path(self, structure: Structure) -> ContractionPath:
        limits = self._limits
        return self._paths.path(structure, limits.trials, limits.width, self.check)

    def _places(self) -> tuple[int, int]:
        """Number of this process among all ranks of all tasks that share the slices, and the number
        of all."""
        limits, ranks = self._limits, self._ranks
        return limits.share * ranks.size + ranks.rank, limits.shares * ranks.size

    def _record(self, structure: Structure, sliced: tuple[int, ...]) -> None:
        if self._limits.shares > 1:
            self._slicing.update(repr((structure, sliced)).encode())

    def _sliced(self, structure: Structure, path: ContractionPath, least: int) -> SlicedPath:
        """Slices within the limits. Raises OutOfMemory if there are none."""
        limits, width = self._limits, path.sets.width()
        if 1 << max(0, width - limits.width) > limits.slices:  # a sliced index halves it at best
            raise too_many_slices(
                width, limits.width, width - limits.width, limits.slices, limits.itemsize
            )
        bounds = SliceBounds(limits.width, least, limits.slices)
        sliced = self._paths.sliced(structure, limits.trials, bounds, self.check)
        cut = path.sets.width(sum(1 << index for index in sliced.indices))
        if sliced.count > limits.slices or cut > limits.width:
            raise too_many_slices(
                width, limits.width, len(sliced.indices), limits.slices, limits.itemsize
            )
        self.widest = max(self.widest, cut)
        self.most_slices = max(self.most_slices, sliced.count)
        return sliced

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"complex{8 * self._limits.itemsize}")

    def _summed(self, structure: Structure, sliced: SlicedPath, arrays: list[Tensor]) -> Tensor:
        """Sum of the slices of this task; each rank contracts every n-th slice."""
        first, step = self._places()
        total = np.zeros((2,) * len(structure[1]), arrays[0].dtype)

        def add_slices() -> None:
            numbers, control = range(first, sliced.count, step), self._ranks.control
            control.expect(len(numbers), SLICES)
            for number in numbers:
                part = _slice(structure, sliced.indices, arrays, number)
                np.add(total, self._contracted(sliced.tree, part), out=total)
                control.advance(SLICES)

        return self._added(total, add_slices)

    def contract_rows(
        self, part: Callable[[Rows], list[NetworkTensor]], rows: Rows, step: int
    ) -> Tensor:
        """Contract a batch of rows in parts of at most `step` rows: [rows]. `part`: nodes of some
        rows. Ranks and tasks share the parts; a task has 0 for the rows of others."""
        place, places = self._places()
        step = max(1, min(step, _ROWS_AT_ONCE, -(-len(rows) // places)))
        results = np.zeros(len(rows), self.dtype)
        structure, _ = _structure(part(rows[:1]), (BATCH,))
        path = self._path(structure)  # all ranks search it together, those without rows too
        self.widest = max(self.widest, path.sets.width(1))
        self._record(structure, (step,))

        def fill() -> None:
            own = range(place * step, len(rows), places * step)
            for number in self._ranks.control.divide(len(own), SLICES):
                first = own[number]
                nodes = part(rows[first : first + step])
                results[first : first + step] = self.contract(nodes, (BATCH,))

        return self._added(results, fill)

    def _added(self, total: Tensor, add: Callable[[], None]) -> Tensor:
        """Sum over the ranks of `total`, which `add` fills in each."""
        text = f"no memory for slices whose largest tensor has 2^{self._limits.width} values"

        def fill() -> None:
            try:
                add()
            except MemoryError:
                raise OutOfMemory(text, hint="lower the option width") from None

        self._ranks.summed(total, fill)
        return total

    def _contracted(self, tree: Any, arrays: list[Tensor]) -> Tensor:
        """Contract a tree; the run can be stopped between two of its steps."""

        def einsum(equation: str, first: Tensor, *second: Tensor) -> Tensor:
            self._ranks.poll()
            small = second and first.size * second[0].size <= _SMALL_VALUES
            multiply = np.einsum if small else _LIBRARY.einsum
            product: Tensor = multiply(equation, first, *second)
            return product

        # As an argument of get_contractor, the function would be a key of the tree's own cache.
        contract = tree.get_contractor(prefer_einsum=True)
        result = contract(*arrays, backend="numpy", implementation=(einsum, None))
        return np.asarray(result)


def too_many_slices(
    width: int, most_width: int, sliced: int, slices: int, itemsize: int
) -> OutOfMemory:
    """Refusal of a tensor of 2^width values, whose parts of 2^most_width would be 2^sliced."""
    need = _bytes(itemsize * 2.0**width)
    text = f"the largest tensor has 2^{width} values, {need}: cut to 2^{most_width} it takes at"
    text += f" least 2^{sliced} slices, and at most {slices} are allowed"
    hint = "raise the options width or slices, or engine='mps', which truncates"
    return OutOfMemory(text, hint=hint)


def _slice(
    structure: Structure, indices: tuple[int, ...], arrays: list[Tensor], number: int
) -> list[Tensor]:
    """Arrays with the sliced indices set to the bits of a slice's number."""
    value = {index: number >> k & 1 for k, index in enumerate(indices)}
    return [
        array[tuple([value.get(index, slice(None)) for index in each])]
        for each, array in zip(structure[0], arrays, strict=True)
    ]


def _structure(nodes: list[NetworkTensor], output: Indices) -> tuple[Structure, list[Tensor]]:
    """Indices numbered by their first occurrence, and the arrays."""
    ids: dict[int, int] = {BATCH: 0}
    for node in nodes:
        for index in node.indices:
            if index not in ids:
                ids[index] = len(ids)
    inputs = tuple([tuple([ids[index] for index in node.indices]) for node in nodes])
    structure = inputs, tuple([ids[index] for index in output])
    return structure, [node.array for node in nodes]


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} EiB"
