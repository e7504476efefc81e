"""Endurance: fifty clients of five kinds, and a fault every minute, for hours."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from bench.harness import Report, benchmark
from bench.harness.environments import (
    gateway_status,
    home,
    service_process,
    simenv as command,
    token,
)  # fmt: skip
from simenv import config
from simenv.client import environments
from simenv.client.client import connect
from simenv.errors import NoServiceError, SimenvError
from simenv.service.admission.submissions import RECENT_KEYS
from simenv.service.queries.history import StoredJournal
from simenv.wire import codec
from testbed.keys import remote_key
from testbed.soak_clients import KINDS, Mark, whole_lines
from testbed.waiting import until

NAME = "bench-soak"
LOOK_S, DRAIN_S, START_S, REVOKED_S = 1.0, 120.0, 120.0, 10.0
GUEST = -1  # client of the tasks that are sent with keys which are revoked
CONFIG = """
listen = "tcp://127.0.0.1:0"
[gateway]
listen = "127.0.0.1:{port}"
tls = false
requests_per_s = 0
"""


class Sample(NamedTuple):
    rss_bytes: int
    descriptors: int
    disk_bytes: int
    tasks: int  # that have ended since the first start


class Soak:
    def __init__(self, folder: Path, clients: int) -> None:
        self._folder, self._each = folder, clients // len(KINDS)
        self._clients: dict[str, subprocess.Popen[bytes]] = {}
        self._kinds = cycle(KINDS)
        self.samples: list[Sample] = []
        self.faults: Counter[str] = Counter()
        self.guests: set[Mark] = set()  # of tasks sent with a key, and with it after its revocation
        self.revoked: set[Mark] = set()
        self._file = folder / "simenv.toml"
        with socket.create_server(("127.0.0.1", 0)) as free:  # the gateway's, over all starts
            self._file.write_text(CONFIG.format(port=free.getsockname()[1]))
        self.up()
        self.where = NAME, gateway_status(NAME)["url"], token(NAME, "soak")

    def up(self) -> None:
        command(["up", "--name", NAME, "--workers", "2", "--config", str(self._file)])

    def _start(self, kind: str) -> None:
        argv = [sys.executable, "-m", "testbed.soak_clients", str(os.getpid()), kind]
        words = [*argv, str(self._each), str(self._folder), *self.where]
        self._clients[kind] = subprocess.Popen(words)

    def look(self) -> None:
        with suppress(SimenvError, psutil.Error, OSError), connect(NAME) as client:
            service, root = service_process(client), config.home_root() / NAME
            disk = sum(path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file())
            rss, descriptors = service.memory_info().rss, service.num_fds()
            self.samples.append(Sample(rss, descriptors, disk, client.status().done))

    # --- faults ---------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        with connect(NAME) as client:
            psutil.Process(client.workers()[0].pid).kill()

    def kill_service(self) -> None:
        with connect(NAME) as client:
            service = service_process(client)
        service.kill()
        gone = lambda: not environments.still_running([service], 0.0)  # noqa: E731
        until(gone, START_S, message="the end of the killed service")
        self.up()

    def upgrade(self) -> None:
        command(["admin", "upgrade", "--name", NAME])

    def kill_clients(self) -> None:
        kind = next(self._kinds)
        self._clients[kind].kill()
        self._clients[kind].wait()
        self._start(kind)

    def revoke_key(self) -> None:
        """Revoke a key while a client uses it, and try to use it afterwards."""
        number = self.faults["revoke_key"]
        name = f"guest{number}"
        before, after = Mark(GUEST, 2 * number), Mark(GUEST, 2 * number + 1)
        self.guests.add(before)
        self.revoked.add(after)
        with connect(NAME) as own:
            file, _ = remote_key(own, name, self._folder)
            with connect(service=file) as guest:
                guest.submit(before.circuit, shots=1, seed=1).result(60.0)
                own.keys.revoke(name)
                with suppress(SimenvError):
                    guest.submit(after.circuit, shots=1, seed=1).result(REVOKED_S)

    def run(self, seconds: float, fault_s: float) -> None:
        """Let the clients work; every `fault_s` something fails."""
        killing = (self.kill_worker, self.kill_service, self.kill_clients)
        turns = cycle((*killing, self.revoke_key, self.upgrade))
        for kind in KINDS:
            self._start(kind)
        end_s, fault_due_s = time.monotonic() + seconds, time.monotonic() + fault_s
        while time.monotonic() < end_s:
            time.sleep(LOOK_S)
            self.look()
            if time.monotonic() > fault_due_s:
                fault, fault_due_s = next(turns), time.monotonic() + fault_s
                fault()
                self.faults[fault.__name__] += 1

    def end(self) -> StoredTasks:
        """End the clients, and the environment once it has no task; return the tasks that its
        journal has."""
        self._end_clients()
        deadline_s = time.monotonic() + DRAIN_S
        with suppress(SimenvError), connect(NAME) as client:
            while time.monotonic() < deadline_s:
                metrics = client.metrics()
                if not metrics.service.running + sum(pool.waiting for pool in metrics.pools):
                    break
                time.sleep(LOOK_S)
        self.close()
        settings = config.read(config.home_root() / NAME / "config.json")
        return stored_tasks(config.places(settings).journal)

    def close(self) -> None:
        """Idempotent."""
        self._end_clients()
        with suppress(NoServiceError):
            environments.down(NAME, now=True)

    def _end_clients(self) -> None:
        for process in self._clients.values():
            process.kill()
            process.wait()


class StoredTasks(NamedTuple):
    tasks: Counter[Mark]  # how many have this mark
    ended_again: int  # completions of tasks that had one
    never_ended: int  # accepted tasks without a completion

    def doubled(self, sent: Collection[Mark]) -> int:
        """Return the number of tasks that no submission of `sent` explains, and of ends after the
        first one of a task."""
        unexplained = sum(n - (mark in sent) for mark, n in self.tasks.items())
        return unexplained + self.ended_again


def stored_tasks(path: Path) -> StoredTasks:
    """Read a journal from which retention has removed nothing."""
    journal = StoredJournal(path)
    try:
        tasks: Counter[Mark] = Counter()
        for row in journal.records.accepted.all():
            tasks.update(Mark.of_program(each.program) for each in codec.submit(row.body).tasks)
        replaced, ends = set(journal.records.finished.replaced()), Counter[int]()
        for first_seq, body in journal.records.finished.all():
            results = enumerate(codec.completed(body).results, first_seq)
            ends.update(each.task for seq, each in results if seq not in replaced)
    finally:
        journal.close()
    return StoredTasks(tasks, ends.total() - len(ends), tasks.total() - len(ends))


class Outcome(NamedTuple):
    open_keys: int
    sent: dict[Mark, str]  # keys
    counts: dict[str, str]  # of ended keys
    failed_attempts: int
    seconds: list[float]


@benchmark(hours=(2.0, 0.05), clients=50, fault_s=(60.0, 20.0))
def soak(report: Report, options: Namespace) -> None:
    """Endurance: fifty clients of five kinds, and a fault every minute, for hours.

    Each client submits one circuit after another and gets the same counts each time: through the
    Python client, as a typed command, through QPM, through the gateway, and as a stream. Faults
    take turns: a worker is killed; the service is killed and started again; it is replaced as in an
    upgrade; ten clients are killed and start again; a key in use is revoked. Memory is compared
    once the service remembers RECENT_KEYS Submits, over all its starts.

    Tasks are counted by identity. Every submission has a mark in its circuit; at the end each task
    of the journal is matched with the mark that its client had written down before it sent it. A
    task is doubled if its mark has another task already, if nobody has sent it, or if it ended
    twice; a result is lost if the journal has no task for it. Nothing is allowed for.
    """
    with home(), tempfile.TemporaryDirectory() as folder:
        run = Soak(Path(folder), options.clients)
        try:
            run.run(3_600.0 * options.hours, options.fault_s)
            due = _drained(Path(folder))
            stored = run.end()
        finally:
            run.close()
        outcome = read_outcome(Path(folder), due)
    samples, (p50, p99) = run.samples, np.percentile(outcome.seconds, [50, 99])
    by_kind = Counter(key.rstrip("-0123456789") for key in outcome.counts)
    print(f"faults {dict(run.faults)}; results {dict(sorted(by_kind.items()))} of"
          f" {stored.tasks.total()} tasks, {outcome.failed_attempts} attempts failed;"
          f" p50 {p50:.3f} s, p99 {p99:.3f} s, longest {max(outcome.seconds):.1f} s")  # fmt: skip
    if full := [sample.rss_bytes for sample in samples if sample.tasks >= RECENT_KEYS]:
        size = max(1, len(full) // 4)
        growth = float(np.median(full[-size:]) / np.median(full[:size]) - 1.0)
        report.at_most("rss_growth", growth)
    else:
        report.not_measured("rss_growth", f"fewer than {RECENT_KEYS:,} tasks ended")
    report.at_most("descriptors", max(sample.descriptors for sample in samples))
    report.at_most("disk_gib", samples[-1].disk_bytes / 2**30)
    with_task = {key for mark, key in outcome.sent.items() if mark in stored.tasks}
    lost = outcome.open_keys + len(outcome.counts.keys() - with_task) + stored.never_ended
    report.at_most("lost", lost)
    report.at_most("doubled", stored.doubled({*outcome.sent, *run.guests, *run.revoked}))
    usual = Counter(outcome.counts.values()).most_common(1)[0][0]
    report.at_most("unequal", sum(counts != usual for counts in outcome.counts.values()))
    report.at_most("revoked", sum(stored.tasks[mark] for mark in run.revoked))


def _lines(folder: Path) -> list[list[str]]:
    return [words for file in folder.glob("*.log") for words in whole_lines(file)]


def _drained(folder: Path) -> set[str]:
    """Wait until all clients that are not at rest have a result; return the keys that have none."""
    deadline_s = time.monotonic() + DRAIN_S
    due = {words[1] for words in _lines(folder) if words[0] == "s"}
    while True:
        due -= {words[1] for words in _lines(folder) if words[0] == "r"}
        if not due or time.monotonic() > deadline_s:
            return due
        time.sleep(LOOK_S)


def read_outcome(folder: Path, due: set[str]) -> Outcome:
    """Read the files of the clients. `due`: keys that should have a result and have none."""
    lines = _lines(folder)
    ended = {words[1]: words for words in lines if words[0] == "r"}
    failed = [words for words in lines if words[0] == "f"]
    reasons = Counter((words[1].rstrip("-0123456789"), *words[2:]) for words in failed)
    for (kind, *reason), count in reasons.most_common(10):
        print(f"{kind}: {count} attempts failed: {' '.join(reason)[:150]}")
    return Outcome(
        len(due), {Mark.of_text(words[2]): words[1] for words in lines if words[0] == "s"},
        {key: words[3] for key, words in ended.items()}, len(failed),
        [float(words[2]) for words in ended.values()],
    )  # fmt: skip
