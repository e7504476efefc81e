"""Sums of usage compared with the history, after kills, cancels and retries; bytes of a year.

100,000 tasks of three users in two accounts, in two classes of service, and of the environment's
own user run on two workers, some for an emulated device, there and in a pool of its own. Meanwhile
workers are killed, whose tasks run again, tasks are cancelled, and some fail. Then the sums of
`usage`, by each key and by all together, are compared with those over the rows of the history, in
microseconds, and the parts of waiting in receipts with the waits. Receipts cut what the measured
reasons explain in excess, which is a figure of its own, and fill what they leave, which is printed.
At last the usage of a synthetic year of 10^7 tasks of 500 users in 40 accounts is written hour by
hour, with the merging of old hours and days, and the file is measured.
"""

from __future__ import annotations

import random
import tempfile
from argparse import Namespace
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

import simenv
from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report
from bench.harness.environments import remote_key, wait_until
from bench.testbed.usage_site import Site
from simenv.client.client import Client
from simenv.model import TaskState
from simenv.model.accounts import UsageRow
from simenv.service.journal import tables
from simenv.service.journal.writer import Journal
from simenv.wire.messages.queries import LogRow

BATCH = 2_000
EVERY = 5  # batches between two kills
CANCELLED = 100  # tasks of a batch
SAMPLE = 2_000  # receipts
EMULATED = 20  # tasks of a batch for the device, in each of its two ways
DEVICE = "superconducting-lattice"
FAILING = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; rx(1000004) q[0]; measure q->c;'
)
POOLS = (
    {"name": "main", "min": 2, "max": 2},
    {"name": "trap", "engine": "fault", "min": 1, "max": 1},
    {"name": "lattice", "device": DEVICE, "min": 1, "max": 1},
)
ACCOUNTS = {
    "physics": {"share": 2, "users": ["ana", "ben"], "qos": ["normal", "batch"]},
    "course": {"users": ["ben", "gus"], "qos": ["normal", "batch"]},
}
QOS = {"normal": {}, "batch": {"priority": -10, "usage_factor": 0.5}}
SUBMITTERS = tuple(  # user, account and class of a batch; "": of the environment itself
    (user, account, qos)
    for user, account in (("ana", "physics"), ("ben", "physics"), ("ben", "course"),
                          ("gus", "course"), ("", ""))
    for qos in QOS
)  # fmt: skip
BY = ("account", "user", "qos", "pool", "device", "engine")
# The same in rows of the history, which lack the device: tasks for it have its name.
COLUMNS = ("account", "owner", "qos", "pool", "name", "engine")
MERGED_ROWS = 2_000  # in one transaction
OPTIONS = (
    Option("--tasks", default=100_000, quick=10_000, help="default: %(default)s"),
    Option("--days", default=365, quick=40, help="of the synthetic year; default: %(default)s"),
)


def run(options: Namespace) -> Report:
    report = Report(
        "usage_sums", f"usage_sums: {options.tasks} tasks, 2 workers, kills and cancels"
    )
    with (
        tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder,
        simenv.local(pools=POOLS, accounts=ACCOUNTS, qos=QOS, listen="tcp://lo:0") as client,
        ExitStack() as stack,
    ):
        clients = {"": client}
        for user in ("ana", "ben", "gus"):
            key, _ = remote_key(client, user, folder)
            clients[user] = stack.enter_context(simenv.connect(service=key))
        _work(clients, options.tasks)
        _compare(client, report)
    _year(options.days, report)
    return report


def _work(clients: dict[str, Client], number: int) -> None:
    client = clients[""]
    circuits = [four_qubit_circuit(seed) for seed in range(BATCH)]
    for batch in range(number // BATCH):
        user, account, qos = SUBMITTERS[batch % len(SUBMITTERS)]
        submitter = clients[user]
        terms: dict[str, Any] = {"account": account or None, "qos": qos}
        for way in ({"device": DEVICE, "pool": "main"}, {"pool": "lattice"}):
            submitter.submit_many(circuits[:EMULATED], shots=256, name=DEVICE, **way, **terms)
        tasks = submitter.submit_many(circuits, shots=256, seed=batch, **terms)
        submitter.submit(FAILING, engine="fault", shots=1, **terms)
        if batch % EVERY == 0:
            submitter.cancel(tasks[-CANCELLED:])
            workers = [each for each in client.workers() if each.pool == "main" and each.pid]
            psutil.Process(random.choice(workers).pid).kill()
        else:
            tasks[-1].wait()
    wait_until(lambda: client.status().queued + client.status().running == 0, 600, 0.1, "the end")


def _compare(client: Client, report: Report) -> None:
    rows = list(client.history.tasks())
    retried = sum(row.attempts > 1 for row in rows)
    states = Counter(str(row.state) for row in rows)
    print(f"{len(rows)} tasks: {dict(states)}, {retried} ran more than once")
    assert min(states["DONE"], states["FAILED"], states["CANCELLED"], retried) > 0, "all kinds"
    differences, sums = [], 0
    for by in ((), *((name,) for name in BY), BY):
        groups: dict[tuple[str, ...], list[LogRow]] = {}
        for row in rows:
            key = tuple(getattr(row, COLUMNS[BY.index(name)]) for name in by)
            groups.setdefault(key, []).append(row)
        counted = {row.key: _amounts(row) for row in client.usage(by).rows}
        assert counted.keys() == groups.keys(), f"rows by {by}"
        sums += len(groups)
        for key, group in groups.items():
            pairs = zip(counted[key], _summed(group), strict=True)
            differences += [abs(a - b) for a, b in pairs]
    print(f"{sums} rows of sums by {', '.join(BY)} compared")
    worst = round(max(differences), 3)  # units are sums of floats
    report.at_most("difference_us", worst, "largest difference of any sum")
    excess, text = _waits(rows)
    report.at_most("excess_percent", excess, text)
    sample = random.Random(1).sample(rows, min(SAMPLE, len(rows)))
    receipts = [client.receipt(row.id) for row in sample]
    unexplained = max(abs(each.waited_us - sum(us for _, us in each.waits)) for each in receipts)
    report.at_most("unexplained_us", unexplained, f"largest unexplained wait of {len(receipts)}")


def _waits(rows: list[LogRow]) -> tuple[float, str]:
    """Return the percentage of all waiting that measured reasons exceed, which receipts cut; and a
    text that says how much no reason explains but the user's own earlier tasks and the service."""
    waits = [(row.timing.queued_us, sum(us for _, us in row.timing.waits)) for row in rows]
    waited_us = sum(each for each, _ in waits) or 1
    filled_us = sum(max(0, waited - explained) for waited, explained in waits)
    cut_us = sum(max(0, explained - waited) for waited, explained in waits)
    left = f"{filled_us / waited_us:.2%} left to the user's own earlier tasks and the service"
    text = f"measured reasons in excess of {waited_us / 1e6:.0f} s of waiting, percent; {left}"
    return 100.0 * cut_us / waited_us, text


def _amounts(sums: UsageRow) -> tuple[float, ...]:
    used = sums.used.slot_us, sums.used.gpu_us, sums.used.gib_us, sums.used.device_us
    return sums.tasks, sums.shots, *used, sums.wait_us, 1e6 * sums.units


def _summed(rows: list[LogRow]) -> tuple[float, ...]:
    """Return tasks, shots, amounts used, wait, and millionths of billing units of all rows."""
    shots = sum(row.shots * row.bindings for row in rows if row.state is TaskState.DONE)
    used = (
        sum(getattr(row.used, name) for row in rows)
        for name in ("slot_us", "gpu_us", "gib_us", "device_us")
    )
    waits_us = sum(row.timing.queued_us for row in rows)
    return len(rows), shots, *used, waits_us, 1e6 * sum(row.units for row in rows)


def _year(days: int, report: Report) -> None:
    site, last = Site(seed=1), 500_000
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        journal = Journal(Path(folder) / "journal.db", "process")
        for hour in range(last - 24 * days, last):
            site.write_hour(journal, hour)
            if hour % 24 == 0:
                while statements := tables.merge_usage(journal.records, hour, MERGED_ROWS):
                    with journal.transaction("NORMAL") as db:
                        for statement in statements:
                            db.execute(*statement)
        journal.close()
        size = journal.place.stat().st_size
    print(f"{site.rows} rows of hours written in {days} days")
    report.at_most("year_mb", size / 1e6, f"usage of {days} days, 500 users, MB")
