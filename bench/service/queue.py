"""Cost of a long queue: status, memory, another client's submits, and a restart.

10,000 different 4-qubit circuits wait behind one long task; `status` and `queue` are called through
the client, and the command line is timed as a user types it. Then another client submits tasks one
by one while the queue is processed. With --million, 10^6 tasks wait; the service is killed and
started again, and its memory and the time of the replay are measured.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from functools import partial
from pathlib import Path

import psutil
from qiskit import QuantumCircuit

from bench.circuits import built, four_qubit_circuit
from bench.harness import Option, Report, repeated_s, timed, timed_s
from bench.harness.environments import simenv, started, wait_until
from simenv import config
from simenv.client import environments
from simenv.client.circuits import load
from simenv.client.client import Client, connect

NAME = "bench-queue"
QUEUED = 10_000
MILLION, BATCH = 1_000_000, 5_000
POOL = {"name": "main", "min": 1, "max": 1}
SETTINGS = {"name": NAME, "pools": [POOL], "slots": 1}
OPTIONS = (Option("--million", action="store_true", help="10^6 tasks; some minutes"),)


def run(options: Namespace) -> Report:
    report = Report("queue", f"queue: {QUEUED} tasks waiting, 1 worker")
    with started(SETTINGS) as client:
        _ten_thousand(client, report)
    if options.million:
        with started(SETTINGS) as client:
            _million(client, report)
    return report


def _ten_thousand(client: Client, report: Report) -> None:
    circuits = [four_qubit_circuit(seed) for seed in range(QUEUED)]
    blocker = client.submit(_long(23, 40), shots=10)
    empty_mb = client.status().rss_bytes / 1e6
    took_s, tasks = timed(lambda: client.submit_many(circuits, shots=1024, seed=1))
    print(f"accepted {QUEUED} in {took_s:.2f} s, client's packing included")
    full_mb = client.status().rss_bytes / 1e6
    assert client.status().queued >= QUEUED - 1, "the queue has run empty meanwhile"
    for verb, call in (("status", client.status), ("queue", client.queue)):
        label = f"{verb} through the client, slowest of 20"
        report.at_most("view_ms", 1e3 * max(repeated_s(call, 20)), label)
    for verb in ("status", "queue"):
        label = f"`simenv {verb}` as typed, median of 5, the process's start included"
        seconds = repeated_s(lambda verb=verb: simenv([verb, "--name", NAME]), 5)
        report.at_most("typed_ms", 1e3 * statistics.median(seconds), label)
    report.at_most("memory_mb", full_mb - empty_mb, "service memory above empty, MB")
    accepts = _accepts_of_second_client(client)
    blocker.cancel()
    running = _accepts_of_second_client(client)
    for label, result in (("waiting", accepts), ("being worked off", running)):
        p50 = statistics.median(result)
        report.at_most("accept_p50_ms", p50, f"another client's accept, queue {label}, p50 ms")
        report.at_most("accept_max_ms", max(result), f"the same, queue {label}, max, ms")
    for task in tasks:
        task.result(timeout_s=120)
    report.at_most("loop_lag_p99_ms", client.status().loop_lag_p99_ms, "loop lag p99, ms")


def _million(client: Client, report: Report) -> None:
    client.submit(_long(24, 400), shots=10)
    circuits = [four_qubit_circuit(seed) for seed in range(BATCH)]
    batches = (
        partial(client.submit_many, circuits, shots=1024, seed=seed)
        for seed in range(MILLION // BATCH)
    )
    took = sum(map(timed_s, batches))
    print(f"\n{MILLION} tasks accepted in {took:.1f} s ({MILLION / took:.0f}/s, packing included)")
    status = client.status()
    service = psutil.Process(status.pid)
    report.at_most("million_rss_mb", status.rss_bytes / 1e6, "service RSS, MB")
    slowest_ms = 1e3 * max(repeated_s(client.queue, 20))
    report.at_most("view_ms", slowest_ms, "queue of a million, slowest of 20")
    service.kill()
    wait_until(lambda: not service.is_running() or service.status() == psutil.STATUS_ZOMBIE, 60.0)
    environments.up(SETTINGS)
    with connect(NAME) as second_client:
        result = second_client.status()
        assert result.queued + result.running == MILLION + 1, f"{result.queued} queued"
        log = Path(config.home_root() / NAME / "service.log").read_text()
        replays = [line for line in log.splitlines() if "replayed:" in line]
        seconds = float(replays[-1].rsplit(",", 1)[1].strip().removesuffix(" s"))
        report.at_most("million_replay_s", seconds, "replay of the queue at the restart, s")
        report.at_most("million_rss_mb", result.rss_bytes / 1e6, "service RSS after it, MB")


def _long(num_qubits: int, layers: int) -> QuantumCircuit:
    turns, pairs = range(num_qubits), range(num_qubits - 1)
    gates = []
    for layer in range(layers):
        gates += [("ry", (qubit,), (0.1 + layer + qubit,)) for qubit in turns]
        gates += [("cx", (qubit, qubit + 1), ()) for qubit in pairs]
    circuit = built(num_qubits, gates, 1)
    circuit.measure(0, 0)
    return circuit


def _accepts_of_second_client(client: Client) -> list[float]:
    """Return the milliseconds of 200 accepts by a second client."""
    program = load(four_qubit_circuit(1)).program
    with connect(client.name) as other:
        submits = (partial(other.submit, program, shots=1024, seed=k) for k in range(200))
        return [1e3 * timed_s(each) for each in submits]
