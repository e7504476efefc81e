"""Collective error agreement (as ULFM's MPI_Comm_agree): no rank deadlocks after an error.

Every rank reduces an error flag before each communication, so all raise the same error. Nothing can
fail between an agreement and the communication it precedes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np

from simulators import errors
from simulators.control import RunControl
from simulators.errors import EngineError, OutOfMemory, Stopped

_TEXT_BYTES = 4096
_NAPS_S = (50e-6, 2e-3)  # waits between two polls of an idle rank
_KINDS = {
    kind.code: kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EngineError)
}  # fmt: skip

Answer = TypeVar("Answer")


class ErrorAgreement:
    """Ranks of one communicator, during one run."""

    def __init__(self, comm: Any, control: RunControl) -> None:
        from mpi4py import MPI  # here: it initialises MPI, which processes without ranks must not

        self._max, self._min = MPI.MAX, MPI.MIN
        self.comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._flag = control.flag
        self._mine = np.zeros(2, np.int64)
        self._all = np.zeros(2, np.int64)
        self._agreed: BaseException | None = None
        self.waited_cpu_s = 0.0  # CPU time of MPI in the collective checks

    def meet(self) -> None:
        """Raise the error of any rank, or Stopped if any was asked to stop; in all ranks alike. A
        collective call."""
        self._meet(None)

    def allreduce_min(self, value: int) -> int:
        """Minimum of a value over all ranks, after `meet`."""
        self.meet()
        result = np.zeros(1, np.int64)
        self.comm.Allreduce(np.array([value], np.int64), result, self._min)
        return int(result[0])

    def run_collective(self, work: Callable[[], Answer]) -> Answer:
        """Do work of all ranks, and agree at its end on an error of any rank."""
        try:
            result = work()
        except Exception as error:
            if error is self._agreed:
                raise
            self._meet(error)
            self._meet(None)
        return result

    def wait(self) -> None:
        """Take part in `meet` as an idle rank: sleep until the others call it."""
        self._mine[:] = 0
        request = self.comm.Iallreduce(self._mine, self._all, self._max)
        nap_s, longest_s = _NAPS_S
        while not request.Test():
            time.sleep(nap_s)
            nap_s = min(2 * nap_s, longest_s)
        self._conclude(None)

    def run_subset(self, work: Callable[[], Answer]) -> Answer:
        """Do work of some ranks, and then meet those that `wait`."""
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 raised again, in all ranks
            failure = error
        self._mine[:] = self.size - self.rank if failure is not None else 0, 0
        self.comm.Iallreduce(self._mine, self._all, self._max).Wait()
        self._conclude(failure)
        return result

    def _meet(self, error: Exception | None) -> None:
        self._mine[:] = self.size - self.rank if error is not None else 0, self._flag[0]
        begin_s = time.thread_time()
        self.comm.Allreduce(self._mine, self._all, self._max)
        self.waited_cpu_s += time.thread_time() - begin_s
        self._conclude(error)

    def _conclude(self, error: Exception | None) -> None:
        failed, stopped = self._all.tolist()
        if failed:
            self._share(self.size - failed, error)
        if stopped:
            self._raise(_stopped())

    def _share(self, who: int, error: Exception | None) -> NoReturn:
        """Raise the error of the lowest rank that has one."""
        text = np.zeros(_TEXT_BYTES, np.uint8)
        if who == self.rank and error is not None:
            packed = _packed(_typed(error, who))
            text[: len(packed)] = np.frombuffer(packed, np.uint8)
        self.comm.Bcast(text, who)
        self._raise(_unpacked(text.tobytes().rstrip(b"\0")), error)

    def _raise(self, agreed: EngineError, cause: Exception | None = None) -> NoReturn:
        self._agreed = agreed
        raise agreed from cause


def _stopped() -> Stopped:
    return Stopped("the run was stopped", hint="whoever stopped it can submit it again")


def _typed(error: Exception, rank: int) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory(
            f"rank {rank} has no memory left: {error}",
            hint="take more ranks, fewer qubits, or precision 'single'",
        )
    return EngineError(f"rank {rank} failed: {type(error).__name__}: {error}")


def _packed(error: EngineError) -> bytes:
    message, hint = error.message[: _TEXT_BYTES // 8], error.hint[: _TEXT_BYTES // 8]
    return "\n\0\n".join((error.code, message, hint)).encode()[:_TEXT_BYTES]


def _unpacked(text: bytes) -> EngineError:
    code, message, hint = text.decode(errors="replace").split("\n\0\n")
    return _KINDS.get(code, EngineError)(message, hint=hint)
