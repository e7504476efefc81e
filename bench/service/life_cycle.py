"""Upgrade of a busy service, and restoration of a backup elsewhere.

100,000 tasks wait, two workers run them, and a client submits one task after another. Then `simenv
admin upgrade` replaces the service. The pause is the longest time for which no task of that client
was accepted. All tasks must end, each once. Before, `simenv admin backup` writes an archive of the
same environment; it is restored and started below another home, by one command.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path

from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report, timed_s
from bench.harness.environments import simenv, started, wait_until
from simenv.client.client import Client, connect
from simenv.client.environments import down
from simenv.errors import SimenvError

NAME = "bench-life"
TASKS, BATCH = 100_000, 10_000
WORKERS = 2
SETTINGS = {"name": NAME, "pools": [{"name": "main", "min": WORKERS, "max": WORKERS}]}
RETRY_S = 0.05
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
        with _Submitter() as submitter:
            queued = client.status().queued
            answer = simenv(["admin", "upgrade", "--name", NAME, "--json"])
            print(f"{queued} tasks queued; {answer.strip()}")
            time.sleep(2.0)  # it goes on
        report.at_most("pause_s", submitter.longest_s, "longest time without an acceptance, s")
        total = options.tasks + submitter.accepted
        lost, doubled = _ends(client, total)
        report.at_most("lost", lost, f"tasks lost of {total}")
        report.at_most("doubled", doubled, "tasks that ended twice")
    return report


class _Submitter:
    """A thread that submits one task after another. `longest_s`: between two acceptances."""

    def __init__(self) -> None:
        self.accepted = 0
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> _Submitter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        circuit, last = four_qubit_circuit(0), time.monotonic()
        while not self._stop.is_set():
            try:
                with connect(NAME) as client:
                    while not self._stop.is_set():
                        key = f"load-{self.accepted}"
                        client.submit(circuit, shots=100, seed=1, idempotency_key=key)
                        now = time.monotonic()
                        self.longest_s = max(self.longest_s, now - last)
                        self.accepted, last = self.accepted + 1, now
            except SimenvError:
                time.sleep(RETRY_S)


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
