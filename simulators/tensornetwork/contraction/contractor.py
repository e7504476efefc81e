"""Contraction of networks by cotengra: paths by structure, slices, ranks.

A path is searched for once for a structure (`path_search`). A network whose largest tensor has more
values than allowed is divided into slices; if there would be too many, it is refused with the bytes
of that tensor. Ranks process slices in turn and add their results. Tasks can share the slices, too:
each task gives a partial sum, and its caller adds the partial sums of all.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.errors import OutOfMemory, Stopped
from simulators.tensornetwork.contraction import path_search
from simulators.tensornetwork.contraction.network import BATCH, Indices, NetworkTensor, Tensor

# Stop of a run in the middle of a contraction, in all ranks alike.
#
# Only the first rank is asked to stop. Ranks that contract different slices meet rarely, so it
# sends each other rank a message, for which they look between two steps. Then all meet: the next
# collective call of each rank is `agree`.

_TAG = 17  # of the message
_STOPPED, _SENT, _FAILED = 1, 1 << 20, 1 << 40  # sums over at most 2**20 ranks


class StopPoll:
    """Cancel flag of a run, for the ranks of a communicator; None: one process."""

    def __init__(self, control: RunControl, comm: Any) -> None:
        self._control = control
        self._comm = comm
        self._rank: int = 0 if comm is None else comm.Get_rank()
        self._received = False  # the message of the first rank; in that rank: it was sent

    def poll(self) -> None:
        """Raise Stopped if the run was asked to stop. Ranks may call it in different numbers, if
        each calls `agree` later."""
        if self._comm is None:
            self._control.check()
        elif self._rank:
            if self._comm.Iprobe(0, _TAG):
                self._receive()
                self.agree()
        elif self._control.flag[0]:
            self._received = True
            for other in range(1, self._comm.Get_size()):
                self._comm.send(None, other, _TAG)
            self.agree()

    def agree(self, *, failed: bool = False) -> bool:
        """Return whether any rank failed. Raises Stopped in all ranks if any was asked to stop. A
        collective call."""
        if self._comm is None:
            self._control.check()
            return failed
        own = _STOPPED * bool(self._control.flag[0]) + _FAILED * failed
        own += _SENT * (self._received and not self._rank)
        total = self._comm.allreduce(own)
        if total // _SENT % 2 and not self._received:
            self._receive()
        if total % _SENT:
            raise Stopped()
        return bool(total >= _FAILED)

    def _receive(self) -> None:
        self._comm.recv(source=0, tag=_TAG)
        self._received = True


_LIBRARY = importlib.import_module("cotengra.contract")  # the package has a function of that name
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

    def __init__(
        self,
        paths: path_search.PathCache,
        limits: ContractionLimits,
        control: RunControl,
        comm: Any,
    ) -> None:
        self._paths = paths
        self._limits = limits
        self._stop = StopPoll(control, comm)
        self._comm = comm
        self.widest = 0  # log2 of the largest tensor so far
        self.most_slices = 1
        self._slicing = hashlib.blake2b(digest_size=4)  # of all structures and sliced indices

    def check(self) -> None:
        """Raise Stopped if a run was asked to stop; in all ranks alike."""
        self._stop.agree()

    def rows_at_once(self, nodes: list[NetworkTensor], output: Indices, width: int = 64) -> int:
        """Number of rows of a batch whose tensors stay within the limit, and within 2^`width`
        values; 1: rows are contracted one by one."""
        structure, _ = _structure(nodes, output)
        sets = self._path(structure).sets
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
        path = self._path(structure)
        if path.sets.width() > self._limits.width:
            self._sliced(structure, path, 1)

    def contract(self, nodes: list[NetworkTensor], output: Indices, item: int = 0) -> Tensor:
        """Contract the nodes; the result has the axes of `output`.

        If tasks share the slices, the result is this task's partial sum; a contraction that is not
        sliced is 0 in all tasks but the one that owns `item`.
        """
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

    def _path(self, structure: path_search.Structure) -> path_search.ContractionPath:
        return self._paths.path(structure, self._limits.trials, self.check)

    def _places(self) -> tuple[int, int]:
        """Number of this process among all ranks of all tasks that share the slices, and the number
        of all."""
        limits, comm = self._limits, self._comm
        rank, ranks = (0, 1) if comm is None else (comm.Get_rank(), comm.Get_size())
        return limits.share * ranks + rank, limits.shares * ranks

    def _record(self, structure: path_search.Structure, sliced: tuple[int, ...]) -> None:
        if self._limits.shares > 1:
            self._slicing.update(repr((structure, sliced)).encode())

    def _sliced(
        self, structure: path_search.Structure, path: path_search.ContractionPath, least: int
    ) -> path_search.SlicedPath:
        """Slices within the limits. Raises OutOfMemory if there are none."""
        limits, width = self._limits, path.sets.width()
        if 1 << max(0, width - limits.width) > limits.slices:  # a sliced index halves it at best
            raise _too_many_slices(limits, width, width - limits.width)
        bounds = path_search.SliceBounds(limits.width, least, limits.slices)
        sliced = self._paths.sliced(structure, limits.trials, bounds, self.check)
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

    def _summed(
        self, structure: path_search.Structure, sliced: path_search.SlicedPath, arrays: list[Tensor]
    ) -> Tensor:
        """Sum of the slices of this task; each rank contracts every n-th slice."""
        first, step = self._places()
        total = np.zeros((2,) * len(structure[1]), arrays[0].dtype)

        def add_slices() -> None:
            for number in range(first, sliced.count, step):
                part = _slice(structure, sliced.indices, arrays, number)
                np.add(total, self._contracted(sliced.tree, part), out=total)

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
            for first in range(place * step, len(rows), places * step):
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
        if self._stop.agree(failed=failed is not None):  # all ranks raise, or none
            raise _no_memory(self._limits.width) from failed
        if self._comm is None:
            return total
        summed = np.empty_like(total)
        self._comm.Allreduce(total, summed)
        return summed

    def _contracted(self, tree: Any, arrays: list[Tensor]) -> Tensor:
        """Contract a tree; the run can be stopped between two of its steps."""

        def einsum(*operands: Any) -> Tensor:
            self._stop.poll()
            product: Tensor = _LIBRARY.einsum(*operands)
            return product

        def tensordot(*operands: Any) -> Tensor:
            self._stop.poll()
            product: Tensor = _LIBRARY.tensordot(*operands)
            return product

        # As an argument of get_contractor, the functions would be a key of the tree's own cache.
        contract = tree.get_contractor()
        result = contract(*arrays, backend="numpy", implementation=(einsum, tensordot))
        return np.asarray(result)


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
    structure: path_search.Structure, indices: tuple[int, ...], arrays: list[Tensor], number: int
) -> list[Tensor]:
    """Arrays with the sliced indices set to the bits of a slice's number."""
    value = {index: number >> k & 1 for k, index in enumerate(indices)}
    return [
        array[tuple([value.get(index, slice(None)) for index in each])]
        for each, array in zip(structure[0], arrays, strict=True)
    ]


def _structure(
    nodes: list[NetworkTensor], output: Indices
) -> tuple[path_search.Structure, list[NDArray[np.complexfloating]]]:
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
