"""Accuracy of the forecasts of waiting times.

A trace of mixed work arrives at random times: floods of small circuits (4 to 12 qubits), circuits
on 20 qubits, and sweeps of one circuit, in three priorities. Right after each acceptance the
service forecasts the waiting time of some of its tasks; when all tasks have ended, the forecasts
are compared with the times from acceptance to begin. A forecast is right within a factor of two, or
where forecast and waiting time are both below 5 ms. Tasks that began before their forecast was
queried are left out. The environment has run a few circuits of each kind before.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import simenv
from bench import small_circuits as shapes
from bench.harness import Option, Report
from bench.harness.environments import waited_s
from simenv.client.client import Client
from simenv.client.tasks.task import Task

SHOTS = 1_024
AT_ONCE_S = 0.005
QUERIED = 6  # tasks of each submission whose forecast is queried
KINDS = ("flood", "wide", "sweep")
SHARES = (0.45, 0.35, 0.2)
GAP_S = 0.55  # mean seconds between two submissions
OPTIONS = (Option("--seed", default=2), Option("--seconds", default=40.0, quick=10.0))


class Forecast(NamedTuple):
    """One task and its forecast."""

    kind: str
    task: Task
    wait_s: float  # forecast seconds from acceptance to begin


def run(options: Namespace) -> Report:
    title = f"waits: forecasts of a mixed trace, 2 workers, seed {options.seed}"
    report = Report("wait_forecasts", title)
    warm, rng = (np.random.default_rng(options.seed + more) for more in (1_000, 0))
    with simenv.local(workers=2) as client:
        for number in range(3):
            for kind in KINDS:
                for task in client.submit_many(_work(kind, warm, number), shots=SHOTS, seed=number):
                    task.result()
        share = _accuracy(list(_play(client, rng, options.seconds)))
    report.at_least("share_percent", 100 * share, "forecasts within a factor of two, percent")
    return report


def _play(client: Client, rng: Any, seconds: float) -> Iterator[Forecast]:
    """Submit tasks according to the trace; yield the forecasts."""
    begin, when = time.monotonic(), 0.0
    built = 0
    while when < seconds:
        kind = KINDS[int(rng.choice(3, p=SHARES))]
        work, priority = _work(kind, rng, built), int(rng.choice((-1, 0, 1), p=(0.2, 0.6, 0.2)))
        built += 1
        when += rng.exponential(GAP_S)
        time.sleep(max(0.0, begin + when - time.monotonic()))
        tasks = client.submit_many(work, shots=SHOTS, seed=built, priority=priority)
        places = np.unique(np.linspace(0, len(tasks) - 1, QUERIED).astype(int))
        queried = [tasks[place] for place in places]
        for task, info in zip(queried, client.tasks(queried), strict=True):
            if info.wait_us >= 0:
                yield Forecast(kind, task, info.time_s + info.wait_us / 1e6)


def _work(kind: str, rng: Any, seed: int) -> Any:
    if kind == "flood":
        qubits, count = int(rng.choice((4, 6, 8, 10, 12))), int(rng.integers(50, 2_000))
        return shapes.layered(qubits, 30, max(20, count // (1 + (qubits > 8) * 4)), seed)
    if kind == "wide":
        return shapes.layered(20, int(rng.integers(60, 300)), int(rng.integers(1, 5)), seed)
    circuit = shapes.ansatz(8, 16, 60)
    return (circuit, rng.uniform(0, 6, (int(rng.integers(50, 1_500)), 16)))


def _accuracy(forecasts: list[Forecast]) -> float:
    """Return the share of right forecasts; print the numbers by kind."""
    right: dict[str, list[bool]] = defaultdict(list)
    for kind, task, forecast_s in forecasts:
        wait_s = waited_s(task.result())
        at_once = wait_s < AT_ONCE_S and forecast_s < AT_ONCE_S
        right[kind].append(at_once or (forecast_s > 0 and 0.5 <= wait_s / forecast_s <= 2))
    for kind, marks in right.items():
        print(f"{kind:6} {sum(marks):4} of {len(marks):4} right")
    return sum(map(sum, right.values())) / len(forecasts)
