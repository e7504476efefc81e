"""Tensor networks over several ranks: CPU time and waiting of each; `tensornetwork` starts them.

The contraction is the expectation value of one edge of QAOA with p = 4 on 28 qubits, whose light
cone contains all of them. The chains are brickwork of random gates: of wide bonds, of narrow ones,
and with noise. A smaller job goes before each, so that all modules are loaded. CPU time is that of
the process in the whole run: plan, path search, contractions, and the time that MPI spins. Waiting
is wall time inside collective calls of MPI. Run as a program, the module is one of the ranks; its
arguments are the kind and the path of the file that rank 0 writes.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.circuits import brickwork, built, engine_circuit, measured, qaoa
from bench.engine.noise_speed import noise_program
from bench.harness.kernels import load_kernels
from bench.harness.ranks import over_ranks
from bench.harness.timing import timed
from simulators.engine import PauliSum, Request

DEGREE = 3
DEPTHS = {"chain": 17, "narrow": 6, "trajectories": 11}  # of brickwork
WIDTHS = {"narrow": 400}
SHOTS = 1_000
COLLECTIVE = {"Allreduce", "allreduce", "Bcast", "allgather"}


class RanksRun(msgspec.Struct, frozen=True):
    """Result of one run; times of each rank in seconds."""

    value: float
    remark: str
    wall_s: list[float]
    rank_cpu_s: list[float]
    waiting_s: list[float]

    @property
    def cpu_s(self) -> float:
        """CPU time of all ranks."""
        return sum(self.rank_cpu_s)

    @property
    def idle_percent(self) -> float:
        """Part of the run spent waiting for other ranks, of the rank that waits longest."""
        pairs = zip(self.waiting_s, self.wall_s, strict=True)
        return max(100.0 * waiting_s / wall_s for waiting_s, wall_s in pairs)


class TimedCommunicator:
    """Communicator that measures the time inside its collective calls."""

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self.waiting_s = 0.0

    def Dup(self) -> TimedCommunicator:  # noqa: N802  # as mpi4py has it
        """Return itself: the engine has it alone."""
        return self

    def Free(self) -> None:  # noqa: N802
        """Do nothing: `MPI.COMM_WORLD` stays."""

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._comm, name)
        return partial(self._timed, call) if name in COLLECTIVE else call

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        seconds, result = timed(partial(call, *arguments))
        self.waiting_s += seconds
        return result


def run_over(ranks: int, kind: str) -> RanksRun:
    """Run one kind over this number of ranks with one thread each."""
    answer = over_ranks(ranks, "bench.engine.tensor_ranks", kind)
    return msgspec.json.decode(answer, type=RanksRun)


def _jobs(kind: str) -> Iterator[tuple[str, Any, Request, Any]]:
    """Yield engine, circuit, request and noise of a small job, and of the one that is measured."""
    if kind == "contraction":
        for num_qubits, layers in ((24, 3), (28, 4)):
            yield "contraction", *edge_of_qaoa(num_qubits, layers), None
        return
    for num_qubits, depth in ((4, 2), (WIDTHS.get(kind, 40), DEPTHS[kind])):
        circuit = engine_circuit(measured(num_qubits, brickwork(num_qubits, depth, 3)))
        noise = noise_program(circuit, relax=False) if kind == "trajectories" else None
        yield "mps", circuit, Request(SHOTS, 1), noise


def edge_of_qaoa(num_qubits: int, layers: int) -> tuple[Any, Request]:
    """Return QAOA on a random regular graph, and the value of one edge."""
    random = np.random.default_rng(3)
    edges = [
        pair
        for _ in range(DEGREE)
        for pair in random.permutation(num_qubits).reshape(-1, 2).tolist()
    ]
    gates = qaoa(num_qubits, edges, layers, 0.6, 0.8)
    label = "".join("Z" if qubit in edges[0] else "I" for qubit in reversed(range(num_qubits)))
    request = Request(0, 1, ("expectation",), (PauliSum((label,), np.ones(1)),))
    return engine_circuit(built(num_qubits, gates)), request


def main() -> None:
    """Run one rank."""
    from mpi4py import MPI

    from simulators import registry
    from simulators.engine import EngineContext, RunControl, RunOptions

    load_kernels()
    comm, options = TimedCommunicator(MPI.COMM_WORLD), RunOptions()
    for name, circuit, request, noise in _jobs(sys.argv[1]):
        engine = registry.create(name, EngineContext(comm=comm))
        MPI.COMM_WORLD.Barrier()
        comm.waiting_s = 0.0
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        plan = engine.plan(circuit, noise, options)
        result = engine.run(plan, circuit, request, options, RunControl())
        wall_s = time.perf_counter() - begin_s
        times = (wall_s, time.process_time() - cpu_s, comm.waiting_s)
        engine.close()
    ranks = MPI.COMM_WORLD.gather(times)
    if result is not None and ranks is not None:
        told = result.expectations or result.outcomes + bytes(result.counts)
        value = float(np.frombuffer(told)[0]) if request.observables else float(zlib.crc32(told))
        run = RanksRun(value, result.remark, *map(list, zip(*ranks, strict=True)))
        Path(sys.argv[2]).write_bytes(msgspec.json.encode(run))


if __name__ == "__main__":
    main()
