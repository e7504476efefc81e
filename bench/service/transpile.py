"""Transpilation of 200 circuits for a device of 127 qubits: two workers compared with one process.

The circuits are different ones of 8 to 16 qubits. `qiskit` is `qiskit.transpile` in one process at
its default level; `workers` is `Client.transpile` at the same level by two workers, including QPY
in both directions. Rounds alternate; figures are medians of the rounds' ratios, of wall time and of
CPU time. Circuits must be equal, layouts included.

One process does not use one core. Qiskit's routing starts a thread for each core, and two thirds of
the CPU time are spent in it; `one_thread` is the same process with RAYON_NUM_THREADS=1. The lesser
CPU time of the two, divided by the cores, is what an even division without any cost of its own
would take; it is printed.

`replayed` predicts the wall time on a number of cores from the CPU times of the processes: cores
are shared equally by the processes that have work, each of which uses at most one. What other
processes of the machine used meanwhile is subtracted from the cores. It ignores caches, waits and
messages. `model_error` is its error for the time that was measured here. The table has its result
for one core more, when client and service need none of the workers' cores, in shares of `qiskit` as
measured. That process would be faster on one core more, too: the table has its least time, if its
threads shared the work evenly.
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from collections import defaultdict
from typing import Any

import msgspec
import numpy as np
import psutil
from qiskit import QuantumCircuit, transpile

import simenv
from bench.harness import Report, Times
from bench.harness.environments import cpu_s, service_process
from bench.harness.options import SEED, rounds
from bench.peers.process import IsolatedPeer
from simenv.client.submission.calls import CIRCUITS as CIRCUITS_OF_TASK, FIRST_TASKS
from simenv.model.devices import DeviceInfo
from simenv.transpiler.qiskit_runtime import SEED as TRANSPILER_SEED
from simenv.transpiler.qpy import write_qpy
from simenv.transpiler.transpiler import target_of

CIRCUITS, DEVICE, LEVEL, WORKERS = 200, "sherbrooke", 2, 2
OPTIONS = (rounds(5, quick=2), SEED)


class Cost(msgspec.Struct, frozen=True):
    """Seconds of one call of `qiskit.transpile`. `serial_s`: CPU time of the calling thread;
    `parallel_s`: of the threads of routing, together."""

    wall_s: float
    serial_s: float
    parallel_s: float
    others: float  # cores that other processes used

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the process."""
        return self.serial_s + self.parallel_s

    def on(self, cores: int) -> float:
        """Least seconds on so many cores, with a thread for each, beside the other processes."""
        return self.serial_s + self.parallel_s / (cores - self.others)


class OneProcess:
    """`qiskit.transpile` in a process with a number of threads."""

    def __init__(self, threads: int, info: DeviceInfo) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # read when the first circuit is routed
        self._target = target_of(info)
        self._compiled: list[Any] = []

    def transpile(self, circuits: list[Any]) -> Cost:
        """Compile circuits, and return what it cost."""
        settings = {
            "optimization_level": LEVEL,
            "seed_transpiler": TRANSPILER_SEED,
            "num_processes": 1,
        }
        thread, process = time.thread_time(), time.process_time()
        begin, busy_s = time.perf_counter(), machine_s()
        self._compiled = transpile(circuits, target=self._target, **settings)
        wall_s = time.perf_counter() - begin
        serial_s, cpu = time.thread_time() - thread, time.process_time() - process
        others = max(0.0, machine_s() - busy_s - cpu) / wall_s
        return Cost(wall_s, serial_s, max(0.0, cpu - serial_s), others)

    def compiled(self) -> list[Any]:
        """Return the circuits that were compiled last."""
        return self._compiled


def machine_s() -> float:
    """Return the CPU seconds of all processes since the machine's start, and those that its host
    took."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def run(options: Namespace) -> Report:
    report = Report("transpile", f"transpile: {CIRCUITS} circuits for {DEVICE}, level {LEVEL}")
    cores = os.cpu_count() or 1
    circuits = [layered(options.seed, number) for number in range(CIRCUITS)]
    walls: Times = defaultdict(list)
    parts: list[list[float]] = []
    others: list[float] = []
    costs: dict[str, list[Cost]] = defaultdict(list)
    with simenv.local(workers=WORKERS, durability="accepted") as client:
        info = client.device(DEVICE)
        for _ in range(2):  # the first call of each worker loads Qiskit
            client.transpile(circuits[:32], DEVICE, level=LEVEL)
        processes = [psutil.Process(each.pid) for each in client.workers()]
        processes.insert(0, service_process(client))
        peers = {
            name: IsolatedPeer(name, OneProcess, info, threads=threads)
            for name, threads in (("qiskit", cores), ("one_thread", 1))
        }
        for peer in peers.values():
            peer.call("transpile", circuits[:8])
        own_s = time.process_time()
        for circuit in circuits:
            write_qpy(circuit)
        pack_s = time.process_time() - own_s
        for _ in range(options.rounds):
            for name, peer in peers.items():
                cost = peer.call("transpile", circuits)
                costs[name].append(cost)
                walls[name].append(cost.wall_s)
            own_s, before_s = time.process_time(), [cpu_s(each) for each in processes]
            begin, busy_s = time.perf_counter(), machine_s()
            compiled = client.transpile(circuits, DEVICE, level=LEVEL)
            walls["workers"].append(time.perf_counter() - begin)
            own_s = time.process_time() - own_s
            spent_s = np.subtract([cpu_s(each) for each in processes], before_s)
            ours_s = own_s + float(spent_s.sum())
            others.append(max(0.0, machine_s() - busy_s - ours_s) / walls["workers"][-1])
            parts.append([own_s, *spent_s.tolist()])
            assert equal_results(peers["qiskit"].call("compiled"), compiled), "circuits differ"
        for peer in peers.values():
            peer.close()
    report.at_least("identical", 1, "all circuits and layouts equal to those of one process")
    _report_times(report, walls, costs, np.array(parts), cores)
    _report_replay(report, walls, costs, np.array(parts), pack_s, statistics.median(others))
    return report


def _report_times(
    report: Report, walls: Times, costs: dict[str, list[Cost]], parts: Any, cores: int
) -> None:
    for name, each in costs.items():
        wall, cpu = statistics.median(walls[name]), statistics.median(x.cpu_s for x in each)
        serial = statistics.median(x.serial_s for x in each)
        print(f"{name:12}{wall:8.3f} s wall{cpu:8.3f} s CPU, {serial:.3f} s in the calling thread")
    client, service, *workers = np.median(parts, axis=0)
    print(
        f"{'workers':12}{statistics.median(walls['workers']):8.3f} s wall"
        f"{np.median(parts.sum(axis=1)):8.3f} s CPU: client {client:.3f}, service {service:.3f},"
        f" workers {', '.join(f'{each:.3f}' for each in workers)}"
    )
    # The median ratio over rounds: a slow machine slows both times of a round.
    ours, default = np.array(walls["workers"]), np.array(walls["qiskit"])
    cpus = np.array([each.cpu_s for each in costs["qiskit"]])
    busiest = parts[:, 0] + parts[:, 2:].max(axis=1)
    for key, label, ratios in (
        ("wall_share", "wall time", ours / default),
        ("one_thread_share", "wall time, one process with one thread", ours / walls["one_thread"]),
        ("cpu_share", "CPU time of the client and the busier worker", busiest / cpus),
    ):
        report.at_most(key, float(np.median(ratios)), label)
    least = np.minimum(cpus, [each.cpu_s for each in costs["one_thread"]]) / cores / default
    print(f"even division of one process's CPU time over {cores} cores: {np.median(least):.3f}")


def _report_replay(
    report: Report,
    walls: Times,
    costs: dict[str, list[Cost]],
    parts: Any,
    pack_s: float,
    others: float,
) -> None:
    cores = os.cpu_count() or 1
    own, service, *workers = np.median(parts, axis=0).tolist()
    pack = min(pack_s, own)
    stages = pack, service, sum(workers), own - pack
    peer = Cost(*np.median([msgspec.structs.astuple(x) for x in costs["qiskit"]], axis=0).tolist())
    alone = statistics.median(walls["one_thread"])
    measured = statistics.median(walls["workers"])
    print("\nreplayed, s       one process, least    workers    of one process    of one thread")
    shares = {}
    for number, size in ((cores, WORKERS), (cores + 1, WORKERS), (cores + 1, WORKERS + 1)):
        predicted = replayed(*stages, cores=number - others, workers=size)
        shares[number, size] = predicted / peer.wall_s
        print(
            f"{number} cores, {size} workers{peer.on(number):19.3f}{predicted:11.3f}"
            f"{predicted / peer.wall_s:18.3f}{predicted / alone:17.3f}"
        )
    ratios = f"{measured / peer.wall_s:18.3f}{measured / alone:17.3f}"
    print(f"measured, {cores} cores {peer.wall_s:19.3f}{measured:11.3f}{ratios}")
    print(f"cores that other processes used: {peer.others:.2f} and {others:.2f}\n")
    label = f"replayed, {cores + 1} cores, {WORKERS + 1} workers, of one process on these cores"
    report.at_most("third_core_share", shares[cores + 1, WORKERS + 1], label)
    error = abs(shares[cores, WORKERS] * peer.wall_s / measured - 1.0)
    report.at_most("model_error", error, "error of the replay for the workers on these cores")


def replayed(
    pack_s: float, service_s: float, worker_s: float, read_s: float, *, cores: float, workers: int
) -> float:
    """Return the seconds until the client has read all circuits. Arguments: CPU seconds of all
    circuits in each stage. The client packs the first tasks, sends them, packs the others, sends
    them, and reads results in order. Each task passes the service after its worker."""
    tasks = -(-CIRCUITS // CIRCUITS_OF_TASK)
    pack, service, work, read = (x / tasks for x in (pack_s, service_s, worker_s, read_s))
    packing = [pack * FIRST_TASKS, pack * (tasks - FIRST_TASKS)]
    sends = [FIRST_TASKS, tasks - FIRST_TASKS]
    remaining: dict[str, float] = {}  # seconds of the job of each busy process
    waiting = unserved = unread = finished = 0
    now = 0.0
    while finished < tasks:
        for worker in range(workers):
            if waiting and f"worker {worker}" not in remaining:
                waiting -= 1
                remaining[f"worker {worker}"] = work
        if unserved and "service" not in remaining:
            unserved -= 1
            remaining["service"] = service
        if "client" not in remaining and (packing or unread):
            unread -= not packing
            remaining["client"] = packing.pop(0) if packing else read
        rate = min(1.0, cores / len(remaining))
        step = min(remaining.values())
        now += step / rate
        remaining = {name: left - step for name, left in remaining.items()}
        for name in [name for name, left in remaining.items() if left <= 1e-12]:
            del remaining[name]
            if name == "service":
                unread += 1
            elif name != "client":
                unserved += 1
            elif sends:
                waiting += sends.pop(0)
            else:
                finished += 1
    return now


def layered(seed: int, number: int) -> QuantumCircuit:
    """Return rotations and controlled gates on random pairs, measured; the number is the seed."""
    rng = np.random.default_rng([seed, number])
    width = int(rng.integers(8, 17))
    circuit = QuantumCircuit(width, width, name=f"layered{number}")
    for _ in range(6):
        for qubit in range(width):
            circuit.u(*rng.uniform(0, 2 * np.pi, 3), qubit)
        pairs = rng.permutation(width)
        for first, second in zip(pairs[0::2].tolist(), pairs[1::2].tolist(), strict=False):
            circuit.cx(first, second)
    circuit.measure(range(width), range(width))
    return circuit


def equal_results(first: list[Any], second: list[Any]) -> bool:
    """Return whether the circuits and their layouts are equal."""
    return len(first) == len(second) and all(
        left == right
        and left.layout.final_index_layout() == right.layout.final_index_layout()
        and left.layout.initial_index_layout() == right.layout.initial_index_layout()
        for left, right in zip(first, second, strict=True)
    )
