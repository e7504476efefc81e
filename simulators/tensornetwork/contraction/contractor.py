"""Contraction of networks by cotengra: paths by structure, slices, ranks.

A path depends on the network's structure alone, and is found once for it, by a fixed number of
greedy searches from a fixed seed. A network whose largest tensor has more values than allowed is
cut into slices; if that takes too many, it is refused with the bytes of that tensor. Ranks take
slices in turn and add up what they found.
"""

from __future__ import annotations

from typing import Any

import cotengra
import numpy as np

from simulators.control import RunControl
from simulators.errors import OutOfMemory, Stopped
from simulators.tensornetwork.contraction.factors import Tensor
from simulators.tensornetwork.contraction.network import Indices, NetworkTensor

try:  # its searches are compiled; cotengra has the same ones in Python
    import cotengrust  # noqa: F401  # cotengra finds it by itself
except ImportError:
    _COMPILED = False
else:
    _COMPILED = True

BATCH = -1  # the index of rows that are contracted together
_SEED = 0x5EED  # of the searches for paths
_KEPT = 4_096  # paths; the oldest is forgotten
_SPREAD_WIDTH = 16  # contractions of smaller tensors are not worth a message between ranks

Structure = tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]


class PathCache:
    """Contraction trees by structure: bounded, oldest forgotten."""

    def __init__(self) -> None:
        self._trees: dict[tuple[Structure, int], Any] = {}

    def tree(self, structure: Structure, trials: int) -> Any:
        """The tree of a structure."""
        key = structure, trials
        found = self._trees.get(key)
        if found is None:
            while len(self._trees) >= _KEPT:
                del self._trees[next(iter(self._trees))]
            found = self._trees[key] = _search(structure, trials)
        return found


def _search(structure: Structure, trials: int) -> Any:
    inputs, output = structure
    sizes = {index: 2 for term in inputs for index in term}
    optimizer = cotengra.RandomGreedyOptimizer(
        max_repeats=trials, seed=_SEED, accel=_COMPILED, parallel=False
    )
    return cotengra.array_contract_tree(
        inputs, output, sizes, optimize=optimizer, canonicalize=False
    )


class ContractionLimits:
    """ContractionLimits of contractions, see the card's options."""

    def __init__(self, width: int, slices: int, trials: int, itemsize: int) -> None:
        self.width, self.slices, self.trials, self.itemsize = width, slices, trials, itemsize


class Contractor:
    """Contracts networks within limits; over ranks, all of them contract the same ones together."""

    def __init__(
        self, paths: PathCache, limits: ContractionLimits, control: RunControl, comm: Any
    ) -> None:
        self._paths = paths
        self.limits = limits
        self._control = control
        self._comm = comm
        self.widest = 0  # log2 of the largest tensor so far
        self.most_slices = 1

    def check(self) -> None:
        """Raise Stopped if a run was asked to stop; in all ranks alike."""
        if self._comm is None:
            self._control.check()
            return
        if self._comm.allreduce(int(self._control.flag[0])):
            raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")

    def rows_at_once(self, nodes: list[NetworkTensor], output: Indices) -> int:
        """Rows of a batch whose tensors keep to the limit; 1 where they are done one by one."""
        tree = self._paths.tree(_structure(nodes, output), self.limits.trials)
        inner = tree.contraction_width() - (BATCH in output)
        return 1 << int(max(0, min(20, self.limits.width - inner)))

    def contract(self, nodes: list[NetworkTensor], output: Indices) -> Tensor:
        """The contraction, with the axes of `output`."""
        self._control.check()
        structure = _structure(nodes, output)
        tree = self._paths.tree(structure, self.limits.trials)
        arrays = [node.array for node in nodes]
        if BATCH in output:
            self.widest = max(self.widest, int(tree.contraction_width()) - 1)
            found: Tensor = tree.contract(arrays, backend="numpy")
            return found
        tree = self._within(tree)
        self.widest = max(self.widest, int(tree.contraction_width()))
        self.most_slices = max(self.most_slices, int(tree.nslices))
        return self._summed(tree, arrays)

    def _within(self, tree: Any) -> Any:
        """The tree, in slices where its largest tensor is too large."""
        width = tree.contraction_width()
        ranks = 1 if self._comm is None else self._comm.Get_size()
        spread = ranks if ranks > 1 and width >= _SPREAD_WIDTH else 1
        if width <= self.limits.width and spread == 1:
            return tree
        size = 1 << self.limits.width
        if width > self.limits.width:
            tree = tree.slice(target_size=size, seed=_SEED)
        if tree.nslices < spread:
            tree = tree.slice(target_slices=spread, seed=_SEED)
        if tree.nslices > self.limits.slices:
            need = _bytes(self.limits.itemsize * 2.0**width)
            raise OutOfMemory(
                f"the largest tensor has 2^{width:.0f} values, {need}: cut to"
                f" 2^{self.limits.width} it takes {tree.nslices} slices, and at most"
                f" {self.limits.slices} are allowed",
                hint="raise the options width or slices, or engine='mps', which truncates",
            )
        return tree

    def _summed(self, tree: Any, arrays: list[Tensor]) -> Tensor:
        """The sum of all slices."""
        if tree.nslices == 1:
            found: Tensor = np.asarray(tree.contract(arrays, backend="numpy"))
            return found
        ranks = 1 if self._comm is None else self._comm.Get_size()
        rank = 0 if self._comm is None else self._comm.Get_rank()
        shape = tuple(2 for _ in tree.output)
        total = np.zeros(shape, arrays[0].dtype)
        for number in range(rank, tree.nslices, ranks):
            if self._comm is None:
                self._control.check()
            total += tree.contract_slice(arrays, number, backend="numpy")
        if self._comm is None:
            return total
        self.check()
        summed = np.empty_like(total)
        self._comm.Allreduce(total, summed)
        return summed


def _structure(nodes: list[NetworkTensor], output: Indices) -> Structure:
    """Indices named in the order in which they are met; the batch index is the first symbol."""
    numbers: dict[int, int] = {BATCH: 0}
    for node in nodes:
        for index in node.indices:
            if index not in numbers:
                numbers[index] = len(numbers)
    symbols = {index: cotengra.get_symbol(number) for index, number in numbers.items()}
    inputs = tuple([tuple([symbols[index] for index in node.indices]) for node in nodes])
    return inputs, tuple([symbols[index] for index in output])


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} EiB"
