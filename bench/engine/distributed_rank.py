"""One of the ranks that `distributed` starts; its argument is its settings as JSON.

The ranks run a wide circuit together, round after round; rank 0 writes the results.
"""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bench.circuits import engine_circuit, measured, wide_circuit
from bench.harness.kernels import FOLDER
from simulators.compiler import warmup
from simulators.engine import Request, RunControl, RunOptions

SHOTS = 1_024


class Settings(msgspec.Struct, frozen=True):
    """Settings of all ranks."""

    name: str
    qubits: int
    rounds: int
    seed: int
    layers: int  # layers of an ansatz; 0: all layers


class Round(msgspec.Struct, frozen=True):
    """One run over all ranks."""

    wall_s: float
    exchange_s: float  # maximum over the ranks
    cpu_s: float  # sum over all ranks, without the time spent in MPI
    sent_bytes: int
    peak_bytes: int  # sum of the peak memory of all ranks
    passes: int
    exchanges: int
    planned_bytes: int  # bytes that all ranks together are planned to send
    digest: int  # CRC-32 of the counts


def main() -> None:
    options = msgspec.json.decode(sys.argv[1], type=Settings)
    warmup.compile_group(FOLDER, ranks=True)
    from mpi4py import MPI

    from simulators.statevector.distributed.executor import CommStats
    from simulators.statevector.engine import StatevectorEngine

    comm = MPI.COMM_WORLD
    engine = StatevectorEngine(comm=comm)
    run_options, control = RunOptions(), RunControl()
    rounds = []
    circuit = circuit_of(options.name, options.qubits, options.seed, options.layers)
    for number in range(options.rounds + 1):
        plan = engine.plan(circuit, None, run_options)
        request = Request(SHOTS, options.seed)
        comm.Barrier()
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        result = engine.run(plan, circuit, request, run_options, control)
        own_s = time.process_time() - cpu_s
        traffic = engine.traffic or CommStats()
        wall_s = time.perf_counter() - begin_s
        peak = _peak_bytes()
        sums = np.array([own_s - traffic.waited_cpu_s, traffic.sent_bytes, peak], float)
        longest = np.array([wall_s, traffic.exchange_s])
        comm.Allreduce(MPI.IN_PLACE, sums, MPI.SUM)
        comm.Allreduce(MPI.IN_PLACE, longest, MPI.MAX)
        if result is not None and (number or not options.rounds):  # round 0 loads kernels
            cpu, *sent_and_peak = sums.tolist()
            planned = (traffic.passes, traffic.exchanges, traffic.planned_bytes_of_all)
            digest = zlib.crc32(result.outcomes + result.counts)
            rounds.append(Round(*longest.tolist(), cpu, *map(int, sent_and_peak), *planned, digest))
    if comm.rank == 0:
        Path(sys.argv[2]).write_bytes(msgspec.json.encode(rounds))
    engine.close()


def circuit_of(name: str, num_qubits: int, seed: int, layers: int = 0) -> Any:
    """Return a wide circuit with all qubits measured; `layers`: layers of an ansatz, 0: all. A
    layer is ry on each qubit and the ladder of cx."""
    gates = wide_circuit(name, num_qubits, seed)
    if layers and name == "ansatz":
        gates = gates[: layers * (2 * num_qubits - 1)]
    return engine_circuit(measured(num_qubits, gates))


def _peak_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


if __name__ == "__main__":
    main()
