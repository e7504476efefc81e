"""Throughput of small circuits per second, from the user's objects to counts.

The whole path is measured: client, service and two worker processes, accepts on disk. Every circuit
is new: in one series by its angles, as those of a variational program are, in the other by its
structure, too. Only the QuantumCircuit objects and the arrays of angles are made before the clock
starts. The clock stops when every dict of counts has been read; for the figures of bindings,
results stay packed. Figures are medians of rounds, interleaved over the widths; Aer runs in this
process and qulacs in one of its own in the same rounds, one thread each, no service, no journal.
"""

from __future__ import annotations

import itertools
import statistics
from argparse import Namespace
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import psutil

import simenv
from bench import small_circuits as shapes
from bench.harness import SEED, Report, Times, installed, medians, rounds, timed, timed_s
from bench.harness.environments import cpu_s
from bench.harness.isolated import IsolatedPeer
from bench.peers.aer import Aer, simulator
from bench.peers.qulacs import QulacsFromGates
from simenv.client.client import Client

SHOTS = 1_024
KINDS = ((4, 30, 20_000), (8, 60, 10_000), (12, 92, 3_000))  # qubits, operations, circuits
# Name of a series: the gates of its circuits, and how these are new.
SERIES = {
    "angles": (shapes.gates, "new angles"),
    "structures": (shapes.scattered_gates, "each of a structure of its own"),
}
SWEEPS = ((4, 12, 25, 40_000), (8, 32, 68, 16_000))  # qubits, parameters, operations, bindings
PEER_CIRCUITS = 40
PEER_BINDINGS = 200
AER_ALONE_MS = 2.0  # Aer's time for one circuit of 4 qubits on the machine of the loop's goal
ALONE = 1_500  # circuits submitted one by one
LOOPS = 60  # loops of 128 bindings
OPTIONS = (rounds(5, quick=1), SEED)


def run(options: Namespace) -> Report:
    report = Report("throughput", "throughput: small circuits, 1,024 shots, 2 workers, new each")
    rates: Times = defaultdict(list)
    seeds = itertools.count(options.seed)
    with simenv.local(workers=2, durability="accepted") as client:
        for series, (num_qubits, operations, _) in itertools.product(SERIES, KINDS):  # warm-up
            shape = num_qubits, operations, 300
            _circuits(client, series, shape, next(seeds), defaultdict(list))
        qulacs = IsolatedPeer("qulacs", QulacsFromGates, threads=1)
        for _ in range(options.rounds):
            for series, shape in itertools.product(SERIES, KINDS):
                _circuits(client, series, shape, next(seeds), rates)
            _single_tasks(client, next(seeds), rates)
            for sweep in SWEEPS:
                _sweep(client, sweep, next(seeds), rates)
            _loop(client, next(seeds), rates)
            _dicts(client, next(seeds), rates)
            for series, shape in itertools.product(SERIES, KINDS):  # after ours: their threads spin
                _peers(qulacs, series, *shape[:2], next(seeds), rates)
            for sweep in SWEEPS:
                _aer_bindings(sweep, next(seeds), rates)
        qulacs.close()
    _verdicts(report, medians(rates))
    return report


def _circuits(
    client: Client, series: str, shape: tuple[int, int, int], seed: int, rates: Times
) -> None:
    """Measure new circuits, all in one call, to dicts of counts; and the CPU us of each."""
    num_qubits, operations, number = shape
    circuits = shapes.layered(num_qubits, operations, number, seed, SERIES[series][0])
    processes = {
        "client": [psutil.Process()],
        "service": [psutil.Process(client.status().pid)],
        "worker": [psutil.Process(worker.pid) for worker in client.workers()],
    }
    before = {name: cpu_s(*each) for name, each in processes.items()}

    def call() -> list[Any]:
        tasks = client.submit_many(circuits, shots=SHOTS, seed=seed)
        return [(task, task.result().counts) for task in tasks]

    seconds, results = timed(call)
    for name, each in processes.items():
        rates[f"{name} {series} {num_qubits}"].append((cpu_s(*each) - before[name]) / number * 1e6)
    assert all(sum(counts.values()) == SHOTS for _, counts in results)
    rates[f"ours {series} {num_qubits}"].append(number / seconds)
    run_us = sum(task.result().timing.run_s for task, _ in results) / number * 1e6
    rates[f"run {series} {num_qubits}"].append(run_us)


def _peers(
    qulacs: IsolatedPeer, series: str, num_qubits: int, operations: int, seed: int, rates: Times
) -> None:
    gates_of, _ = SERIES[series]
    if installed("qiskit_aer"):  # all circuits in one call: its fastest way
        circuits = shapes.layered(num_qubits, operations, PEER_CIRCUITS, seed, gates_of)

        def with_aer() -> list[dict[str, int]]:
            result = simulator().run(circuits, shots=SHOTS).result()
            return [result.get_counts(k) for k in range(PEER_CIRCUITS)]

        rates[f"aer {series} {num_qubits}"].append(PEER_CIRCUITS / timed_s(with_aer))
        aer = Aer(1)
        times = [timed_s(partial(aer.run, circuit)) for circuit in circuits]
        rates[f"aer alone {series} {num_qubits}"].append(1e3 * statistics.median(times))
    gates = [gates_of(num_qubits, operations, seed * 10**6 + k) for k in range(PEER_CIRCUITS)]
    if not qulacs.problem and qulacs.prepare(num_qubits, gates):
        seconds = sum(qulacs.times(PEER_CIRCUITS, 600.0))
        rates[f"qulacs {series} {num_qubits}"].append(PEER_CIRCUITS / seconds)


def _single_tasks(client: Client, seed: int, rates: Times) -> None:
    """Measure one message per circuit, sent without waiting for results."""
    circuits = shapes.layered(4, 30, ALONE, seed)

    def call() -> list[dict[str, int]]:
        tasks = [client.post(each, shots=SHOTS, seed=seed + k) for k, each in enumerate(circuits)]
        return [task.result().counts for task in tasks]

    rates["alone"].append(ALONE / timed_s(call))


def _results(client: Client, work: Any, seed: int) -> list[Any]:
    return [task.result() for task in client.submit_many(work, shots=SHOTS, seed=seed)]


def _sweep(client: Client, sweep: tuple[int, int, int, int], seed: int, rates: Times) -> None:
    num_qubits, parameters, operations, number = sweep
    circuit = shapes.ansatz(num_qubits, parameters, operations)
    values = np.random.default_rng(seed).uniform(0, 6, (number, parameters))
    seconds, results = timed(partial(_results, client, (circuit, values), seed))
    assert all(sum(result.counts.values()) == SHOTS for result in results)
    rates[f"bindings {num_qubits}"].append(number / seconds)


def _aer_bindings(sweep: tuple[int, int, int, int], seed: int, rates: Times) -> None:
    """Measure Aer's fastest way for a sweep, to bind at run time."""
    num_qubits, parameters, operations, _ = sweep
    if not installed("qiskit_aer"):
        return
    circuit = shapes.ansatz(num_qubits, parameters, operations)
    values = np.random.default_rng(seed).uniform(0, 6, (parameters, PEER_BINDINGS)).tolist()
    binds = [dict(zip(circuit.parameters, values, strict=True))]
    binder = simulator(runtime_parameter_bind_enable=True)

    def call() -> Any:
        return binder.run(circuit, parameter_binds=binds, shots=SHOTS).result()

    rates[f"aer bindings {num_qubits}"].append(PEER_BINDINGS / timed_s(call))


def _loop(client: Client, seed: int, rates: Times) -> None:
    """Measure an optimiser's loop: submit 128 bindings, wait, repeat."""
    circuit = shapes.ansatz(4, 12, 25)
    rng = np.random.default_rng(seed)
    times = []
    for k in range(LOOPS):
        work = (circuit, rng.uniform(0, 6, (128, 12)))
        times.append(1e3 * timed_s(partial(_results, client, work, seed + k)))
    rates["loop"].append(statistics.median(times))


def _dicts(client: Client, seed: int, rates: Times) -> None:
    """Measure the microseconds to convert a packed result of 16 outcomes to a dict."""
    values = np.random.default_rng(seed).uniform(0, 6, (4_000, 12))
    results = _results(client, (shapes.ansatz(4, 12, 25), values), seed)
    seconds, sizes = timed(lambda: [len(result.counts) for result in results])
    rates["dict"].append(seconds / len(sizes) * 1e6 * 16 / statistics.mean(sizes))


def _verdicts(report: Report, figures: dict[str, float]) -> None:
    print("circuits/s; CPU a circuit, us; run: wall time in the worker, decoded to packed")
    names = ("ours", "aer", "qulacs", "client", "service", "worker", "run")
    for series, name in itertools.product(SERIES, names):
        if f"{name} {series} {KINDS[0][0]}" in figures:
            cells = (f"{figures[f'{name} {series} {n}']:12,.1f}" for n, _, _ in KINDS)
            print(f"{name:8s}{series:12s}{''.join(cells)}")
    print()
    for (series, (_, text)), (n, _, _) in itertools.product(SERIES.items(), KINDS):
        label = f"circuits a second, {n} qubits, {text}"
        report.at_least(f"circuits_{n}", figures[f"ours {series} {n}"], label)
    report.at_least("alone", figures["alone"], "one by one, not waited for, a second")
    for n, _, _, _ in SWEEPS:
        label = f"bindings a second, {n} qubits, results packed"
        report.at_least(f"bindings_{n}", figures[f"bindings {n}"], label)
    report.at_most("loop_128_ms", figures["loop"], "a loop of 128 bindings, p50, ms")
    if "aer alone angles 4" in figures:
        scaled_ms = figures["loop"] * AER_ALONE_MS / figures["aer alone angles 4"]
        label = f"the same where Aer takes {AER_ALONE_MS:g} ms for a circuit of 4 qubits, ms"
        report.at_most("loop_scaled_ms", scaled_ms, label)
    cases = itertools.product(("aer", "qulacs"), SERIES.items(), KINDS)
    for peer, (series, (_, text)), (n, _, _) in cases:
        if f"{peer} {series} {n}" in figures:
            ratio = figures[f"ours {series} {n}"] / figures[f"{peer} {series} {n}"]
            label = f"circuits of {n} qubits, {text}, relative to {peer}, one thread"
            report.at_least(f"{peer}_{n}", ratio, label)
    for n in (n for n, *_ in SWEEPS if f"aer bindings {n}" in figures):
        ratio = figures[f"bindings {n}"] / figures[f"aer bindings {n}"]
        report.at_least(
            f"aer_bindings_{n}", ratio, f"bindings of {n} qubits, relative to Aer, one thread"
        )
    for series, (_, text) in SERIES.items():
        for name in ("client", "service"):
            label = f"{name}'s CPU a circuit, 4 qubits, {text}, us"
            report.at_most(f"{name}_us", figures[f"{name} {series} 4"], label)
    label = "worker's CPU a circuit beside its run, us"
    other_us = figures["worker angles 4"] - figures["run angles 4"]
    if other_us > 0.0:
        report.at_most("worker_us", other_us, label)
    else:  # the workers waited for a core during their runs
        report.not_measured("worker_us", label, "the runs' wall time exceeds the CPU time")
    report.at_most("dict_us", figures["dict"], "a dict of 16 outcomes, us")
