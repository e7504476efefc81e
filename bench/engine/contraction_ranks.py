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
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.circuits import built, engine_circuit
from bench.harness.kernels import load_kernels
from bench.harness.ranks import over_ranks
from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum, Request

QUBITS, LAYERS, DEGREE = 28, 4, 3


class RankTimes(msgspec.Struct, frozen=True):
    """Times of one rank."""

    wall_s: float
    cpu_s: float
    waiting_s: float


class RanksRun(msgspec.Struct, frozen=True):
    """Result of one run."""

    value: float
    remark: str
    ranks: list[RankTimes]

    @property
    def cpu_s(self) -> float:
        """CPU time of all ranks."""
        return sum(rank.cpu_s for rank in self.ranks)

    @property
    def idle_percent(self) -> float:
        """Part of the run spent waiting for other ranks, of the rank that waits longest."""
        return max(100.0 * rank.waiting_s / rank.wall_s for rank in self.ranks)


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

    def Allreduce(self, *arguments: Any) -> None:  # noqa: N802
        """Reduce arrays."""
        self._timed(self._comm.Allreduce, *arguments)

    def allreduce(self, value: Any) -> Any:
        """Reduce a value."""
        return self._timed(self._comm.allreduce, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        begin_s = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.waiting_s += time.perf_counter() - begin_s


def contraction_over(ranks: int) -> RanksRun:
    """Run the contraction over this number of ranks with one thread each."""
    answer = over_ranks(ranks, "bench.engine.contraction_ranks")
    return msgspec.json.decode(answer, type=RanksRun)


def edge_of_qaoa(num_qubits: int, layers: int) -> tuple[Circuit, Request]:
    """Return QAOA on a random regular graph, and the value of one edge."""
    random = np.random.default_rng(3)
    gates: list[Any] = [("h", (qubit,), ()) for qubit in range(num_qubits)]
    pairs = [random.permutation(num_qubits).reshape(-1, 2).tolist() for _ in range(DEGREE)]
    for _ in range(layers):
        gates += [("rzz", pair, (0.6,)) for each in pairs for pair in each]
        gates += [("rx", (qubit,), (0.8,)) for qubit in range(num_qubits)]
    edge = pairs[0][0]
    label = "".join("Z" if qubit in edge else "I" for qubit in reversed(range(num_qubits)))
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
    for num_qubits, layers in ((24, 3), (QUBITS, LAYERS)):
        circuit, request = edge_of_qaoa(num_qubits, layers)
        MPI.COMM_WORLD.Barrier()
        comm.waiting_s = 0.0
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        plan = engine.plan(circuit, None, options)
        result = engine.run(plan, circuit, request, options, RunControl())
        wall_s = time.perf_counter() - begin_s
        times = RankTimes(wall_s, time.process_time() - cpu_s, comm.waiting_s)
    ranks = MPI.COMM_WORLD.gather(times)
    engine.close()
    if result is not None and ranks is not None:
        value = float(np.frombuffer(result.expectations)[0])
        Path(sys.argv[1]).write_bytes(msgspec.json.encode(RanksRun(value, result.remark, ranks)))


if __name__ == "__main__":
    main()
