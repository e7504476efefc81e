"""Contraction of networks by cotengra: paths by structure, slices, ranks.

A path depends on the network's structure alone, and is found once for it, by a fixed number of
greedy searches from a fixed seed. A network whose largest tensor has more values than allowed is
divided into slices; if there would be too many, it is refused with the bytes of that tensor. Ranks
process slices in turn and add their results. Tasks can share the slices, too: each task gives a
partial sum, and its caller adds the partial sums of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import cotengra
import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.control import RunControl
from simulators.errors import OutOfMemory, Stopped
from simulators.tensornetwork.contraction.factors import Tensor
from simulators.tensornetwork.contraction.network import BATCH, Indices, NetworkTensor
from simulators.tensornetwork.contraction.slicing import PathSets, path_sets, sliced_indices

try:  # compiled searches; cotengra has the same ones in Python
    import cotengrust  # noqa: F401  # cotengra finds it by itself
except ImportError:
    _COMPILED = False
else:
    _COMPILED = True

_SEED = 0x5EED  # seed of the searches for paths
_KEPT = 4_096  # cached paths; the oldest is evicted
_SPREAD_WIDTH = 12  # ranks and tasks do not share contractions of smaller tensors

_ROWS_AT_ONCE = 1 << 10  # of a batch of bit strings

Rows = NDArray[np.uint8]
# Indices are numbered by their first occurrence; 0 is the batch.
Structure = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]


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


class PathCache:
    """Bounded cache of paths by structure; the oldest is evicted."""

    def __init__(self) -> None:
        self._paths: dict[tuple[Structure, int], ContractionPath] = {}
        self._sliced: dict[tuple[Structure, int, int, int], SlicedPath] = {}

    def path(self, structure: Structure, trials: int) -> ContractionPath:
        """Path of a structure."""
        key = structure, trials
        result = self._paths.get(key)
        if result is None:
            _forget(self._paths)
            result = self._paths[key] = search(structure, trials)
        return result

    def sliced(self, structure: Structure, trials: int, width: int, least: int) -> SlicedPath:
        """Path of a structure in slices of a width, at least `least` of them."""
        key = structure, trials, width, least
        result = self._sliced.get(key)
        if result is None:
            _forget(self._sliced)
            full = self.path(structure, trials)
            output = sum(1 << index for index in structure[1])
            cut = sliced_indices(full.sets, output, width, least)
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


def search(structure: Structure, trials: int) -> ContractionPath:
    """Search for a path."""
    optimizer = cotengra.RandomGreedyOptimizer(
        max_repeats=trials, seed=_SEED, accel=_COMPILED, parallel=False
    )
    tree = _tree(structure, optimizer)
    path = tuple(tuple(step) for step in tree.get_path())
    inputs = [sum(1 << index for index in each) for each in structure[0]]
    output = sum(1 << index for index in structure[1])
    return ContractionPath(tree, path, path_sets(inputs, output, path))


def _tree(structure: Structure, optimize: Any) -> Any:
    """Contraction tree of cotengra; its indices are symbols."""
    inputs = tuple([tuple([_symbol(index) for index in each]) for each in structure[0]])
    sizes = {symbol: 2 for each in inputs for symbol in each}
    output = tuple([_symbol(index) for index in structure[1]])
    return cotengra.array_contract_tree(
        inputs, output, sizes, optimize=optimize, canonicalize=False
    )


_symbol = cotengra.get_symbol


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

    def __init__(
        self, paths: PathCache, limits: ContractionLimits, control: RunControl, comm: Any
    ) -> None:
        self._paths = paths
        self._limits = limits
        self._control = control
        self._comm = comm
        self.widest = 0  # log2 of the largest tensor so far
        self.most_slices = 1
        self._slicing = hashlib.blake2b(digest_size=4)  # of all structures and sliced indices

    def check(self) -> None:
        """Raise Stopped if a run was asked to stop; in all ranks alike."""
        if self._comm is None:
            self._control.check()
        elif self._comm.allreduce(int(self._control.flag[0])):
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")

    def rows_at_once(self, nodes: list[NetworkTensor], output: Indices, width: int = 64) -> int:
        """Number of rows of a batch whose tensors stay within the limit, and within 2^`width`
        values; 1: rows are contracted one by one."""
        structure, _ = _structure(nodes, output)
        sets = self._paths.path(structure, self._limits.trials).sets
        return 1 << max(0, min(20, min(self._limits.width, width) - sets.width(1)))

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

    def admit(self, nodes: list[NetworkTensor], output: Indices) -> None:
        """Search for the path of a contraction, and contract nothing. Raises OutOfMemory if its
        slices exceed the limits."""
        structure, _ = _structure(nodes, output)
        path = self._paths.path(structure, self._limits.trials)
        if path.sets.width() > self._limits.width:
            self._sliced(structure, path, 1)

    def contract(self, nodes: list[NetworkTensor], output: Indices, item: int = 0) -> Tensor:
        """Contract the nodes; the result has the axes of `output`.

        If tasks share the slices, the result is this task's partial sum; a contraction that is not
        sliced is 0 in all tasks but the one that owns `item`.
        """
        structure, arrays = _structure(nodes, output)
        result = self._paths.path(structure, self._limits.trials)
        if BATCH in output:
            self.widest = max(self.widest, result.sets.width(1))
            return _contracted(result.tree, arrays)
        width = result.sets.width()
        least = self._places()[1] if width >= _SPREAD_WIDTH else 1
        if width <= self._limits.width and least == 1:
            self.widest = max(self.widest, width)
            self._record(structure, ())
            if not self.owns(item):
                return np.zeros((2,) * len(output), arrays[0].dtype)
            return _contracted(result.tree, arrays)
        sliced = self._sliced(structure, result, least)
        self._record(structure, sliced.indices)
        return self._summed(structure, sliced, arrays)

    def _places(self) -> tuple[int, int]:
        """Number of this process among all ranks of all tasks that share the slices, and the number
        of all."""
        limits, comm = self._limits, self._comm
        rank, ranks = (0, 1) if comm is None else (comm.Get_rank(), comm.Get_size())
        return limits.share * ranks + rank, limits.shares * ranks

    def _record(self, structure: Structure, sliced: tuple[int, ...]) -> None:
        if self._limits.shares > 1:
            self._slicing.update(repr((structure, sliced)).encode())

    def _sliced(self, structure: Structure, path: ContractionPath, least: int) -> SlicedPath:
        """Slices within the limits. Raises OutOfMemory if there are none."""
        limits, width = self._limits, path.sets.width()
        if 1 << max(0, width - limits.width) > limits.slices:  # a sliced index halves it at best
            raise _too_many_slices(limits, width, width - limits.width)
        sliced = self._paths.sliced(structure, limits.trials, limits.width, least)
        cut = path.sets.width(sum(1 << index for index in sliced.indices))
        if sliced.count > limits.slices or cut > limits.width:
            raise _too_many_slices(limits, width, len(sliced.indices))
        self.widest = max(self.widest, cut)
        self.most_slices = max(self.most_slices, sliced.count)
        return sliced

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(f"complex{8 * self._limits.itemsize}")

    def _summed(self, structure: Structure, sliced: SlicedPath, arrays: list[Tensor]) -> Tensor:
        """Sum of the slices of this task; each rank contracts every n-th slice."""
        first, step = self._places()
        total = np.zeros((2,) * len(structure[1]), arrays[0].dtype)

        def add_slices() -> None:
            for number in range(first, sliced.count, step):
                if self._comm is None:
                    self._control.check()
                part = _slice(structure, sliced.indices, arrays, number)
                np.add(total, _contracted(sliced.tree, part), out=total)

        return self._added(total, add_slices)

    def contract_rows(
        self, part: Callable[[Rows], list[NetworkTensor]], rows: Rows, step: int
    ) -> Tensor:
        """Contract a batch of rows in parts of at most `step` rows: [rows]. `part`: nodes of some
        rows. Ranks and tasks share the parts; a task has 0 for the rows of others."""
        place, places = self._places()
        step = max(1, min(step, _ROWS_AT_ONCE, -(-len(rows) // places)))
        results = np.zeros(len(rows), self.dtype)
        self._record(_structure(part(rows[:1]), (BATCH,))[0], (step,))

        def fill() -> None:
            for first in range(place * step, len(rows), places * step):
                if self._comm is None:
                    self._control.check()
                nodes = part(rows[first : first + step])
                results[first : first + step] = self.contract(nodes, (BATCH,))

        return self._added(results, fill)

    def _added(self, total: Tensor, add: Callable[[], None]) -> Tensor:
        """Sum over the ranks of `total`, which `add` fills in each."""
        failed: MemoryError | None = None
        try:
            add()
        except MemoryError as error:
            failed = error
        if self._comm is None:
            if failed is not None:
                raise _no_memory(self._limits.width) from failed
            return total
        if self._comm.allreduce(int(failed is not None)):  # all ranks raise, or none
            raise _no_memory(self._limits.width) from failed
        self.check()
        summed = np.empty_like(total)
        self._comm.Allreduce(total, summed)
        return summed


def _contracted(tree: Any, arrays: list[Tensor]) -> Tensor:
    result: Tensor = np.asarray(tree.contract(arrays, backend="numpy"))
    return result


def _too_many_slices(limits: ContractionLimits, width: int, sliced: int) -> OutOfMemory:
    need = _bytes(limits.itemsize * 2.0**width)
    return OutOfMemory(
        f"the largest tensor has 2^{width} values, {need}: cut to 2^{limits.width} it takes at"
        f" least 2^{sliced} slices, and at most {limits.slices} are allowed",
        hint="raise the options width or slices, or engine='mps', which truncates",
    )


def _no_memory(width: int) -> OutOfMemory:
    return OutOfMemory(
        f"no memory for slices whose largest tensor has 2^{width} values",
        hint="lower the option width",
    )


def _slice(
    structure: Structure, indices: tuple[int, ...], arrays: list[Tensor], number: int
) -> list[Tensor]:
    """Arrays with the sliced indices set to the bits of a slice's number."""
    value = {index: number >> k & 1 for k, index in enumerate(indices)}
    return [
        array[tuple([value.get(index, slice(None)) for index in each])]
        for each, array in zip(structure[0], arrays, strict=True)
    ]


def _structure(
    nodes: list[NetworkTensor], output: Indices
) -> tuple[Structure, list[NDArray[np.complexfloating]]]:
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
