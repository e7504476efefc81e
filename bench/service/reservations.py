"""Queueing time with a reservation of one worker while another client floods the queue.

The environment has two workers; one client keeps thousands of small circuits waiting. Another
client submits small circuits, each after the counts of the last one, with a reservation of one
worker and without any. Service and worker measure the time from acceptance to begin. Its 99th
percentile is compared with the promised bound.
"""

from __future__ import annotations

import itertools
import time
from argparse import Namespace
from collections.abc import Callable

import numpy as np

import simenv
from bench import small_circuits as shapes
from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report, probed
from bench.harness.environments import wait_until, waited_s
from simenv.client.client import Client

SHOTS = 1_024
WAITING = 3_000  # least number of waiting tasks of the flood
BATCH = 1_000
OPTIONS = (
    Option("--circuits", default=300, quick=50),
    Option("--without", default=20, help="circuits without a reservation", quick=5),
)


def run(options: Namespace) -> Report:
    report = Report("reservations", "reserved: acceptance to begin beside a flood, 2 workers")
    with simenv.local(workers=2) as client:
        client.run(four_qubit_circuit(0), shots=SHOTS)
        try:
            with probed({"flood": _flood(client)}, 0.0):
                wait_until(lambda: client.status().queued >= WAITING // 2, 60.0, 0.05, "a flood")
                plain = [_wait_s(client, seed, None) for seed in range(options.without)]
                with client.reserve(
                    "main", workers=1, count=options.circuits, timeout_s=30.0
                ) as held:
                    bound_s = held.info().bound_ns / 1e9
                    seeds = range(1_000, 1_000 + options.circuits)
                    reserved = [_wait_s(client, seed, held.id) for seed in seeds]
        finally:
            client.cancel(info.id for info in client.queue(limit=10_000)[1])
    for name, waits in (("without", plain), ("reserved", reserved)):
        p50, p99, most = np.percentile(waits, (50, 99, 100)) * 1e3
        print(f"{name:9} p50 {p50:9.2f} ms   p99 {p99:9.2f} ms   most {most:9.2f} ms")
    print(f"promised  {bound_s * 1e3:.0f} ms\n")
    share = float(np.percentile(reserved, 99)) / bound_s
    report.at_most("p99_of_bound", share, "p99 of acceptance to begin, of the promised bound")
    return report


def _flood(client: Client) -> Callable[[], None]:
    """Return a call that submits a batch of circuits, or waits while enough are queued."""
    widths = (4, 6, 8, 10)
    work = itertools.cycle([shapes.layered(qubits, 30, BATCH, qubits) for qubits in widths])
    seeds = itertools.count()

    def call() -> None:
        if client.status().queued < WAITING:
            client.submit_many(next(work), shots=SHOTS, seed=next(seeds))
        else:
            time.sleep(0.02)

    return call


def _wait_s(client: Client, seed: int, reservation: int | None) -> float:
    """Return the seconds from the acceptance of one circuit to its begin."""
    circuit = four_qubit_circuit(seed)
    return waited_s(client.run(circuit, shots=SHOTS, seed=seed, reservation=reservation))
