"""Upgrade of a busy service, and restoration of a backup elsewhere.

100,000 tasks wait, two workers run them, and four clients submit 100 tasks a second. Then `simenv
admin upgrade` replaces the service. The pause is the longest time for which no task of a client was
accepted. No client meets an error, and all tasks must end, each once. Before, `simenv admin backup`
writes an archive of the same environment; it is restored and started below another home, by one
command.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from bench.circuits import four_qubit_circuit
from bench.harness import Report, timed_s
from bench.harness.environments import simenv, started, wait_until
from bench.harness.options import Option
from simenv.client.client import Client, connect
from simenv.client.environments import down
from simenv.errors import SimenvError

NAME = "bench-life"
TASKS, BATCH = 100_000, 10_000
WORKERS = 2
SETTINGS = {"name": NAME, "pools": [{"name": "main", "min": WORKERS, "max": WORKERS}]}
CLIENTS, PERIOD_S = 4, 0.04  # 100 submissions a second
END_S = 1_800.0
OPTIONS = (Option("--tasks", default=TASKS, quick=2_000, help="that wait"),)


def run(options: Namespace) -> Report:
    report = Report("life_cycle", f"upgrade and restore with {options.tasks} queued tasks")
    with started(SETTINGS) as client, tempfile.TemporaryDirectory() as folder:
        (node,) = client.nodes()
        client.drain(node, "until all tasks wait")
        for start in range(0, options.tasks, BATCH):
            numbers = range(start, min(options.tasks, start + BATCH))
            client.submit_many([four_qubit_circuit(each) for each in numbers], shots=100, seed=1)
        archive = Path(folder) / "nightly.tar"
        backup_s = timed_s(lambda: simenv(["admin", "backup", str(archive), "--name", NAME]))
        print(f"backup: {archive.stat().st_size / 2**20:.0f} MiB in {backup_s:.1f} s")
        restore_s = _restored(archive, Path(folder) / "elsewhere", options.tasks)
        report.at_most("restore_s", restore_s, "restore on another host, until it is up, s")
        client.undrain(node)
        wait_until(lambda: client.status().done > 0, 60.0)
        with _Submitters() as submitters:
            queued = client.status().queued
            answer = simenv(["admin", "upgrade", "--name", NAME, "--json"])
            print(f"{queued} tasks queued; {answer.strip()}")
            time.sleep(2.0)  # it goes on
        for text in submitters.errors:
            print(f"       {text}")
        report.at_most("pause_s", submitters.longest_s, "longest time without an acceptance, s")
        report.at_most("errors", len(submitters.errors), f"errors at {CLIENTS} clients")
        total = options.tasks + submitters.accepted
        lost, doubled = _ends(client, total)
        report.at_most("lost", lost, f"tasks lost of {total}")
        report.at_most("doubled", doubled, "tasks that ended twice")
    return report


class _Submitters:
    """Clients, each with its own thread, that submit CLIENTS / PERIOD_S tasks a second together and
    meet no error. `longest_s`: between two acceptances of one of them."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._ended: list[Future[tuple[int, float, str]]] = []

    def __enter__(self) -> _Submitters:
        self._ended = [self._threads.submit(self._run, each) for each in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown()

    @property
    def accepted(self) -> int:
        return sum(each.result()[0] for each in self._ended)

    @property
    def longest_s(self) -> float:
        return max(each.result()[1] for each in self._ended)

    @property
    def errors(self) -> list[str]:
        return [text for each in self._ended if (text := each.result()[2])]

    def _run(self, number: int) -> tuple[int, float, str]:
        """Return the accepted tasks, the longest wait in s, and the error that ended it."""
        accepted, longest_s, circuit = 0, 0.0, four_qubit_circuit(number)
        try:
            with connect(NAME) as client:
                last = time.monotonic()
                while not self._stop.wait(PERIOD_S):
                    client.submit(circuit, shots=100, seed=1)
                    now = time.monotonic()
                    longest_s, last = max(longest_s, now - last), now
                    accepted += 1
        except SimenvError as error:
            return accepted, longest_s, f"{type(error).__name__}: {error.message}"
        return accepted, longest_s, ""


def _restored(archive: Path, home: Path, tasks: int) -> float:
    """Return the time of a restoration in another home; all tasks must be there."""
    before = os.environ["SIMENV_HOME"]
    os.environ["SIMENV_HOME"] = str(home)
    try:
        took = timed_s(lambda: simenv(["admin", "restore", str(archive), "--up"]))
        with connect(NAME) as client:
            info = client.status()
            assert info.queued + info.running + info.done == tasks, info
        down(NAME, now=True)
    finally:
        os.environ["SIMENV_HOME"] = before
    return took


def _ends(client: Client, total: int) -> tuple[int, int]:
    """Return how many tasks have no end, and how many have several."""
    wait_until(lambda: client.status().done >= total, END_S)
    ends = Counter(each.id for each in client.history.tasks())
    return total - len(ends), sum(count > 1 for count in ends.values())
