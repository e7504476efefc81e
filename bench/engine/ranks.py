"""One circuit over several MPI ranks of one thread each, memory that fills the machine, and shots.

Run as a program, the module is one of the ranks; its arguments are a Circuit as JSON and the file
that rank 0 writes.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import zlib
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from bench.circuits import brickwork, built, engine_circuit, measured, qaoa, wide_circuit
from bench.harness import SEED, Report, benchmark
from bench.harness.kernels import FOLDER, load_kernels
from bench.harness.timing import memory_bytes
from simulators.compiler import warmup
from simulators.engine import EngineContext, PauliSum, Request, RunControl, RunOptions
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.planning.planner import SegmentPlan, describe_sweeps
from simulators.statevector.program import build_program
from testbed.ranks import over_ranks

SHOTS = 1_024
QUBITS = 24
AER_MPI_S = {"qft": 4.35, "ansatz": 3.62}  # measured once: 24 qubits on 2 ranks of one thread
MEMORY_RANKS = 4
SPARE_BYTES = 5 * 2**29  # for buffers, libraries and other processes


class Circuit(msgspec.Struct, frozen=True):
    """What all ranks run. `engine`: statevector, or contraction or mps; `name`: of a wide circuit,
    or "edge"; `depth`: layers of an ansatz (0: all), of brickwork or of QAOA."""

    engine: str
    name: str
    qubits: int
    rounds: int = 0
    seed: int = 1
    depth: int = 0
    is_noisy: bool = False


class Round(msgspec.Struct, frozen=True):
    """One run; of each rank: seconds of the wall clock, of the process, of the process in MPI, of
    the wall clock in MPI; peak memory and bytes sent."""

    ranks: list[list[float]]
    digest: float  # CRC-32 of the counts, or the expectation value
    remark: str
    passes: int = 0
    exchanges: int = 0
    planned_bytes: int = 0  # that all ranks together are planned to send

    def of(self, column: int) -> list[float]:
        return [rank[column] for rank in self.ranks]

    @property
    def wall_s(self) -> float:
        return max(self.of(0))

    @property
    def cpu_s(self) -> float:
        """CPU time of all ranks, without that spent in MPI."""
        return sum(self.of(1)) - sum(self.of(2))

    @property
    def idle_share(self) -> float:
        """Part of the run spent in MPI, of the rank that waits longest."""
        return max(spent / wall for spent, wall in zip(self.of(3), self.of(0), strict=True))


def over(ranks: int, circuit: Circuit) -> list[Round]:
    """Run a circuit over this number of ranks; return its rounds by wall time."""
    text = msgspec.json.encode(circuit).decode()
    answer = over_ranks(ranks, "bench.engine.ranks", text)
    return sorted(msgspec.json.decode(answer, type=list[Round]), key=lambda each: each.wall_s)


@benchmark(rounds=(5, 1), seed=SEED)
def distributed(report: Report, options: Namespace) -> None:
    """One circuit over 1, 2, 4 ranks of one thread each.

    The bytes sent must equal those the plan predicts; the counts must not depend on the number of
    ranks. Times are those of the round of median wall time.
    """
    middle: dict[tuple[str, int], Round] = {}
    for name in ("qft", "ansatz", "volume"):
        digests = set()
        for count in (1, 2, 4):
            circuit = Circuit("statevector", name, QUBITS, options.rounds, options.seed)
            runs = over(count, circuit)
            digests |= {run.digest for run in runs}
            middle[name, count] = each = runs[len(runs) // 2]
            print(
                f"{name}, {count} ranks: wall {each.wall_s:.3f} s, {max(each.of(3)):.3f} s of it"
                f" exchange, CPU {each.cpu_s:.3f} s, {each.passes} passes, {each.exchanges}"
                f" exchanges, {sum(each.of(5)) / 1e6:.0f} MB sent",
                flush=True,
            )
        if len(digests) != 1:
            raise SystemExit(f"{name}: the counts depend on the ranks")
    for name in ("ansatz", "volume"):
        one, two = middle[name, 1], middle[name, 2]
        report.at_most("ranks_wall", two.wall_s / one.wall_s, name)
        report.at_most("ranks_exchange_percent", 100 * max(two.of(3)) / two.wall_s, name)
        report.at_most("ranks_cpu", two.cpu_s / one.cpu_s, name)
    for name, aer_s in AER_MPI_S.items():
        report.at_most("ranks_aer", middle[name, 2].wall_s / aer_s, name)
    off = max(abs(sum(run.of(5)) - run.planned_bytes) for run in middle.values())
    report.at_most("ranks_off_bytes", off)


@benchmark(qubits=(30, 24))
def memory(report: Report, options: Namespace) -> None:
    """Peak memory of a state that fills the machine: 30 qubits, 16 GiB, over 4 ranks.

    The Fourier transform and one layer of an ansatz run to their end and are sampled. The figure is
    the sum of the peak memory of all ranks. The run does not start where memory is short.
    """
    state, free = 16 << options.qubits, psutil.virtual_memory().available
    if free < state + SPARE_BYTES:
        print(f"{free / 2**30:.1f} GiB are free: too few for {state / 2**30:.0f} GiB, not begun")
        return report.not_measured("peak_gib", "too little memory is free")
    for name, depth in (("qft", 0), ("ansatz", 1)):
        (only,) = over(MEMORY_RANKS, Circuit("statevector", name, options.qubits, depth=depth))
        report.at_most("peak_gib", 16 * sum(only.of(4)) / state, name)


class Watched(RunControl):
    """Run control that records the time of the last pass."""

    __slots__ = ("last_s",)

    def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
        super().advance(unit, done, before=before)
        self.last_s = time.perf_counter()


@benchmark(qubits=(26, 22), rounds=(3, 1))
def sampling(report: Report, options: Namespace) -> None:
    """Many shots of a large state, in units of one sweep through the state.

    One run of the engine executes all passes of an ansatz on 26 qubits, then draws 10^6 shots as
    counts, by two threads in double precision. The clock is read after the last pass; the time of a
    sweep is that of the passes divided by the number of sweeps through the whole state.
    """
    load_kernels()
    circuit, _, _ = inputs(Circuit("statevector", "ansatz", options.qubits, seed=7))
    settings, engine = RunOptions(threads=2), StatevectorEngine()
    plan = engine.plan(circuit, None, settings)
    stretches = build_program(circuit, keep=False, precision="double").stretches
    segments = [each for each in stretches if isinstance(each, SegmentPlan)]
    passes = [each for segment in segments for each in describe_sweeps(segment.sweeps)]
    number = sum(each.amplitudes for each in passes) / 2.0**options.qubits
    times = []
    for turn in range(options.rounds + 1):
        control, begin_s = Watched(), time.perf_counter()
        request = Request(10**6 if turn else 1, 7)  # the first run, of one shot, loads kernels
        engine.run(plan, circuit, request, settings, control)
        end_s = time.perf_counter()
        assert control.progress.fraction == 1.0
        times.append((control.last_s - begin_s, end_s - control.last_s))
    passes_s, sampling_s = map(statistics.median, zip(*times[1:], strict=True))
    print(f"simulation {passes_s:.2f} s, {number:.1f} sweeps; sampling {sampling_s:.3f} s")
    report.at_most("of_sweep", sampling_s / (passes_s / number))


# --- the ranks ------------------------------------------------------------------------------------


class TimedCommunicator:
    """Communicator that measures the wall time inside its collective calls."""

    def __init__(self, comm: Any) -> None:
        self._comm, self.waiting_s = comm, 0.0

    def Dup(self) -> TimedCommunicator:  # noqa: N802  # as mpi4py has it
        """Return itself: the engine has it alone."""
        return self

    def Free(self) -> None:  # noqa: N802
        """Do nothing: `MPI.COMM_WORLD` stays."""

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._comm, name)
        collective = ("Allreduce", "allreduce", "Bcast", "allgather")
        return partial(self._timed, call) if name in collective else call

    def _timed(self, call: Any, *arguments: Any) -> Any:
        begin = time.perf_counter()
        result = call(*arguments)
        self.waiting_s += time.perf_counter() - begin
        return result


def inputs(of: Circuit) -> tuple[Any, Request, Any]:
    if of.name == "edge":  # of QAOA on a graph of degree 3, whose light cone is all qubits
        random = np.random.default_rng(3)
        orders = (random.permutation(of.qubits).reshape(-1, 2).tolist() for _ in range(3))
        edges = [pair for order in orders for pair in order]
        label = "".join("Z" if q in edges[0] else "I" for q in reversed(range(of.qubits)))
        request = Request(0, 1, ("expectation",), (PauliSum((label,), np.ones(1)),))
        return (
            engine_circuit(built(of.qubits, qaoa(of.qubits, edges, of.depth, 0.6, 0.8))),
            request,
            None,
        )
    if of.name == "brickwork":
        from bench.engine.noise_speed import noise_program

        circuit = engine_circuit(measured(of.qubits, brickwork(of.qubits, of.depth, 3)))
        noise = noise_program(circuit, relax=False) if of.is_noisy else None
        return circuit, Request(1_000, 1), noise
    gates = wide_circuit(of.name, of.qubits, of.seed)
    if of.depth:  # layers of ry on each qubit and the ladder of cx
        gates = gates[: of.depth * (2 * of.qubits - 1)]
    return engine_circuit(measured(of.qubits, gates)), Request(SHOTS, of.seed), None


def main(of: Circuit, file: Path) -> None:
    """Run the rounds as one of the ranks; round 0 loads kernels, if there are more."""
    warmup.compile_group(FOLDER, ranks=True)
    load_kernels()
    from mpi4py import MPI

    from simulators import registry

    comm, options, rounds = TimedCommunicator(MPI.COMM_WORLD), RunOptions(), []
    wide = of.engine == "statevector"
    engine: Any = StatevectorEngine(comm=MPI.COMM_WORLD) if wide else None
    small = msgspec.structs.replace(of, qubits=24, depth=3) if of.name == "edge" else (
        msgspec.structs.replace(of, qubits=4, depth=2))  # fmt: skip
    works = [of] * (of.rounds + 1) if wide else [small, of]
    for number, (circuit, request, noise) in enumerate(map(inputs, works)):
        engine = engine if wide else registry.create(of.engine, EngineContext(comm=comm))
        plan = engine.plan(circuit, noise, options) if wide else None
        MPI.COMM_WORLD.Barrier()
        comm.waiting_s = 0.0
        begin_s, cpu_s = time.perf_counter(), time.process_time()
        plan = plan or engine.plan(circuit, noise, options)
        result = engine.run(plan, circuit, request, options, RunControl())
        own_s = time.process_time() - cpu_s
        own = [
            time.perf_counter() - begin_s,
            own_s,
            0.0,
            comm.waiting_s,
            memory_bytes(os.getpid()),
            0.0,
        ]
        traffic = engine.traffic if wide else None
        counts = ()
        if traffic is not None:
            own[2:] = traffic.waited_cpu_s, traffic.exchange_s, own[4], traffic.sent_bytes
            counts = traffic.passes, traffic.exchanges, traffic.planned_bytes_of_all
        ranks = MPI.COMM_WORLD.gather(own)
        if ranks is not None and result is not None and (number or len(works) == 1):
            text = result.expectations or result.outcomes + bytes(result.counts)
            value = float(np.frombuffer(text)[0]) if request.observables else zlib.crc32(text)
            rounds.append(Round(ranks, float(value), result.remark, *counts))
        if not wide or number == of.rounds:
            engine.close()
    if MPI.COMM_WORLD.rank == 0:
        file.write_bytes(msgspec.json.encode(rounds))


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Circuit), Path(sys.argv[2]))
