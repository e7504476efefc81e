"""The journal in PostgreSQL, compared with the file of SQLite: accepted tasks per second, submits.

Two environments with one worker each, on this machine; the server forces commits to disk, as SQLite
does. Batches: 10,000 circuits of 4 qubits in one `submit_many`; they are
cancelled then. Single submits: the time of `submit` alone, one after the other,
the first results of which run meanwhile. All rounds are interleaved.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from argparse import Namespace
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from qiskit import QuantumCircuit

from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report, repeated_s, rounds, timed
from bench.harness.environments import started
from bench.testbed.postgres_server import PostgresServer
from simenv.client.client import Client

POOL = {"name": "main", "min": 1, "max": 1}
OPTIONS = (
    rounds(5, quick=2),
    Option("--tasks", default=10_000, help="in a batch", quick=2_000),
    Option("--singles", default=300, help="submits a round", quick=50),
)


def run(options: Namespace) -> Report:
    report = Report("postgres_journal", "journal: PostgreSQL and SQLite, 1 worker each")
    circuits = [four_qubit_circuit(seed) for seed in range(options.tasks)]
    rates, singles_s = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        server = PostgresServer(folder, _run, safe=True)
        server.start()
        stack.callback(server.stop)
        clients = {
            name: stack.enter_context(started({"name": name, "pools": [POOL], **settings}))
            for name, settings in (("postgresql", {"journal": server.url}), ("sqlite", {}))
        }
        for number in range(options.rounds + 1):  # the first one is not counted
            for name, client in clients.items():
                rate, taken_s = _measured(client, circuits, options.singles)
                if number:
                    rates[name].append(rate)
                    singles_s[name].append(taken_s)
    rate, reference = (statistics.median(rates[name]) for name in ("postgresql", "sqlite"))
    label = f"accepted tasks per second in a batch; SQLite: {reference:,.0f}"
    report.at_least("accepted_per_s", rate, label)
    single_ms, reference_ms = (
        1e3 * statistics.median(singles_s[name]) for name in ("postgresql", "sqlite")
    )
    label = f"one submit, p50, ms; SQLite: {reference_ms:.2f}"
    report.at_most("submit_ms", single_ms, label)
    return report


def _measured(client: Client, circuits: list[QuantumCircuit], singles: int) -> tuple[float, float]:
    taken_s, tasks = timed(lambda: client.submit_many(circuits, shots=1024, seed=1))
    client.cancel([task.id for task in tasks])
    circuit = circuits[0]
    return len(tasks) / taken_s, statistics.median(
        repeated_s(lambda: client.submit(circuit, shots=10), singles)
    )


def _run(words: list[str]) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
