"""Ranks that share a run: the division of its work, and its stop and errors, alike in all of them.

Only the first rank is asked to stop. Ranks that do different work meet rarely, so it sends each
other rank a message, for which they look where one process would look at its flag. Then all meet:
the next collective call of each rank is `agree`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl, RunProgress
from simulators.errors import EngineError, OutOfMemory, Stopped
from simulators.execution import outputs

_TAG = 17  # of the message
_STOPPED, _SENT, _FAILED = 1, 1 << 20, 1 << 40  # sums over at most 2**20 ranks
_NO_MEMORY = "a worker with more memory, or fewer ranks on each node"
_PIECE = 1 << 28  # values of one message: MPI counts them in an int

Arrays = Sequence[NDArray[Any]]
T = TypeVar("T")


class Ranks:
    """Ranks of a communicator during one run; None: one process. `alike`: see `are_alike`."""

    def __init__(self, control: RunControl, comm: Any, *, alike: bool = True) -> None:
        self._control, self._comm = control, comm
        self.rank: int = 0 if comm is None else comm.Get_rank()
        self.size: int = 1 if comm is None else comm.Get_size()
        self.control = control if comm is None else _PollingControl(self)
        self.alike = alike
        self._received = False  # the message of the first rank; in that rank: it was sent

    def expect(self, numbers: Sequence[int], unit: str) -> None:
        """Expect this rank's parts of so many items each, see `part`, for the progress."""
        parts = map(self.part, numbers)
        self.control.expect(sum(part.stop - part.start for part in parts), unit)

    def report(self, progress: RunProgress) -> None:
        """Report the progress of this rank's share for that of the run."""
        self._control.progress = progress

    def poll(self) -> None:
        """Raise Stopped if the run was asked to stop. Ranks may call it in different numbers, if
        each calls `agree` later."""
        if self._comm is None:
            self._control.check()
        elif self.rank:
            if self._comm.Iprobe(0, _TAG):
                self._receive()
                self.agree()
        elif self._control.flag[0]:
            self._received = True
            for other in range(1, self.size):
                self._comm.send(None, other, _TAG)
            self.agree()

    def agree(self, error: EngineError | None = None) -> None:
        """Raise Stopped in all ranks if any was asked to stop, else the error of the lowest rank
        that has one. A collective call."""
        if self._comm is None:
            self._control.check()
            if error is not None:
                raise error
            return
        own = _STOPPED * bool(self._control.flag[0]) + _FAILED * (error is not None)
        own += _SENT * (self._received and not self.rank)
        total = self._comm.allreduce(own)
        if total // _SENT % 2 and not self._received:
            self._receive()
        if total % _SENT:
            raise Stopped()
        if total >= _FAILED:
            told = None if error is None else (type(error), error.message, error.hint)
            kind, message, hint = next(each for each in self._comm.allgather(told) if each)
            raise kind(message, hint=hint) from error

    def run(self, work: Callable[[], T]) -> T:
        """Do this rank's share of some work, and agree on the errors of all."""
        failed: EngineError | None = None
        try:
            result = work()
        except Stopped:  # by `poll`: in all ranks
            raise
        except EngineError as error:
            failed = error
        except MemoryError:
            failed = OutOfMemory("no memory for this run's arrays", hint=_NO_MEMORY)
        self.agree(failed)
        return result

    def part(self, count: int) -> slice:
        """Share of this rank among `count` items, contiguous."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def summed(self, array: NDArray[Any], fill: Callable[[], None]) -> None:
        """Have each rank fill its share of an array of zeros, which is contiguous; then all ranks
        have all of it."""
        self.run(fill)
        if self._comm is not None:
            for piece in _pieces(array):
                total = np.empty_like(piece)
                self._comm.Allreduce(piece, total)
                piece[...] = total

    def values(self, value: T) -> list[T]:
        """Value of each rank, in all of them."""
        values: list[T] = [value] if self._comm is None else self._comm.allgather(value)
        return values

    def shared(
        self, costs: Sequence[float], work: Callable[[int], tuple[Arrays, T]]
    ) -> list[tuple[Arrays, T]]:
        """Results of `work` for each item, arrays and a plain value. Each item is computed by one
        rank, the costliest ones first by the rank with the least work so far, so that equal factors
        of a decomposition are those of all ranks, whatever their processors."""
        if self._comm is None:
            return [work(item) for item in range(len(costs))]
        owners, load = [0] * len(costs), [0.0] * self.size
        for item in sorted(range(len(costs)), key=lambda item: -costs[item]):
            owners[item] = load.index(min(load))
            load[owners[item]] += costs[item]
        mine = [item for item, owner in enumerate(owners) if owner == self.rank]
        own = dict(zip(mine, self.run(lambda: [work(item) for item in mine]), strict=True))
        results: dict[int, tuple[Arrays, T]] = {}
        forms = [([_form(each) for each in arrays], value) for arrays, value in own.values()]
        for owner, told in enumerate(self._comm.allgather(forms)):
            arrays = [each for item in mine for each in own[item][0]] if owner == self.rank else []
            rest = iter(self._broadcast(owner, [form for form, _ in told], arrays))
            items = (item for item, other in enumerate(owners) if other == owner)
            for item, (form, value) in zip(items, told, strict=True):
                results[item] = [next(rest) for _ in form], value
        return [results[item] for item in range(len(costs))]

    def _broadcast(
        self, owner: int, forms: list[list[_Form]], arrays: Arrays
    ) -> list[NDArray[Any]]:
        """Arrays of these shapes and types, from their owner to all ranks: a message for each
        type."""
        flat = [form for each in forms for form in each]
        results: list[NDArray[Any]] = list(arrays)
        if owner != self.rank:
            results = [np.empty(shape, dtype) for dtype, shape in flat]
        for dtype in sorted({dtype for dtype, _ in flat}):
            same = [array for array, form in zip(results, flat, strict=True) if form[0] == dtype]
            buffer = np.concatenate([array.ravel() for array in same])
            for piece in _pieces(buffer):
                self._comm.Bcast(piece, owner)
            if owner != self.rank:
                ends = np.cumsum([array.size for array in same])
                for array, part in zip(same, np.split(buffer, ends[:-1]), strict=True):
                    array[...] = part.reshape(array.shape)
        return results

    def _receive(self) -> None:
        self._comm.recv(source=0, tag=_TAG)
        self._received = True


class RanksEngine(outputs.EngineBase):
    """Engine whose ranks share a run. Their communicator is duplicated: its other users are not
    affected."""

    def __init__(self, comm: Any = None) -> None:
        self._comm = comm.Dup() if comm is not None and comm.Get_size() > 1 else None
        self.is_root = self._comm is None or not self._comm.Get_rank()

    def check_stop(self, control: RunControl) -> None:
        """See `EngineBase`; ranks without a stop meet those with it."""
        Ranks(control, self._comm).agree()

    def close(self) -> None:
        if self._comm is not None:
            self._comm.Free()
            self._comm = None


def are_alike(comm: Any) -> bool:
    """Return whether all ranks have equal processors, so that equal computations give equal bits. A
    collective call."""
    return len(set(comm.allgather((platform.machine(), _processor())))) == 1


def _processor() -> str:
    """Model and features of the processor: proc(5)."""
    names = ("model name", "flags", "CPU part", "Features")
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.partition("\t")[0] in names)


_Form = tuple[str, tuple[int, ...]]


def _form(array: NDArray[Any]) -> _Form:
    return array.dtype.str, array.shape


def _pieces(array: NDArray[Any]) -> list[NDArray[Any]]:
    flat = array.reshape(-1)
    return [flat[at : at + _PIECE] for at in range(0, flat.size, _PIECE)]


class _PollingControl(RunControl):
    """Control whose check looks for the first rank's message, too."""

    __slots__ = ("_ranks",)

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def check(self) -> None:
        self._ranks.poll()

    def _report(self, unit: str, fraction: float, before: float = 0.0) -> None:
        super()._report(unit, fraction, before)
        self._ranks.report(self.progress)
