"""One contraction over several ranks: CPU time and waiting of each; `tensornetwork` starts it.

The contraction is the expectation value of one edge of QAOA with p = 4 on 28 qubits, whose light
cone contains all of them. A smaller one goes before it, so that all modules are loaded. CPU
time is that of the process in the whole run: plan, path search, contractions, and the time that MPI
spins. Waiting is wall time inside collective calls of MPI. Run as a program, the module is one of
the ranks; its argument is the path of the file that rank 0 writes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.circuits import built, engine_circuit, qaoa
from bench.harness.kernels import load_kernels
from bench.harness.ranks import over_ranks
from bench.harness.timing import timed
from simulators.engine import PauliSum, Request

DEGREE = 3


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
        return partial(self._timed, call) if name in ("Allreduce", "allreduce") else call

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        seconds, result = timed(partial(call, *arguments))
        self.waiting_s += seconds
        return result


def contraction_over(ranks: int) -> RanksRun:
    """Run the contraction over this number of ranks with one thread each."""
    answer = over_ranks(ranks, "bench.engine.contraction_ranks")
    return msgspec.json.decode(answer, type=RanksRun)


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

    from simulators.engine import RunControl, RunOptions
    from simulators.tensornetwork.contraction.engine import ContractionEngine

    load_kernels()
    comm, options = TimedCommunicator(MPI.COMM_WORLD), RunOptions()
    engine = ContractionEngine(comm)
    for num_qubits, layers in ((24, 3), (28, 4)):
        circuit, request = edge_of_qaoa(num_qubits, layers)
        MPI.COMM_WORLD.Barrier()
        comm.waiting_s = 0.0
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        plan = engine.plan(circuit, None, options)
        result = engine.run(plan, circuit, request, options, RunControl())
        wall_s = time.perf_counter() - begin_s
        times = (wall_s, time.process_time() - cpu_s, comm.waiting_s)
    ranks = MPI.COMM_WORLD.gather(times)
    engine.close()
    if result is not None and ranks is not None:
        value = float(np.frombuffer(result.expectations)[0])
        run = RanksRun(value, result.remark, *map(list, zip(*ranks, strict=True)))
        Path(sys.argv[1]).write_bytes(msgspec.json.encode(run))


if __name__ == "__main__":
    main()
