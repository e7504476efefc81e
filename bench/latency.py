"""How long a small circuit takes from `submit` to its counts, one after the other.

Whole path: client, service and worker processes, ZeroMQ, journal. Every circuit is new (4 qubits,
26 gates, 4 measurements, 1,024 shots, a seed of its own); the clock runs from the QuantumCircuit in
hand to the dict of counts in hand. The three durability levels run interleaved, in rounds, since
the machine's speed drifts. qiskit-aer runs in this process in the same rounds: no service, no
journal, no other process, transpilation not timed. So do the two limits under the path: four hops
with nothing done in them, and an fsync of 4 KiB on the journal's disk.

With `--tcp` instead: the same environment (durability process) through its socket and over TCP
with CURVE on the loopback interface, interleaved; their difference is the verdict.

    python bench/latency.py [--rounds 8] [--circuits 200] [--tcp]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import floor
import numpy as np
import psutil
from qiskit import QuantumCircuit
from report import Report, installed

import simenv
from simenv.client.client import Client
from simenv.client.people import issue

LEVELS = ("accepted", "process", "power")
SHOTS = 1_024


@dataclass
class Series:
    """What one contender did; seconds."""

    medians: list[float] = field(default_factory=list)  # a round each
    accepts: list[float] = field(default_factory=list)
    all: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)  # a task, by process

    def add(self, times: list[float], accepts: list[float]) -> None:
        self.medians.append(statistics.median(times))
        if accepts:
            self.accepts.append(statistics.median(accepts))
        self.all += times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--circuits", type=int, default=200, help="a round and contender")
    parser.add_argument("--tcp", action="store_true", help="what TCP and CURVE add, only")
    told = parser.parse_args()
    if told.tcp:
        return _far(told.rounds, told.circuits)
    report = Report("latency", "latency: 4 qubits, 26 gates + 4 measurements, 1,024 shots")
    series = {name: Series() for name in (*LEVELS, "aer", "4 hops", "fsync")}
    seeds = iter(range(10**9))
    with contextlib.ExitStack() as stack:
        environments = {
            level: stack.enter_context(simenv.local(workers=2, durability=level))
            for level in LEVELS
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        socket = stack.enter_context(floor.hops())
        for env in environments.values():
            _measure(env, [circuit(next(seeds)) for _ in range(50)], Series(), 0)  # warm-up
        for _ in range(told.rounds):
            for level, env in environments.items():
                circuits = [circuit(next(seeds)) for _ in range(told.circuits)]
                _measure(env, circuits, series[level], next(seeds))
            series["4 hops"].add([floor.round_trip_s(socket, told.circuits)], [])
            series["fsync"].add([floor.fsync_s(folder, told.circuits)], [])
            if installed("qiskit_aer"):
                _aer([circuit(next(seeds)) for _ in range(told.circuits // 4)], series["aer"])
    series = {name: one for name, one in series.items() if one.all}
    _print(series)
    load = os.getloadavg()[0]
    for level in LEVELS:
        p99 = float(np.percentile(series[level].all, 99)) * 1e3
        print(f"p99 {level}: {p99:.2f} ms at load {load:.1f}")
    print()
    for goal, level in (("accepted_p50_ms", "accepted"), ("process_p50_ms", "process")):
        p50 = statistics.median(series[level].medians) * 1e3
        report.verdict(goal, p50, f"p50 submit to counts, durability={level}, ms")
    return report.close()


def _far(rounds: int, circuits: int) -> int:
    report = Report("latency_tcp", "latency: what TCP with CURVE adds to one submit-to-counts")
    series = {"ipc": Series(), "tcp": Series()}
    seeds = iter(range(10**9))
    with contextlib.ExitStack() as stack:
        near = stack.enter_context(
            simenv.local(workers=2, durability="process", listen="tcp://127.0.0.1:0")
        )
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bench.simenv"
        issue(near.people, "bench", "client", file)
        far = stack.enter_context(simenv.connect(service=file))
        for _ in range(rounds + 1):
            for name, env in (("ipc", near), ("tcp", far)):
                made = [circuit(next(seeds)) for _ in range(circuits)]
                _measure(env, made, series[name], next(seeds))
    for one in series.values():
        del one.medians[0]  # the first round warms up
    p50s = {name: statistics.median(one.medians) * 1e3 for name, one in series.items()}
    print("   ".join(f"{name}: p50 {p50:.3f} ms" for name, p50 in p50s.items()))
    extra = statistics.median(
        (tcp - ipc) * 1e3
        for ipc, tcp in zip(series["ipc"].medians, series["tcp"].medians, strict=True)
    )
    report.verdict("extra_ms", extra, "p50 over TCP with CURVE, more than over ipc, ms")
    return report.close()


def circuit(seed: int) -> QuantumCircuit:
    """Four qubits, 26 gates, measured; a new one for every seed."""
    rng = np.random.default_rng(seed)
    made = QuantumCircuit(4, 4)
    for layer in range(2):
        for qubit in range(4):
            made.ry(rng.uniform(0, 6), qubit)
            made.rz(rng.uniform(0, 6), qubit)
        for qubit in range(4 if layer else 3):
            made.cx(qubit, (qubit + 1) % 4)
    for qubit in range(3):
        made.h(qubit)
    made.measure(range(4), range(4))
    return made


def _measure(env: Client, circuits: list[QuantumCircuit], into: Series, seed: int) -> None:
    times, accepts = [], []
    processes = _processes(env)
    before = [_cpu_s(p) for p in processes.values()]
    for k, one in enumerate(circuits):
        begin = time.perf_counter()
        task = env.submit(one, shots=SHOTS, seed=seed + k)
        accepted = time.perf_counter()
        result = task.result()
        counts = result.counts
        end = time.perf_counter()
        assert sum(counts.values()) == SHOTS
        times.append(end - begin)
        accepts.append(accepted - begin)
        timing = result.timing
        for stage in timing.__slots__:
            into.stages.setdefault(stage, []).append(getattr(timing, stage) or 0.0)
    for (name, process), old in zip(processes.items(), before, strict=True):
        used = (_cpu_s(process) - old) / len(circuits)
        into.cpu.setdefault(name, []).append(used)
    into.add(times, accepts)


def _processes(env: Client) -> dict[str, psutil.Process]:
    found = {"client": psutil.Process(), "service": psutil.Process(env.status().pid)}
    for k, worker in enumerate(env.workers()):
        found[f"worker {k}"] = psutil.Process(worker.pid)
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _aer(circuits: list[QuantumCircuit], into: Series) -> None:
    from qiskit_aer import AerSimulator

    simulator = AerSimulator(method="statevector", max_parallel_threads=1)
    times = []
    for k, one in enumerate(circuits):
        begin = time.perf_counter()
        simulator.run(one, shots=SHOTS, seed_simulator=k).result().get_counts()
        times.append(time.perf_counter() - begin)
    into.add(times, [])


def _print(series: dict[str, Series]) -> None:
    print(f"{'':12s}{'p50 us':>9s}{'best':>9s}{'p99':>9s}{'accepted p50':>14s}")
    for name, one in series.items():
        p50, best = statistics.median(one.medians), min(one.medians)
        p99 = np.percentile(one.all, 99)
        accepted = f"{statistics.median(one.accepts) * 1e6:14.0f}" if one.accepts else f"{'-':>14s}"
        print(f"{name:12s}{p50 * 1e6:9.0f}{best * 1e6:9.0f}{p99 * 1e6:9.0f}{accepted}")
    stages = list(series["accepted"].stages)
    print(
        "\nby stage, median us\n"
        + " " * 12
        + "".join(f"{s.removesuffix('_s'):>10s}" for s in stages)
    )
    for name in LEVELS:
        cells = [statistics.median(series[name].stages[s]) * 1e6 for s in stages]
        print(f"{name:12s}" + "".join(f"{cell:10.0f}" for cell in cells))
    print("\nCPU a task, us (10 ms ticks: means over all rounds)")
    for name in LEVELS:
        cells = [f"{k} {statistics.mean(v) * 1e6:.0f}" for k, v in series[name].cpu.items()]
        print(f"{name:12s}" + ", ".join(cells))
    print()


if __name__ == "__main__":
    sys.exit(main())
