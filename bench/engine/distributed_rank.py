"""One of the ranks that `distributed` starts; its argument is its settings as JSON.

The ranks run a wide circuit together, round after round; rank 0 writes the results.
"""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from arrays import Arrays

from bench.circuits import wide_circuit
from simulators.circuit.ir import Circuit
from simulators.compiler import warmup
from simulators.engine import Request, RunControl, RunOptions

KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
SHOTS = 1_024


class Settings(msgspec.Struct, frozen=True):
    """Settings of all ranks."""

    name: str
    qubits: int
    rounds: int
    seed: int
    layers: int  # layers of an ansatz; 0: all layers
    out: str


class Round(msgspec.Struct, frozen=True):
    """One run over all ranks."""

    wall_s: float
    cpu_s: float  # sum over all ranks, without the time spent in MPI
    exchange_s: float  # maximum over the ranks
    passes: int
    exchanges: int
    planned_bytes: int  # bytes that all ranks together are planned to send
    sent_bytes: int
    digest: int  # CRC-32 of the counts
    peak_bytes: int  # sum of the peak memory of all ranks


class Runs(msgspec.Struct, frozen=True):
    """All rounds of one start of the ranks."""

    name: str
    num_qubits: int
    ranks: int
    rounds: list[Round]


def main() -> None:
    options = msgspec.json.decode(sys.argv[1], type=Settings)
    warmup.compile_group(KERNELS, ranks=True)
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
        sums = np.array([own_s - traffic.waited_cpu_s, traffic.sent_bytes, _peak_bytes()], float)
        longest = np.array([wall_s, traffic.exchange_s])
        comm.Allreduce(MPI.IN_PLACE, sums, MPI.SUM)
        comm.Allreduce(MPI.IN_PLACE, longest, MPI.MAX)
        if result is not None and (number or not options.rounds):  # round 0 loads kernels
            rounds.append(
                Round(
                    float(longest[0]),
                    float(sums[0]),
                    float(longest[1]),
                    traffic.passes,
                    traffic.exchanges,
                    traffic.planned_bytes_of_all,
                    int(sums[1]),
                    zlib.crc32(result.outcomes + result.counts),
                    int(sums[2]),
                )
            )
    if comm.rank == 0:
        runs = Runs(options.name, options.qubits, comm.size, rounds)
        Path(options.out).write_bytes(msgspec.json.encode(runs))
    engine.close()


def circuit_of(name: str, num_qubits: int, seed: int, layers: int = 0) -> Circuit:
    """Return a wide circuit with all qubits measured; `layers`: layers of an ansatz, 0: all."""
    arrays = Arrays(num_qubits, num_qubits)
    for gate, qubits, angles in wide_circuit(name, num_qubits, seed):
        arrays.add(gate, list(qubits), (), list(angles))
        if layers and name == "ansatz" and _is_over(arrays, num_qubits, layers):
            break
    for qubit in range(num_qubits):
        arrays.add("measure", [qubit], [qubit])
    return arrays.circuit()


def _is_over(arrays: Arrays, num_qubits: int, layers: int) -> bool:
    """Return whether the gates fill the layers; a layer is ry on each qubit and the ladder of
    cx."""
    return len(arrays.ops) == layers * (2 * num_qubits - 1)


def _peak_bytes() -> int:
    """Return the peak memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
