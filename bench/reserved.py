"""What a reserved worker is worth: small circuits one after the other while somebody floods.

An environment of two workers; one client keeps thousands of small circuits waiting. Another one
submits small circuits, each after the last one's counts, with a reservation of one worker, and
without any; the time from acceptance to begin is as service and worker measured it. Its p99 is held
against the bound that was promised.

    python bench/reserved.py [--circuits 300] [--without 20]
"""

from __future__ import annotations

import argparse
import sys
import threading

import numpy as np
from latency import circuit
from report import Report

import simenv
from simenv.cli.measure import circuits as shapes
from simenv.client.client import Client

SHOTS = 1_024
WAITING = 3_000  # tasks of the flood that wait, at least
BATCH = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--circuits", type=int, default=300)
    parser.add_argument("--without", type=int, default=20, help="circuits without a reservation")
    told = parser.parse_args()
    report = Report("reserved", "reserved: acceptance to begin beside a flood, 2 workers")
    with simenv.local(workers=2) as env:
        env.run(circuit(0), shots=SHOTS)
        stop = threading.Event()
        flood = threading.Thread(target=_flood, args=(env, stop))
        flood.start()
        try:
            while env.status().queued < WAITING // 2:
                stop.wait(0.05)
            plain = [_wait_s(env, seed, None) for seed in range(told.without)]
            with env.reserve("main", workers=1, count=told.circuits, timeout=30.0) as mine:
                bound_s = mine.info().bound_ns / 1e9
                seeds = range(1_000, 1_000 + told.circuits)
                ours = [_wait_s(env, seed, mine.id) for seed in seeds]
        finally:
            stop.set()
            flood.join()
            env.cancel(info.id for info in env.queue(limit=10_000)[1])
    for name, waits in (("without", plain), ("reserved", ours)):
        p50, p99 = (np.percentile(waits, q) * 1e3 for q in (50, 99))
        print(f"{name:9} p50 {p50:9.2f} ms   p99 {p99:9.2f} ms   most {max(waits) * 1e3:9.2f} ms")
    print(f"promised  {bound_s * 1e3:.0f} ms\n")
    share = float(np.percentile(ours, 99)) / bound_s
    report.verdict("p99_of_bound", share, "p99 of acceptance to begin, of the promised bound")
    return report.close()


def _flood(env: Client, stop: threading.Event) -> None:
    work = [shapes.layered(qubits, 30, BATCH, qubits) for qubits in (4, 6, 8, 10)]
    turn = 0
    while not stop.is_set():
        if env.status().queued < WAITING:
            env.submit_many(work[turn % len(work)], shots=SHOTS, seed=turn)
            turn += 1
        else:
            stop.wait(0.02)


def _wait_s(env: Client, seed: int, reservation: int | None) -> float:
    """From its acceptance to its begin."""
    task = env.submit(circuit(seed), shots=SHOTS, seed=seed, reservation=reservation)
    result = task.result()
    return float(result.timing.queued_s + result.timing.sent_s)


if __name__ == "__main__":
    sys.exit(main())
