"""Rates of small circuits, and long queues: what a task costs client, service and worker."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from qiskit import QuantumCircuit

import simenv
from bench import circuits as shapes, harness
from bench.harness.environments import (
    cpu_s,
    restart,
    service_process,
    simenv as command,
    started,
    threads_cpu_s,
)  # fmt: skip
from bench.peers.libraries import Aer, QulacsFromGates, simulator
from bench.peers.process import IsolatedPeer
from simenv import config
from simenv.client.circuits import load
from simenv.client.client import Client, connect
from testbed.postgres_server import PostgresServer

SHOTS = 1_024
KINDS = ((4, 30, 20_000), (8, 60, 10_000), (12, 92, 3_000))  # qubits, operations, circuits
SERIES = {  # the gates of its circuits, and how these are new
    "angles": (shapes.gates, "new angles"),
    "structures": (shapes.scattered_gates, "each of a structure of its own"),
}
SWEEPS = ((4, 12, 25, 40_000), (8, 32, 68, 16_000))  # qubits, parameters, operations, bindings
PEER_CIRCUITS, PEER_BINDINGS = 40, 200
AER_ALONE_MS = 2.0  # Aer's time for one circuit of 4 qubits on the machine of the loop's goal
ALONE, LOOPS = 1_500, 60  # circuits submitted one by one; loops of 128 bindings
QUEUED, MILLION, BATCH = 10_000, 1_000_000, 5_000
Key = tuple[str, str]  # of a figure, and its case
ONE_WORKER = {"name": "main", "min": 1, "max": 1}


def _results(client: Client, work: Any, seed: int) -> list[Any]:
    return [task.result() for task in client.submit_many(work, shots=SHOTS, seed=seed)]


@harness.benchmark(rounds=(5, 1), seed=harness.SEED)
def throughput(report: harness.Report, options: Namespace) -> None:
    """Throughput of small circuits per second, from the user's objects to counts.

    The whole path with two workers, accepts on disk. Every circuit is new: in one series by its
    angles, in the other by its structure, too. Only QuantumCircuit objects and arrays of angles are
    made before the clock starts, which stops when every dict of counts has been read; for bindings,
    results stay packed. Aer runs in this process and qulacs in one of its own in the same rounds,
    one thread each, after ours, since their threads spin.
    """
    seeds = itertools.count(options.seed)
    cases = list(itertools.product(SERIES, KINDS))
    found: dict[Key, list[float]] = defaultdict(list)
    with simenv.local(workers=2, durability="accepted") as client:
        for series, (n, operations, _) in cases:  # warm-up
            _circuits(client, series, (n, operations, 300), next(seeds))
        qulacs = IsolatedPeer("qulacs", QulacsFromGates, threads=1)
        for _ in range(options.rounds):
            figures: dict[Key, float] = {}
            for series, shape in cases:
                figures |= _circuits(client, series, shape, next(seeds))
            for call in (_alone, _sweeps, _loop, _dicts):
                figures |= call(client, next(seeds))
            for series, shape in cases:
                theirs = _peers(qulacs, series, *shape[:2], next(seeds))
                for (key, own, case), value in theirs.items():
                    figures[key, case] = figures[own, case] / value
            for name, value in figures.items():
                found[name].append(value)
        qulacs.close()
    for (key, case), value in harness.medians(found).items():
        if key == "worker_us" and value <= 0.0:  # they waited for a core during their runs
            report.not_measured(key, "the runs' wall time exceeds the CPU time", case)
        else:
            judge = report.at_most if key.endswith(("_us", "_ms")) else report.at_least
            judge(key, value, case)


def _circuits(
    client: Client, series: str, shape: tuple[int, int, int], seed: int
) -> dict[Key, float]:
    """Measure new circuits, all in one call, to dicts of counts; of 4 qubits also the CPU us of
    each, of the worker beside its run."""
    n, operations, number = shape
    gates_of, text = SERIES[series]
    circuits = shapes.layered(n, operations, number, seed, gates_of)
    processes = {
        "client": [psutil.Process()], "service": [service_process(client)],
        "worker": [psutil.Process(worker.pid) for worker in client.workers()],
    }  # fmt: skip
    before = {name: cpu_s(*each) for name, each in processes.items()}
    call = lambda: [(x, x.counts) for x in _results(client, circuits, seed)]  # noqa: E731
    seconds, results = harness.timed(call)
    us = {name: 1e6 * (cpu_s(*each) - before[name]) / number for name, each in processes.items()}
    assert all(sum(counts.values()) == SHOTS for _, counts in results)
    us["worker"] -= 1e6 * sum(result.timing.run_s for result, _ in results) / number
    figures = {(f"circuits_{n}", text): number / seconds}
    for name in processes if n == 4 else ():
        if name != "worker" or series == "angles":
            figures[f"{name}_us", text] = us[name]
    return figures


def _peers(
    qulacs: IsolatedPeer, series: str, n: int, operations: int, seed: int
) -> dict[tuple[str, str, str], float]:
    """Return what peers do a second, by a figure, the figure of ours that is divided by it, and
    the case; of the loop Aer's time."""
    (gates_of, text), number = SERIES[series], PEER_CIRCUITS
    rates, ours = {}, f"circuits_{n}"
    if harness.installed("qiskit_aer"):  # all circuits in one call: its fastest way
        circuits = shapes.layered(n, operations, number, seed, gates_of)
        result = lambda: simulator().run(circuits, shots=SHOTS).result()  # noqa: E731
        call = lambda: [each.get_counts(k) for each in [result()] for k in range(number)]  # noqa: E731
        rates[f"aer_{n}", ours, text] = number / harness.timed_s(call)
        for width, parameters, ops, _ in SWEEPS if (series, n) == ("angles", 4) else ():
            circuit = shapes.ansatz_circuit(width, parameters, ops)
            values = np.random.default_rng(seed).uniform(0, 6, (parameters, PEER_BINDINGS))
            binds = [dict(zip(circuit.parameters, values.tolist(), strict=True))]
            binder = simulator(runtime_parameter_bind_enable=True)
            run = partial(binder.run, circuit, parameter_binds=binds, shots=SHOTS)
            seconds = harness.timed_s(lambda run=run: run().result())
            rates[f"aer_bindings_{width}", f"bindings_{width}", ""] = PEER_BINDINGS / seconds
        if (series, n) == ("angles", 4):
            times = [harness.timed_s(partial(Aer(1).run, circuit)) for circuit in circuits]
            slower = 1e3 * statistics.median(times) / AER_ALONE_MS
            rates["loop_scaled_ms", "loop_128_ms", ""] = slower
    work = [gates_of(n, operations, seed * 10**6 + k) for k in range(number)]
    if not qulacs.problem and qulacs.prepare(n, work) and (times := qulacs.times(number, 600.0)):
        rates[f"qulacs_{n}", ours, text] = number / sum(times)
    return rates


def _alone(client: Client, seed: int) -> dict[Key, float]:
    """Measure one message per circuit, sent without waiting for results."""
    circuits = shapes.layered(4, 30, ALONE, seed)

    def call() -> list[dict[str, int]]:
        tasks = [client.post(each, shots=SHOTS, seed=seed + k) for k, each in enumerate(circuits)]
        return [task.result().counts for task in tasks]

    return {("alone", ""): ALONE / harness.timed_s(call)}


def _sweeps(client: Client, seed: int) -> dict[Key, float]:
    figures = {}
    for n, parameters, operations, number in SWEEPS:
        values = np.random.default_rng(seed).uniform(0, 6, (number, parameters))
        work = shapes.ansatz_circuit(n, parameters, operations), values
        seconds, results = harness.timed(partial(_results, client, work, seed))
        assert all(sum(result.counts.values()) == SHOTS for result in results)
        figures[f"bindings_{n}", ""] = number / seconds
    return figures


def _loop(client: Client, seed: int) -> dict[Key, float]:
    """Measure an optimiser's loop: submit 128 bindings, wait, repeat."""
    circuit, rng = shapes.ansatz_circuit(4, 12, 25), np.random.default_rng(seed)
    works = [(circuit, rng.uniform(0, 6, (128, 12))) for _ in range(LOOPS)]
    times = [harness.timed_s(partial(_results, client, work, seed)) for work in works]
    return {("loop_128_ms", ""): 1e3 * statistics.median(times)}


def _dicts(client: Client, seed: int) -> dict[Key, float]:
    """Measure the microseconds to convert a packed result of 16 outcomes to a dict."""
    values = np.random.default_rng(seed).uniform(0, 6, (4_000, 12))
    results = _results(client, (shapes.ansatz_circuit(4, 12, 25), values), seed)
    seconds, sizes = harness.timed(lambda: [len(result.counts) for result in results])
    return {("dict_us", ""): seconds / len(sizes) * 1e6 * 16 / statistics.mean(sizes)}


# --- the cost of metrics --------------------------------------------------------------------------

WITHOUT = """
import sys
if "simenv.service" in sys.orig_argv:
    from simenv.service.accounting.usage import UsageLedger
    from simenv.service.durations import DurationBuckets
    from simenv.service.telemetry.counters import TaskCounters
    from simenv.service.telemetry.recorder import TelemetryRecorder
    DurationBuckets.add = DurationBuckets.add_all = lambda *_: None
    TaskCounters.durations = UsageLedger._count = lambda *_: None
    TelemetryRecorder.is_due = False
"""


@harness.benchmark(rounds=(40, 4), starts=(4, 1), circuits=(8_000, 1_000))
def metrics_cost(report: harness.Report, options: Namespace) -> None:
    """Throughput of a service that counts and is scraped, relative to one that does neither.

    Two environments are up, of which one gets work at a time. A client asks the first for all
    metrics every second; in the second, `sitecustomize` replaces the counters by functions that do
    nothing. Shares are medians of paired ratios of rounds. Both are started several times, since
    two that are alike differ by a few percent for as long as they live.
    """
    rates: harness.Times = defaultdict(list)
    service_us: harness.Times = defaultdict(list)
    for _ in range(options.starts):
        with ExitStack() as stack:
            clients = {"with": stack.enter_context(simenv.local(workers=2))}
            clients["without"] = stack.enter_context(_without())
            stack.enter_context(harness.probed({"scraper": clients["with"].metrics}, 1.0))
            for seed in range(options.rounds + 1):
                circuits = shapes.layered(4, 30, options.circuits, seed)
                for name in ("with", "without") if seed % 2 else ("without", "with"):
                    service = service_process(clients[name])
                    before = threads_cpu_s(service)
                    seconds = harness.timed_s(partial(_results, clients[name], circuits, seed))
                    if seed:  # the first round warms up
                        rates[name].append(options.circuits / seconds)
                        spent_s = threads_cpu_s(service) - before
                        service_us[name].append(spent_s / options.circuits * 1e6)
            assert sum(clients["with"].metrics().service.loop_pass.counts)
            assert not sum(clients["without"].metrics().service.loop_pass.counts)
    for name, each in harness.medians(rates).items():
        us = statistics.median(service_us[name])
        print(f"{name:8} {each:8.0f} a second, service {us:.2f} us")
    report.at_least("share", float(np.median(np.divide(rates["with"], rates["without"]))))
    spared = np.divide(service_us["without"], service_us["with"])
    report.at_least("service_share", float(np.median(spared)))


@contextmanager
def _without() -> Iterator[Client]:
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        Path(folder, "sitecustomize.py").write_text(WITHOUT)
        program = Path(folder, "python")
        program.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
        program.chmod(0o700)
        os.environ["SIMENV_PYTHON"] = str(program)
        try:
            with simenv.local(workers=2) as client:
                yield client
        finally:
            del os.environ["SIMENV_PYTHON"]


# --- journal and queue ----------------------------------------------------------------------------


@harness.benchmark(rounds=(5, 2), tasks=(10_000, 2_000), singles=(300, 50))
def postgres_journal(report: harness.Report, options: Namespace) -> None:
    """The journal in PostgreSQL, compared with the file of SQLite: accepted tasks, submits.

    Two environments with one worker each; both force commits to disk. Batches of circuits in one
    `submit_many`, which are cancelled then, and single submits, one after the other.
    """
    circuits = [shapes.four_qubit_circuit(seed) for seed in range(options.tasks)]
    singles_s: harness.Times = defaultdict(list)

    def rate(name: str, turn: int) -> float:
        client = clients[name]
        taken_s, tasks = harness.timed(lambda: client.submit_many(circuits, shots=1024, seed=1))
        client.cancel([task.id for task in tasks])
        single = harness.repeated_s(lambda: client.submit(circuits[0], shots=10), options.singles)
        singles_s[name] += [statistics.median(single)] if turn >= 0 else []
        return len(tasks) / taken_s

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        quiet = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        server = PostgresServer(folder, quiet, safe=True)
        server.start()
        stack.callback(server.stop)
        clients = {
            name: stack.enter_context(started({"name": name, "pools": [ONE_WORKER], **settings}))
            for name, settings in (("postgresql", {"journal": server.url}), ("sqlite", {}))
        }
        rates = harness.medians(
            harness.in_rounds({name: partial(rate, name) for name in clients}, options.rounds)
        )
    single = harness.medians(singles_s)
    print(f"SQLite: {rates['sqlite']:,.0f} tasks/s, a submit {1e3 * single['sqlite']:.2f} ms")
    report.at_least("accepted_per_s", rates["postgresql"])
    report.seconds("submit_ms", single["postgresql"])


@harness.benchmark(million=False)
def queue(report: harness.Report, options: Namespace) -> None:
    """Cost of a long queue: status, memory, another client's submits, and a restart.

    10,000 different 4-qubit circuits wait behind one long task; `status` and `queue` are called
    through the client and as typed. Then another client submits tasks one by one while the queue is
    processed. With --million, 10^6 tasks wait; the service is killed and started again.
    """
    settings = {"name": "bench-queue", "pools": [ONE_WORKER], "slots": 1}
    with started(settings) as client:
        _ten_thousand(client, report)
    if options.million:
        with started(settings) as client:
            _million(client, report, settings)


def _ten_thousand(client: Client, report: harness.Report) -> None:
    circuits = [shapes.four_qubit_circuit(seed) for seed in range(QUEUED)]
    blocker = client.submit(_long(23, 120), shots=10)
    empty_mb = client.status().rss_bytes / 1e6
    tasks = client.submit_many(circuits, shots=1024, seed=1)
    full_mb = client.status().rss_bytes / 1e6
    assert client.status().queued >= QUEUED - 1, "the queue has run empty meanwhile"
    for verb, call in (("status", client.status), ("queue", client.queue)):
        report.seconds("view_ms", max(harness.repeated_s(call, 20)), f"{verb}, slowest of 20")
        typed = harness.repeated_s(partial(command, [verb, "--name", client.name]), 5)
        report.seconds("typed_ms", typed, verb)
    report.at_most("memory_mb", full_mb - empty_mb)
    program = load(shapes.four_qubit_circuit(1)).program
    for case in ("waiting", "being worked off"):
        with connect(client.name) as other:
            submits = (partial(other.submit, program, shots=1024, seed=k) for k in range(200))
            times = [harness.timed_s(each) for each in submits]
        report.seconds("accept_p50_ms", times, f"queue {case}")
        report.seconds("accept_max_ms", max(times), f"queue {case}")
        blocker.cancel()
    for task in tasks:
        task.result(timeout_s=120)
    report.at_most("loop_lag_p99_ms", client.status().loop_lag_p99_ms)


def _million(client: Client, report: harness.Report, settings: dict[str, Any]) -> None:
    client.submit(_long(24, 400), shots=10)
    circuits = [shapes.four_qubit_circuit(seed) for seed in range(BATCH)]
    for seed in range(MILLION // BATCH):
        client.submit_many(circuits, shots=1024, seed=seed)
    report.at_most("million_rss_mb", client.status().rss_bytes / 1e6, "queued")
    report.seconds("view_ms", max(harness.repeated_s(client.queue, 20)), "a million, slowest of 20")
    restart(client, settings)
    with connect(client.name) as second:
        result = second.status()
        assert result.queued + result.running == MILLION + 1, f"{result.queued} queued"
        log = Path(config.home_root() / client.name / "service.log").read_text()
        replay = [line for line in log.splitlines() if "replayed:" in line][-1]
        seconds = float(replay.rsplit(",", 1)[1].strip().removesuffix(" s"))
        report.seconds("million_replay_s", seconds)
        report.at_most("million_rss_mb", result.rss_bytes / 1e6, "after a restart")


def _long(num_qubits: int, layers: int) -> QuantumCircuit:
    circuit = shapes.built(num_qubits, shapes.brickwork(num_qubits, layers, 1), 1)
    circuit.measure(0, 0)
    return circuit
