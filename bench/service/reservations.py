"""Queueing time with a reservation of one worker while another client floods the queue.

The environment has two workers; one client keeps thousands of small circuits waiting. Another
client submits small circuits, each after the counts of the last one, with a reservation of one
worker and without any. Service and worker measure the time from acceptance to begin. Its 99th
percentile is compared with the promised bound.

    python -m bench run reservations [--circuits 300] [--without 20]
"""

from __future__ import annotations

import threading
from argparse import Namespace

import numpy as np

import simenv
from bench import small_circuits as shapes
from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report
from bench.harness.environments import waited_s
from simenv.client.client import Client

SHOTS = 1_024
WAITING = 3_000  # least number of waiting tasks of the flood
BATCH = 1_000
OPTIONS = (
    Option("--circuits", type=int, default=300, quick=50),
    Option("--without", type=int, default=20, help="circuits without a reservation", quick=5),
)


def run(options: Namespace) -> Report:
    report = Report("reservations", "reserved: acceptance to begin beside a flood, 2 workers")
    with simenv.local(workers=2) as client:
        client.run(four_qubit_circuit(0), shots=SHOTS)
        stop = threading.Event()
        flood = threading.Thread(target=_flood, args=(client, stop))
        flood.start()
        try:
            while client.status().queued < WAITING // 2:
                stop.wait(0.05)
            plain = [_wait_s(client, seed, None) for seed in range(options.without)]
            with client.reserve("main", workers=1, count=options.circuits, timeout_s=30.0) as held:
                bound_s = held.info().bound_ns / 1e9
                seeds = range(1_000, 1_000 + options.circuits)
                reserved = [_wait_s(client, seed, held.id) for seed in seeds]
        finally:
            stop.set()
            flood.join()
            client.cancel(info.id for info in client.queue(limit=10_000)[1])
    for name, waits in (("without", plain), ("reserved", reserved)):
        p50, p99 = np.percentile(waits, (50, 99)) * 1e3
        print(f"{name:9} p50 {p50:9.2f} ms   p99 {p99:9.2f} ms   most {max(waits) * 1e3:9.2f} ms")
    print(f"promised  {bound_s * 1e3:.0f} ms\n")
    share = float(np.percentile(reserved, 99)) / bound_s
    report.at_most("p99_of_bound", share, "p99 of acceptance to begin, of the promised bound")
    return report


def _flood(client: Client, stop: threading.Event) -> None:
    work = [shapes.layered(qubits, 30, BATCH, qubits) for qubits in (4, 6, 8, 10)]
    number = 0
    while not stop.is_set():
        if client.status().queued < WAITING:
            client.submit_many(work[number % len(work)], shots=SHOTS, seed=number)
            number += 1
        else:
            stop.wait(0.02)


def _wait_s(client: Client, seed: int, reservation: int | None) -> float:
    """Return the seconds from the acceptance of one circuit to its begin."""
    circuit = four_qubit_circuit(seed)
    return waited_s(client.run(circuit, shots=SHOTS, seed=seed, reservation=reservation))
