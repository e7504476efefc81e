"""MPI of this process: its begin and its end, and one task over the ranks that mpirun or srun has
started.

MPI is initialised once, used for numerics alone, and finalised together. Only the main thread calls
it, and no rank waits for work in it, which would keep a core busy: ranks poll, and sleep between
two polls. For one task without a service, rank 0 broadcasts its input, all ranks run it, and rank 0
has the result. Invariant: a rank that fails alone ends all of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.process import log_line
from simenv.wire import codec
from simenv.wire.messages.client import AssignChunk, AttemptResult, NoiseDocument
from simenv.worker.runner import Runner
from simulators import catalog
from simulators.compiler import warmup

if TYPE_CHECKING:
    from mpi4py import MPI

_RANKS = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class NoMpi(Exception):
    """MPI cannot be initialised with the requested ranks; the message is one line for the log."""


def rank_from_environ(environ: Mapping[str, str]) -> int:
    """Return the rank of this process from the launcher's variables, for use before MPI is
    initialised; 0 if there are none."""
    arguments = next((environ[name] for name in _RANKS if environ.get(name, "").isdigit()), "0")
    return int(arguments)


def begin(ranks: int) -> MPI.Intracomm:
    """Initialise MPI and return the communicator of all ranks of this worker. Raises NoMpi."""
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        mpi4py.rc.finalize = False  # not at exit: a rank that fails must not wait for the others
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMpi(f"no MPI, and {ranks} ranks were requested: {error}") from error
    mpi_run = MPI.COMM_WORLD
    if mpi_run.size != ranks:
        library = MPI.Get_library_version().partition("\n")[0].partition(",")[0]
        raise NoMpi(
            f"COMM_WORLD has size {mpi_run.size}, {ranks} were requested: the launcher's MPI "
            f"and mpi4py's ({library}) are different"
        )
    return mpi_run


def end() -> None:
    """Finalise MPI. Called by all ranks if none has failed: without it the launcher takes the exit
    of a rank for a failure."""
    from mpi4py import MPI

    MPI.Finalize()


PATIENCE_S = 10.0  # for the other ranks to end after this one has failed
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_PAUSES_S = (100e-6, 5e-3)  # of a rank between two polls: the first, the longest
_PIECE_BYTES = 2**30


class RankInfo(msgspec.Struct, frozen=True, array_like=True):
    """Node of one rank, the memory and slots of that node, and the cores that the rank may use."""

    node: str
    memory_bytes: int
    slots: int
    cores: tuple[int, ...]


def size_from_environ(environ: Mapping[str, str]) -> int:
    """Return the number of processes from the launcher's variables; 1 if there are none."""
    return max([1, *(int(environ[name]) for name in _SIZES if environ.get(name, "").isdigit())])


class MpiRun:
    """The ranks of one mpirun. `comm` None: this process is the only one, and needs no MPI."""

    def __init__(self, comm: MPI.Intracomm | None) -> None:
        self.comm = comm
        self._ending = None if comm is None else comm.Dup()
        self.rank = 0 if comm is None else int(comm.Get_rank())
        self.size = 1 if comm is None else int(comm.Get_size())

    @classmethod
    def begin(cls, environ: Mapping[str, str]) -> MpiRun:
        """Connect the ranks of which the launcher's variables state the number. Raises NoMpi."""
        size = size_from_environ(environ)
        return cls(None if size == 1 else begin(size))

    def broadcast(self, data: bytes | None) -> bytes | None:
        """Return the data of the first rank in all ranks; None if it has none: then all end."""
        if self.comm is None:
            return data
        import numpy as np

        size = np.array([-1 if data is None else len(data)], np.int64)
        self._poll_until_done(self.comm.Ibcast(size, 0))
        if size[0] < 0:
            return None
        buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(size[0], np.uint8)
        for at in range(0, len(buffer), _PIECE_BYTES):
            self.comm.Bcast(buffer[at : at + _PIECE_BYTES], 0)
        return data if data is not None else buffer.tobytes()

    def gather_ranks(self, own_info: RankInfo) -> list[RankInfo]:
        """Return the RankInfo of all ranks, by rank, in each of them."""
        if self.comm is None:
            return [own_info]
        import numpy as np

        packed = msgspec.msgpack.encode(own_info)
        sizes = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([len(packed)], np.int64), sizes)
        longest = int(sizes.max())
        all_ = np.empty((self.size, longest), np.uint8)
        padded = np.frombuffer(packed.ljust(longest, b"\0"), np.uint8)
        self.comm.Allgather(padded, all_)
        return [
            msgspec.msgpack.decode(row[:size].tobytes(), type=RankInfo)
            for row, size in zip(all_, sizes.tolist(), strict=True)
        ]

    def end(self, failure: str = "", code: int = 1) -> None:
        """Wait until all ranks have ended their work, then finalise MPI. A rank with a `failure`
        waits for PATIENCE_S only, because the others may be blocked in a collective call that it
        has left. Then it aborts all ranks with exit code `code`."""
        if self.comm is None or self._ending is None:
            return
        if not self._poll_until_done(self._ending.Ibarrier(), PATIENCE_S if failure else None):
            log_line(f"rank {self.rank} of {self.size} failed alone, so all are ended: {failure}")
            self.comm.Abort(code)
        end()

    def _poll_until_done(self, request: Any, timeout_s: float | None = None) -> bool:
        """Poll a request until it is done. Returns False after `timeout_s`; None: no limit."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s, longest_s = _PAUSES_S
        while not request.Test():
            if until_s is not None and time.monotonic() > until_s:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)
        return True


def own_rank_info(node: str, memory_bytes: int, slots: int) -> RankInfo:
    """Return the RankInfo of this process; the caller knows the memory and slots of the node."""
    return RankInfo(node, memory_bytes, slots, tuple(sorted(os.sched_getaffinity(0))))


def packed(chunk: AssignChunk, document: NoiseDocument | None) -> bytes:
    """Encode a chunk and its noise document as the `data` of `follow`."""
    body = b"" if document is None else codec.encode(document)
    return msgspec.msgpack.encode((body, codec.encode(chunk)))


def lead(
    mpi_run: MpiRun, chunk: AssignChunk, kernels: Path, document: NoiseDocument | None = None
) -> AttemptResult:
    """Run the only task of a chunk on rank 0, together with the other ranks. An error of the engine
    becomes a failed result; after `run_timeout_s` of its options the run is stopped."""
    divided = _uses_all_ranks(mpi_run, chunk)
    warmup.compile_group(kernels, chunk.engine, ranks=divided)
    assigned = chunk.tasks[0]
    runner = Runner(comm=mpi_run.comm if divided else None)
    runner.has_log = False
    if document is not None:
        runner.receive_noise(document)
    terms = chunk.terms[0]

    def stop() -> None:
        runner.stop_reason = "run_timeout"
        runner.control.stop()

    timer = threading.Timer(terms.run_timeout_s, stop)
    if terms.run_timeout_s:
        timer.start()
    try:
        return runner.run(assigned, terms, chunk, time.perf_counter_ns())
    finally:
        timer.cancel()


def follow(mpi_run: MpiRun, data: bytes, kernels: Path) -> None:
    """Run the part of a rank other than 0. Raises the errors of the engine."""
    body, chunk_body = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
    chunk = codec.to_worker(chunk_body)
    assert isinstance(chunk, AssignChunk)
    if _uses_all_ranks(mpi_run, chunk):
        warmup.compile_group(kernels, chunk.engine, ranks=True)
        runner = Runner(comm=mpi_run.comm)
        if body:
            document = codec.to_worker(body)
            assert isinstance(document, NoiseDocument)
            runner.receive_noise(document)
        runner.follow(chunk.tasks[0], chunk.terms[0], chunk)


def _uses_all_ranks(mpi_run: MpiRun, chunk: AssignChunk) -> bool:
    """Return whether the engine divides a task among all ranks; else rank 0 runs it alone."""
    card = catalog.card(chunk.engine)
    return mpi_run.size > 1 and card is not None and card.parallel.ranks
