"""Latency of one small circuit from `submit` to its counts, and its lower bounds.

The whole path is measured: client, service and worker processes, ZeroMQ, journal. Every circuit is
new (4 qubits, 26 gates, 4 measurements, 1,024 shots, a seed of its own); the clock runs from the
QuantumCircuit to the dict of counts. The three durability levels run in interleaved rounds, since
the machine's speed drifts. qiskit-aer runs in this process in the same rounds: no service, no
journal, no other process, transpilation not timed. The two lower bounds of the path run in them
too: four hops without work, and an fsync of 4 KiB on the journal's disk.

With `--tcp` instead: the same environment (durability process) through its socket and over TCP with
CURVE on the loopback interface, interleaved; their difference is the verdict.

    python -m bench run latency [--rounds 8] [--circuits 200] [--tcp]
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from qiskit import QuantumCircuit

import simenv
from bench.circuits import four_qubit_circuit
from bench.harness import (
    Option,
    Report,
    Times,
    installed,
    medians,
    rounds,
    timed_s,
    transport_limits,
)
from bench.harness.environments import cpu_s, remote_key
from bench.peers import aer as aer_peer
from simenv.client.client import Client

LEVELS = ("accepted", "process", "power")
SHOTS = 1_024


@dataclass
class Series:
    """Times of one contender in seconds."""

    medians: list[float] = field(default_factory=list)  # one per round
    accepts: list[float] = field(default_factory=list)
    all: list[float] = field(default_factory=list)
    stages: Times = field(default_factory=lambda: defaultdict(list))
    cpu: Times = field(default_factory=lambda: defaultdict(list))  # per task, by process

    def add(self, times: list[float], accepts: list[float] | None = None) -> None:
        self.medians.append(statistics.median(times))
        if accepts:
            self.accepts.append(statistics.median(accepts))
        self.all += times


OPTIONS = (
    rounds(8, quick=2),
    Option("--circuits", type=int, default=200, help="a round and contender", quick=50),
    Option("--tcp", action="store_true", help="what TCP and CURVE add, only"),
)


def run(options: Namespace) -> Report:
    number, seeds = options.circuits, iter(range(10**9))
    if options.tcp:
        return _tcp_latency(options.rounds, number)
    report = Report("latency", "latency: 4 qubits, 26 gates + 4 measurements, 1,024 shots")
    series = {name: Series() for name in (*LEVELS, "aer", "4 hops", "fsync")}
    with contextlib.ExitStack() as stack:
        environments = {
            level: stack.enter_context(simenv.local(workers=2, durability=level))
            for level in LEVELS
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        socket = stack.enter_context(transport_limits.hops())
        for client in environments.values():
            _measure(client, _circuits(50, seeds), Series(), 0)  # warm-up
        for _ in range(options.rounds):
            for level, client in environments.items():
                _measure(client, _circuits(number, seeds), series[level], next(seeds))
            series["4 hops"].add([transport_limits.round_trip_s(socket, number)])
            series["fsync"].add([transport_limits.fsync_s(folder, number)])
            if installed("qiskit_aer"):
                _aer(_circuits(number // 4, seeds), series["aer"])
    _print({name: entry for name, entry in series.items() if entry.all})
    load = os.getloadavg()[0]
    for level in LEVELS:
        p99 = float(np.percentile(series[level].all, 99)) * 1e3
        print(f"p99 {level}: {p99:.2f} ms at load {load:.1f}")
    print()
    for goal, level in (("accepted_p50_ms", "accepted"), ("process_p50_ms", "process")):
        p50 = statistics.median(series[level].medians) * 1e3
        report.at_most(goal, p50, f"p50 submit to counts, durability={level}, ms")
    return report


def _circuits(number: int, seeds: Iterator[int]) -> list[QuantumCircuit]:
    return [four_qubit_circuit(next(seeds)) for _ in range(number)]


def _tcp_latency(rounds: int, circuits: int) -> Report:
    report = Report("latency_tcp", "latency: what TCP with CURVE adds to one submit-to-counts")
    series = {"ipc": Series(), "tcp": Series()}
    seeds = iter(range(10**9))
    with contextlib.ExitStack() as stack:
        local_client = stack.enter_context(
            simenv.local(workers=2, durability="process", listen="tcp://127.0.0.1:0")
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file, _ = remote_key(local_client, "bench", folder)
        tcp_client = stack.enter_context(simenv.connect(service=file))
        for _ in range(rounds + 1):
            for name, client in (("ipc", local_client), ("tcp", tcp_client)):
                _measure(client, _circuits(circuits, seeds), series[name], next(seeds))
    for entry in series.values():
        del entry.medians[0]  # the first round warms up
    p50s = {name: statistics.median(entry.medians) * 1e3 for name, entry in series.items()}
    print("   ".join(f"{name}: p50 {p50:.3f} ms" for name, p50 in p50s.items()))
    extra = np.median(np.subtract(series["tcp"].medians, series["ipc"].medians)) * 1e3
    report.at_most("extra_ms", extra, "p50 over TCP with CURVE, more than over ipc, ms")
    return report


def _measure(client: Client, circuits: list[QuantumCircuit], into: Series, seed: int) -> None:
    times, accepts = [], []
    processes = _processes(client)
    before = [cpu_s(p) for p in processes.values()]
    for k, circuit in enumerate(circuits):
        begin = time.perf_counter()
        task = client.submit(circuit, shots=SHOTS, seed=seed + k)
        accepted = time.perf_counter()
        result = task.result()
        counts = result.counts
        end = time.perf_counter()
        assert sum(counts.values()) == SHOTS
        times.append(end - begin)
        accepts.append(accepted - begin)
        timing = result.timing
        for stage in timing.__slots__:
            into.stages[stage].append(getattr(timing, stage) or 0.0)
    for (name, process), old in zip(processes.items(), before, strict=True):
        used = (cpu_s(process) - old) / len(circuits)
        into.cpu[name].append(used)
    into.add(times, accepts)


def _processes(client: Client) -> dict[str, psutil.Process]:
    entries = {"client": psutil.Process(), "service": psutil.Process(client.status().pid)}
    for k, worker in enumerate(client.workers()):
        entries[f"worker {k}"] = psutil.Process(worker.pid)
    return entries


def _aer(circuits: list[QuantumCircuit], into: Series) -> None:
    simulator = aer_peer.simulator()

    def run(circuit: QuantumCircuit, seed: int) -> None:
        simulator.run(circuit, shots=SHOTS, seed_simulator=seed).result().get_counts()

    into.add([timed_s(partial(run, circuit, k)) for k, circuit in enumerate(circuits)])


def _print(series: dict[str, Series]) -> None:
    print(f"{'':12s}{'p50 us':>9s}{'best':>9s}{'p99':>9s}{'accepted p50':>14s}")
    for name, entry in series.items():
        accepted = f"{statistics.median(entry.accepts) * 1e6:.0f}" if entry.accepts else "-"
        p50, best = statistics.median(entry.medians), min(entry.medians)
        cells = "".join(f"{each * 1e6:9.0f}" for each in (p50, best, np.percentile(entry.all, 99)))
        print(f"{name:12s}{cells}{accepted:>14s}")
    stages = list(series["accepted"].stages)
    print("\nby stage, median us")
    print(" " * 12 + "".join(f"{stage.removesuffix('_s'):>10s}" for stage in stages))
    for name in LEVELS:
        each = medians(series[name].stages)
        print(f"{name:12s}" + "".join(f"{each[stage] * 1e6:10.0f}" for stage in stages))
    print("\nCPU a task, us (10 ms ticks: means over all rounds)")
    for name in LEVELS:
        means = [f"{k} {statistics.mean(v) * 1e6:.0f}" for k, v in series[name].cpu.items()]
        print(f"{name:12s}" + ", ".join(means))
    print()
