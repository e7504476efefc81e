"""Waiting time of small circuits while a wide circuit runs on all slots of the node.

The environment has two workers on two slots. A 25-qubit circuit is submitted to the idle
environment and gets both slots; while it runs, pairs of 3-qubit circuits are submitted, half a
second apart. The figure is the longest time from the submission of a small circuit to its counts.
The wide circuit is first run alone on both slots, to measure its loss.
"""

from __future__ import annotations

import time
from argparse import Namespace

import simenv
from bench.circuits import measured
from bench.harness import Option, Report
from simenv.client.client import Client
from simenv.model import PoolSpec, TaskState

WIDE, LAYERS = 25, 30
APART_S = 0.5
SMALL = measured(3, [("h", (qubit,), ()) for qubit in range(3)])
OPTIONS = (Option("--pairs", default=8, quick=3),)


def run(options: Namespace) -> Report:
    pairs = options.pairs
    report = Report("mixed_widths", f"{WIDE} qubits on 2 slots, and small circuits beside it")
    with simenv.local(slots=2, pools=(PoolSpec("main", "statevector", 2, 2),)) as client:
        client.run(SMALL, shots=100)
        time.sleep(2 * APART_S)  # a recent short task keeps a slot free
        alone_s, _ = _wide_s(client, 0)
        concurrent_s, waited_s = _wide_s(client, pairs)
    print(f"wide circuit alone {alone_s:.1f} s, with {2 * pairs} small ones {concurrent_s:.1f} s")
    report.at_most("wait_s", waited_s, "small circuit, submit to counts, longest, s")
    return report


def _wide_s(client: Client, pairs: int) -> tuple[float, float]:
    """Return the seconds of the wide circuit, and of the slowest pair of small circuits
    meanwhile."""
    gates = []
    for layer in range(LAYERS):
        for qubit in range(WIDE):
            gates.append(("rx", (qubit,), (0.1 + 0.01 * layer,)))
            gates.append(("cz", (qubit, (qubit + 1) % WIDE), ()))
    longest_s = 0.0
    wide = client.submit(measured(WIDE, gates), shots=10)
    while wide.state is TaskState.QUEUED:
        time.sleep(0.01)
    for _ in range(pairs):
        if wide.state is not TaskState.RUNNING:
            raise SystemExit("the wide circuit ended before the small ones were through")
        begin = time.perf_counter()
        for task in [client.submit(SMALL, shots=100, seed=seed) for seed in range(2)]:
            task.result(timeout_s=60)
        longest_s = max(longest_s, time.perf_counter() - begin)
        time.sleep(APART_S)
    return wide.result(timeout_s=300).timing.run_s, longest_s
