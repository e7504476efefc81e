"""Throughput of small circuits per second, from the user's objects to counts.

The whole path is measured: client, service and two worker processes, accepts on disk. Every circuit
is new; only the QuantumCircuit objects and the arrays of angles are made before the clock starts.
The clock stops when every dict of counts has been read; for the second figure of bindings, results
stay packed. Figures are medians of rounds, interleaved over the widths; the peers run in this
process in the same rounds, one thread each, no service, no journal.

    python -m bench run throughput [--rounds 5]
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

import simenv
from bench import small_circuits as shapes
from bench.harness import Report, Times, installed, medians, rounds, timed
from bench.harness.environments import cpu_s
from bench.peers import qulacs as qulacs_peer
from bench.peers.aer import run_batch
from bench.peers.lightning import counting_qnode
from simenv.client.client import Client

SHOTS = 1_024
KINDS = ((4, 30, 20_000), (8, 60, 10_000), (12, 92, 3_000))  # qubits, operations, circuits
SWEEPS = ((4, 12, 25, 40_000), (8, 32, 68, 16_000))  # qubits, parameters, operations, bindings
PEER_CIRCUITS = 40
ALONE = 1_500  # circuits submitted one by one
LOOPS = 60  # loops of 128 bindings
OPTIONS = (rounds(5, quick=1),)


def run(options: Namespace) -> Report:
    report = Report("throughput", "throughput: small circuits, 1,024 shots, 2 workers, new each")
    rates: Times = defaultdict(list)
    cpu: Times = defaultdict(list)
    seeds = iter(range(10**9))
    with simenv.local(workers=2, durability="accepted") as client:
        for num_qubits, operations, _ in KINDS:  # warm-up
            shape = (num_qubits, operations, 300)
            _circuits(client, shape, next(seeds), defaultdict(list), defaultdict(list))
        for _ in range(options.rounds):
            for shape in KINDS:
                _circuits(client, shape, next(seeds), rates, cpu)
                _peers(*shape[:2], next(seeds), rates)
            _single_tasks(client, next(seeds), rates)
            for sweep in SWEEPS:
                _sweep(client, sweep, next(seeds), rates)
            _loop(client, next(seeds), rates)
            _dicts(client, next(seeds), rates)
    _verdicts(report, medians(rates | cpu))
    return report


def _circuits(
    client: Client, shape: tuple[int, int, int], seed: int, rates: Times, cpu: Times
) -> None:
    """Measure new circuits, all in one call, to dicts of counts."""
    num_qubits, operations, number = shape
    circuits = shapes.layered(num_qubits, operations, number, seed)
    before = _cpu(client)
    begin = time.perf_counter()
    tasks = client.submit_many(circuits, shots=SHOTS, seed=seed)
    entries = [task.result().counts for task in tasks]
    seconds = time.perf_counter() - begin
    after = _cpu(client)
    assert all(sum(counts.values()) == SHOTS for counts in entries)
    rates[f"ours {num_qubits}"].append(number / seconds)
    for name in after:
        cpu[f"{name} {num_qubits}"].append((after[name] - before[name]) / number * 1e6)
    kernel_us = sum(task.result().timing.run_s for task in tasks) / number * 1e6
    cpu[f"kernel {num_qubits}"].append(kernel_us)


def _cpu(client: Client) -> dict[str, float]:
    """Return the CPU seconds so far of the client, the service, and both workers together."""
    entries = {"client": cpu_s(psutil.Process())}
    entries["service"] = cpu_s(psutil.Process(client.status().pid))
    entries["worker"] = cpu_s(*(psutil.Process(worker.pid) for worker in client.workers()))
    return entries


def _peers(num_qubits: int, operations: int, seed: int, rates: Times) -> None:
    built = [shapes.gates(num_qubits, operations, seed * 10**6 + k) for k in range(PEER_CIRCUITS)]
    circuits = [shapes.built(num_qubits, gates) for gates in built]
    work: dict[str, Callable[[], list[Any]]] = {}
    if installed("qiskit_aer"):
        work["aer"] = lambda: run_batch(circuits, SHOTS)
    if installed("qulacs"):
        convert = qulacs_peer.single_angle_circuit
        work["qulacs"] = lambda: [
            qulacs_peer.sample(num_qubits, convert(num_qubits, gates), SHOTS) for gates in built
        ]
    if installed("pennylane_lightning"):
        lightning = counting_qnode(num_qubits, SHOTS)
        work["lightning"] = lambda: [lightning(gates) for gates in built[:10]]
    for name, run in work.items():
        seconds, entry = timed(run)
        rates[f"{name} {num_qubits}"].append(len(entry) / seconds)


def _single_tasks(client: Client, seed: int, rates: Times) -> None:
    """Measure one message per circuit, sent without waiting for results."""
    circuits = shapes.layered(4, 30, ALONE, seed)
    begin = time.perf_counter()
    tasks = [client.post(circuit, shots=SHOTS, seed=seed + k) for k, circuit in enumerate(circuits)]
    entries = [task.result().counts for task in tasks]
    seconds = time.perf_counter() - begin
    assert len(entries) == ALONE
    rates["alone"].append(ALONE / seconds)


def _sweep(client: Client, sweep: tuple[int, int, int, int], seed: int, rates: Times) -> None:
    num_qubits, parameters, operations, number = sweep
    circuit = shapes.ansatz(num_qubits, parameters, operations)
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 6, (number, parameters))
    begin = time.perf_counter()
    tasks = client.submit_many((circuit, values), shots=SHOTS, seed=seed)
    results = [task.result() for task in tasks]
    packed = time.perf_counter() - begin
    entries = [result.counts for result in results]
    seconds = time.perf_counter() - begin
    assert all(sum(counts.values()) == SHOTS for counts in entries)
    rates[f"packed {num_qubits}"].append(number / packed)
    rates[f"bindings {num_qubits}"].append(number / seconds)


def _loop(client: Client, seed: int, rates: Times) -> None:
    """Measure an optimiser's loop: submit 128 bindings, wait, repeat."""
    circuit = shapes.ansatz(4, 12, 25)
    rng = np.random.default_rng(seed)
    times = []
    for k in range(LOOPS):
        values = rng.uniform(0, 6, (128, 12))
        begin = time.perf_counter()
        tasks = client.submit_many((circuit, values), shots=SHOTS, seed=seed + k)
        results = [task.result() for task in tasks]
        times.append((time.perf_counter() - begin) * 1e3)
        assert len(results) == 128
    rates["loop"].append(statistics.median(times))


def _dicts(client: Client, seed: int, rates: Times) -> None:
    """Measure the microseconds to convert a packed result of 16 outcomes to a dict."""
    values = np.random.default_rng(seed).uniform(0, 6, (4_000, 12))
    tasks = client.submit_many((shapes.ansatz(4, 12, 25), values), shots=SHOTS, seed=seed)
    results = [task.result() for task in tasks]
    begin = time.perf_counter()
    sizes = [len(result.counts) for result in results]
    seconds = time.perf_counter() - begin
    rates["dict"].append(seconds / len(sizes) * 1e6 * 16 / statistics.mean(sizes))


def _verdicts(report: Report, figures: dict[str, float]) -> None:
    print(f"{'circuits/s':12s}" + "".join(f"{n:>12d}" for n, _, _ in KINDS))
    for name in ("ours", "aer", "qulacs", "lightning"):
        if f"{name} {KINDS[0][0]}" not in figures:
            continue
        print(f"{name:12s}" + "".join(f"{figures[f'{name} {n}']:12,.0f}" for n, _, _ in KINDS))
    print("\nCPU a circuit, us; the kernel's time is in the worker's")
    for name in ("client", "service", "worker", "kernel"):
        print(f"{name:12s}" + "".join(f"{figures[f'{name} {n}']:12.1f}" for n, _, _ in KINDS))
    print()
    for n, _, _ in KINDS:
        report.at_least(f"circuits_{n}", figures[f"ours {n}"], f"new circuits a second, {n} qubits")
    report.at_least("alone", figures["alone"], "one by one, not waited for, a second")
    for n, _, _, _ in SWEEPS:
        label = f"bindings a second, {n} qubits"
        print(f"       {label}, every dict read: {figures[f'bindings {n}']:,.0f}")
        report.at_least(f"bindings_{n}", figures[f"packed {n}"], f"{label}, results packed")
    report.at_most("loop_128_ms", figures["loop"], "a loop of 128 bindings, p50, ms")
    report.at_most("client_us", figures["client 4"], "client's CPU a circuit, 4 qubits, us")
    report.at_most("service_us", figures["service 4"], "service's CPU a circuit, us")
    other_us = figures["worker 4"] - figures["kernel 4"]
    report.at_most("worker_us", other_us, "worker's CPU a circuit beside the kernel, us")
    report.at_most("dict_us", figures["dict"], "a dict of 16 outcomes, us")
