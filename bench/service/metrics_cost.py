"""Throughput of a service that counts and is scraped, relative to one that does neither.

Two environments are up, of which one gets work at a time. The first one is as it is, and a client
asks it for all metrics every second, fifteen times as often as Prometheus does by default. In the
second one, `sitecustomize` replaces the counters by functions that do nothing, and nothing is
sampled. Both run the same new circuits in rounds that alternate; the share is the median of the
paired ratios of their rates. Both are started several times, since two environments that are alike
differ by a few percent for as long as they live. The service's processor time of each pair is
compared, too, since it depends less on what else the machine does.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

import simenv
from bench import small_circuits as shapes
from bench.harness import Option, Report, Times, rounds, timed_s
from bench.harness.environments import threads_cpu_s
from simenv.client.client import Client

SHOTS = 1_024
SCRAPE_S = 1.0
OPTIONS = (
    rounds(40, quick=4),
    Option("--starts", default=4, quick=1, help="of both environments; default: %(default)s"),
    Option("--circuits", default=8_000, quick=1_000, help="of a round; default: %(default)s"),
)
WITHOUT = """
import sys
if "simenv.service" in sys.orig_argv:
    from simenv.service.accounting.usage import UsageLedger
    from simenv.service.telemetry.counters import DurationBuckets, TaskCounters
    from simenv.service.telemetry.recorder import TelemetryRecorder
    DurationBuckets.add = DurationBuckets.add_all = lambda *_: None
    TaskCounters.durations = UsageLedger._count = lambda *_: None
    TelemetryRecorder.is_due = False
"""


def run(options: Namespace) -> Report:
    report = Report("metrics_cost", f"metrics_cost: {options.circuits} circuits a round, 2 workers")
    rates: Times = defaultdict(list)
    service_us: Times = defaultdict(list)
    for _ in range(options.starts):
        with ExitStack() as stack:
            clients = {"with": stack.enter_context(simenv.local(workers=2))}
            clients["without"] = stack.enter_context(_without())
            stack.enter_context(_scraped(clients["with"]))
            for seed in range(options.rounds + 1):
                order = ("with", "without") if seed % 2 else ("without", "with")
                circuits = shapes.layered(4, 30, options.circuits, seed)
                for name in order:
                    service = psutil.Process(clients[name].status().pid)
                    before = threads_cpu_s(service)
                    seconds = timed_s(partial(_work, clients[name], circuits, seed))
                    if seed:  # the first round warms up
                        rates[name].append(options.circuits / seconds)
                        spent_s = threads_cpu_s(service) - before
                        service_us[name].append(spent_s / options.circuits * 1e6)
            assert sum(clients["with"].metrics().service.loop_pass.counts)
            assert not sum(clients["without"].metrics().service.loop_pass.counts)
    ratios = [a / b for a, b in zip(rates["with"], rates["without"], strict=True)]
    share = statistics.median(ratios)
    each_start = range(0, len(ratios), options.rounds)
    medians = (statistics.median(ratios[k : k + options.rounds]) for k in each_start)
    print("ratio in each start:", *(f"{median:.3f}" for median in medians))
    middle = {name: statistics.median(each) for name, each in service_us.items()}
    for name, each in rates.items():
        print(f"{name:8} {statistics.median(each):8.0f} a second, service {middle[name]:.2f} us")
    report.at_least("share", share, "throughput with metrics relative to that without")
    spent = zip(service_us["without"], service_us["with"], strict=True)
    spared = statistics.median(a / b for a, b in spent)
    report.at_least("service_share", spared, "processor time of the service without, of that with")
    return report


def _work(client: Client, circuits: list[Any], seed: int) -> None:
    for task in client.submit_many(circuits, shots=SHOTS, seed=seed):
        task.result()


@contextmanager
def _without() -> Iterator[Client]:
    """An environment whose service counts nothing."""
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


@contextmanager
def _scraped(client: Client) -> Iterator[None]:
    """Ask for all metrics every SCRAPE_S."""
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(SCRAPE_S):
            client.metrics()

    thread = threading.Thread(target=scrape, name="scraper")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
