"""Start time of workers through each launcher, by stage.

The environment has a pool of one worker, which does not run yet. The clock runs from the submit of
a small circuit to its counts, so it includes the service's decision, the spawn, Python's start and
imports, MPI, the kernels (warm), the join and the run. Times are medians of successive starts with
the launcher itself up. Then two more figures: the time from `up` until 20 workers are ready, and
the CPU share of 8 idle workers of 2 ranks.

    python -m bench run worker_start [--rounds 5]
        [--launcher local --launcher mpirun --launcher prte]
"""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from argparse import Namespace
from pathlib import Path

import psutil

import simenv
from bench import small_circuits as shapes
from bench.harness import Option, Report, Times, rounds
from bench.harness.environments import cpu_s, wait_until
from simenv.client.client import Client
from simenv.errors import SimenvError
from simenv.model import PoolSpec, WorkerInfo

LAUNCHERS = ("local", "mpirun", "prte")
IDLE_S = 1.0  # idle seconds after which the worker ends; the next round starts another
STAGES = ("decision", "spawn", "imports", "mpi", "kernels", "join", "run")
LOG_PATTERNS = {"mpi": r"MPI ready in ([\d.]+)", "kernels": r"kernels ready in ([\d.]+)"}
AGE = r"([\d.]+) s after the start"
WORKERS = 20
IDLE_WORKERS, IDLE_RANKS, WATCH_S = 8, 2, 20.0
SETTLE_S = 5.0  # time for the work that follows a worker's start
RANK_BYTES = 2**28  # memory of each idle rank
READY_S = 120.0
OPTIONS = (rounds(5, quick=2), Option("--launcher", action="append", choices=LAUNCHERS))


def run(options: Namespace) -> Report:
    report = Report("worker_start", "launch: from the submit to an empty pool to the counts, s")
    print(f"{'':16s}{'total':>9s}" + "".join(f"{stage:>10s}" for stage in STAGES))
    totals: dict[str, float] = {}
    for launcher in options.launcher or LAUNCHERS:
        for ranks in (1, 2):
            if launcher == "local" and ranks > 1:
                continue
            name = f"{launcher} {ranks} rank{'s' * (ranks > 1)}"
            try:
                totals[name] = _starts(launcher, ranks, options.rounds, name)
            except SimenvError as error:
                print(f"{name:16s} not here: {error}")
    print()
    if "prte 2 ranks" in totals:
        label = "2-rank worker through PRTE, start to first result, s"
        report.at_most("first_result_s", totals["prte 2 ranks"], label)
        report.at_most("many_s", _start_many(), f"{WORKERS} workers up through PRTE, s")
        label = f"{IDLE_WORKERS} idle workers, {IDLE_WORKERS * IDLE_RANKS} ranks, of a core, %"
        report.at_most("idle_percent", _idle(), label)
    return report


def _starts(launcher: str, ranks: int, rounds: int, name: str) -> float:
    """Return the median total in seconds; print it and the medians of the stages."""
    pool = PoolSpec("main", "statevector", 0, 1, IDLE_S, ranks)
    circuits = shapes.layered(4, 30, rounds + 1, 1)
    totals: list[float] = []
    stages: Times = {stage: [] for stage in STAGES}
    with simenv.local(pools=(pool,), launcher={"use": launcher}) as client:
        for number, circuit in enumerate(circuits):
            last_event = max((event.seq for event in client.events()), default=0)
            begin_s, begin = time.time(), time.perf_counter()
            result = client.run(circuit, shots=100, seed=number)
            total = time.perf_counter() - begin
            assert sum(result.counts.values()) == 100
            if number:  # the first start may also start a DVM
                totals.append(total)
                (worker,) = client.workers()
                for stage, seconds in _stages(client, last_event, begin_s, total, worker).items():
                    stages[stage].append(seconds)
            wait_until(lambda: not client.workers(), READY_S)
    middle = statistics.median(totals)
    parts = "".join(
        f"{statistics.median(each):10.3f}" if each else f"{'-':>10}" for each in stages.values()
    )
    print(f"{name:16s}{middle:9.3f}{parts}")
    return middle


def _stages(
    client: Client, last_event: int, begin_s: float, total: float, worker: WorkerInfo
) -> dict[str, float]:
    """Return the seconds of each stage of one start, from service events and the worker's log."""
    times = {event.kind: event.time_s for event in client.events(since=last_event)}
    text = (Path(client.service).with_name("logs") / f"{worker.name}.log").read_text()
    logged = {stage: _last(pattern, text) for stage, pattern in LOG_PATTERNS.items()}
    age = _last(AGE, text)  # age of the worker's process when the kernels were ready
    process_start_s = psutil.Process(worker.pid).create_time()
    return {
        "decision": times["worker.started"] - begin_s,
        "spawn": process_start_s - times["worker.started"],
        "imports": age - sum(logged.values()),
        **logged,
        "join": times["worker.ready"] - process_start_s - age,
        "run": begin_s + total - times["worker.ready"],
    }


def _last(pattern: str, text: str) -> float:
    """Return the last figure that matches in a log, which several starts extend; 0.0 if none
    does."""
    entry = re.findall(pattern, text)
    return float(entry[-1]) if entry else 0.0


def _start_many() -> float:
    """Return the seconds from `up` until all workers are ready."""
    pool = PoolSpec("main", "statevector", WORKERS, WORKERS)
    begin = time.perf_counter()
    with simenv.local(pools=(pool,), launcher={"use": "prte"}) as client:
        wait_until(lambda: client.pools()["main"].workers == WORKERS, READY_S)
        return time.perf_counter() - begin


def _idle() -> float:
    """Return the CPU time of all idle ranks together, in percent of one core."""
    size = {"ranks": IDLE_RANKS, "memory_bytes": RANK_BYTES}
    pool = PoolSpec("main", "statevector", IDLE_WORKERS, IDLE_WORKERS, **size)
    with simenv.local(slots=IDLE_RANKS, pools=(pool,), launcher={"use": "prte"}) as client:
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
