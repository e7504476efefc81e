"""One contraction over several ranks: the CPU time of each; `tensornetwork` starts it.

The contraction is the expectation value of one edge of QAOA with p = 4 on 32 qubits, whose light
cone contains nearly all of them. Run as a program, the module is one of the ranks; its argument is
the path of the file that rank 0 writes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))
from arrays import Arrays
from ranked import environment, mpirun

ROOT = Path(__file__).parents[2]
QUBITS, LAYERS, DEGREE = 32, 4, 3
KERNELS = Path(sys.prefix) / "var" / "simenv-kernels"
WAIT_S = 900.0


class RanksRun(msgspec.Struct, frozen=True):
    """Result of one run."""

    value: float
    cpu_s: list[float]  # contractions of each rank, without path searches and MPI
    remark: str


def over_ranks(ranks: int) -> RanksRun:
    """Run the contraction over this number of ranks with one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        argv = [str(mpirun()), "-n", str(ranks), "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
        argv += [sys.executable, "-m", "bench.engine.contraction_ranks", str(out)]
        single_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environ = environment(Path(folder), single_thread)
        subprocess.run(argv, env=environ, cwd=ROOT, check=True, timeout=WAIT_S)
        return msgspec.json.decode(out.read_bytes(), type=RanksRun)


def main() -> None:
    """Run one rank."""
    from mpi4py import MPI

    from simulators.compiler import warmup
    from simulators.control import RunControl
    from simulators.engine import PauliSum, Request, RunOptions
    from simulators.tensornetwork.contraction.engine import ContractionEngine

    warmup.prepare(KERNELS)
    random = np.random.default_rng(3)
    arrays = Arrays(QUBITS, 0)
    for qubit in range(QUBITS):
        arrays.add("h", [qubit])
    pairs = [random.permutation(QUBITS).reshape(-1, 2).tolist() for _ in range(DEGREE)]
    for _ in range(LAYERS):
        for a, b in (pair for each in pairs for pair in each):
            arrays.add("rzz", [a, b], (), [0.6])
        for qubit in range(QUBITS):
            arrays.add("rx", [qubit], (), [0.8])
    circuit = arrays.circuit()
    edge = pairs[0][0]
    label = "".join("Z" if qubit in edge else "I" for qubit in reversed(range(QUBITS)))
    request = Request(0, 1, ("expectation",), (PauliSum((label,), np.ones(1)),))
    comm, options = MPI.COMM_WORLD, RunOptions()
    engine = ContractionEngine(comm)
    plan = engine.plan(circuit, None, options)
    result = engine.run(plan, circuit, request, options, RunControl())
    cpu_s = comm.gather(engine.cpu_s)
    engine.close()
    if result is not None:
        value = float(np.frombuffer(result.expectations)[0])
        entry = RanksRun(value, cpu_s, result.remark)
        Path(sys.argv[1]).write_bytes(msgspec.json.encode(entry))


if __name__ == "__main__":
    main()
