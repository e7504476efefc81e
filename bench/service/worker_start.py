"""Start time of workers of two ranks through PRTE.

The environment has a pool of one worker, which does not run yet. The clock runs from the submit of
a small circuit to its counts, so it includes the service's decision, the spawn, Python's start and
imports, MPI, the kernels (warm), the join and the run. The time is the median of successive starts
with the launcher itself up. Then two more figures: the time from `up` until 20 workers are ready,
and the CPU share of 8 idle workers of 2 ranks.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

import psutil

import simenv
from bench import circuits as shapes
from bench.harness import Report, timed
from bench.harness.environments import cpu_s, wait_until
from bench.harness.options import rounds
from simenv.client.client import Client
from simenv.errors import SimenvError
from simenv.model import PoolSpec

IDLE_S = 1.0  # idle seconds after which the worker ends; the next round starts another
WORKERS = 20
IDLE_WORKERS, IDLE_RANKS, WATCH_S = 8, 2, 20.0
SETTLE_S = 5.0  # time for the work that follows a worker's start
RANK_BYTES = 2**28  # memory of each idle rank
READY_S = 120.0
OPTIONS = (rounds(5, quick=2),)


def run(options: Namespace) -> Report:
    report = Report("worker_start", "launch: from the submit to an empty pool to the counts, s")
    try:
        first_s = _start_s(options.rounds)
    except SimenvError as error:
        print(f"no worker through PRTE: {error}")
        return report
    label = "2-rank worker through PRTE, start to first result, s"
    report.at_most("first_result_s", first_s, label)
    report.at_most("many_s", _start_many(), f"{WORKERS} workers up through PRTE, s")
    label = f"{IDLE_WORKERS} idle workers, {IDLE_WORKERS * IDLE_RANKS} ranks, of a core, %"
    report.at_most("idle_percent", _idle(), label)
    return report


def _environment(pool: PoolSpec, **options: int) -> Client:
    return simenv.local(pools=(pool,), launcher={"use": "prte"}, **options)


def _start_s(rounds: int) -> float:
    """Return the median seconds from the submit to the counts."""
    totals = []
    with _environment(PoolSpec("main", "statevector", 0, 1, IDLE_S, 2)) as client:
        for number, circuit in enumerate(shapes.layered(4, 30, rounds + 1, 1)):
            call = partial(client.run, circuit, shots=100, seed=number)
            seconds, result = timed(call)
            assert sum(result.counts.values()) == 100
            totals.append(seconds)
            wait_until(lambda: not client.workers(), READY_S)
    return statistics.median(totals[1:])  # the first start may also start a DVM


def _start_many() -> float:
    """Return the seconds from `up` until all workers are ready."""
    begin = time.perf_counter()
    with _environment(PoolSpec("main", "statevector", WORKERS, WORKERS)) as client:
        wait_until(lambda: client.pools()["main"].workers == WORKERS, READY_S)
        return time.perf_counter() - begin


def _idle() -> float:
    """Return the CPU time of all idle ranks together, in percent of one core."""
    size = {"ranks": IDLE_RANKS, "memory_bytes": RANK_BYTES}
    pool = PoolSpec("main", "statevector", IDLE_WORKERS, IDLE_WORKERS, **size)
    with _environment(pool, slots=IDLE_RANKS) as client:
        wait_until(lambda: client.pools()["main"].workers == IDLE_WORKERS, READY_S)
        ranks = _ranks(str(Path(client.service).with_name("worker.json")))
        assert len(ranks) == IDLE_WORKERS * IDLE_RANKS, f"{len(ranks)} ranks"
        client.run(shapes.layered(4, 30, 1, 1)[0], shots=100)
        time.sleep(SETTLE_S)
        before = cpu_s(*ranks)
        time.sleep(WATCH_S)
        return 100 * (cpu_s(*ranks) - before) / WATCH_S


def _ranks(service: str) -> list[psutil.Process]:
    """Return the processes of the ranks of all workers of this service."""
    results = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argv = process.cmdline()
            if "simenv.worker" in argv and service in argv and "-c" not in argv:
                results.append(process)
    return results
