"""Sums of usage compared with the history, after kills, cancels and retries; bytes of a year.

100,000 tasks of three users in two accounts, in two classes of service, and of the environment's
own user run on two workers, some for an emulated device, there and in a pool of its own, and some
on a GPU. Meanwhile workers that run a task are killed, whose tasks run again, and the service,
which is started again; tasks are cancelled, and some fail. Then all accepted tasks have ended once,
and the sums of `usage`, by each key and by all together, are compared with those over the rows of
the history, in microseconds, and the parts of waiting in receipts with the waits. Receipts cut what
the measured reasons explain in excess, which is a figure of its own, and fill what they leave,
which is printed.

The GPU is this machine's. Without CuPy the driver, NVML and CuPy of the tests stand in for it, with
our kernels compiled by g++: its time is charged as that of any GPU. Where neither is, none is used.

At last the usage of a synthetic year of 10^7 tasks of 500 users in 40 accounts is written hour by
hour, with the merging of old hours and days, and the file is measured. Each user runs tasks in 3
combinations of pool, device and engine (1,500 keys of usage), or in 8 (4,000 keys), all equally
often, so that nearly every key has a row each day and most have one each hour.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

import simenv
from bench import small_circuits as shapes
from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report
from bench.harness.environments import home, remote_key, service_process, wait_until
from bench.testbed.usage_site import PLACES, Site
from simenv import config
from simenv.client import environments
from simenv.client.client import Client, connect
from simenv.model import TaskState
from simenv.model.accounts import UsageRow
from simenv.service.journal import tables
from simenv.service.journal.writer import Journal
from simenv.wire.messages.queries import LogRow

NAME = "bench-usage-sums"
BATCH = 2_000
EVERY = 5  # batches between two kills of a worker, and between two of the service
CANCELLED = 100  # tasks of a batch
SAMPLE = 2_000  # receipts
EMULATED = 20  # tasks of a batch for the device, in each of its two ways
GPU = 20  # tasks of a batch for a GPU
LONG = 4  # tasks of some tenths of a second, of a batch with a kill: one of them is running
DEVICE = "superconducting-lattice"
FAILING = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; rx(1000004) q[0]; measure q->c;'
)
POOLS = (
    {"name": "main", "min": 2, "max": 2},
    {"name": "trap", "engine": "fault", "min": 1, "max": 1},
    {"name": "lattice", "device": DEVICE, "min": 1, "max": 1},
)
GPU_POOL = {"name": "gpu", "engine": "gpu", "min": 1, "max": 1}
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
LOST_S = 60.0  # for which a client waits for the service
OPTIONS = (
    Option("--tasks", default=100_000, quick=10_000, help="default: %(default)s"),
    Option("--days", default=365, quick=40, help="of the synthetic year; default: %(default)s"),
)


def run(options: Namespace) -> Report:
    report = Report(
        "usage_sums", f"usage_sums: {options.tasks} tasks, 2 workers, kills and cancels"
    )
    with home() as folder:
        pools = (*POOLS, GPU_POOL) if _has_gpu(folder) else POOLS
        settings = {"name": NAME, "pools": pools, "accounts": ACCOUNTS, "qos": QOS,
                    "slots": len(pools) + 1, "listen": "tcp://lo:0"}  # fmt: skip
        environments.up(settings)
        try:
            with connect(NAME, timeout_s=LOST_S) as client, ExitStack() as stack:
                clients = {"": client}
                for user in ("ana", "ben", "gus"):
                    file, _ = remote_key(client, user, folder)
                    other = simenv.connect(service=file, timeout_s=LOST_S)
                    clients[user] = stack.enter_context(other)
                accepted = _work(clients, options.tasks, settings)
                _compare(client, accepted, report)
        finally:
            environments.down(NAME, now=True)
    for key, places in (("year_mb", 3), ("year_more_mb", 8)):
        _year(key, options.days, places, report)
    return report


def _has_gpu(folder: Path) -> bool:
    """Return whether environments that are started from now on see a GPU: that of this machine, or
    a stand-in made in `folder`. Variables of this process are changed."""
    from simulators.gpu.devices.detect import find_gpu, refusal

    if importlib.util.find_spec("cupy") is not None:
        return refusal(find_gpu()) is None
    if shutil.which("gcc") is None or shutil.which("g++") is None:
        print("neither a GPU nor gcc: no task is charged for a GPU")
        return False
    sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))
    bare, nvidia_site = map(importlib.import_module, ("bare", "nvidia_site"))
    gpus = f"GPU-aaaa,{nvidia_site.MODEL}"
    packages, kernels = folder / "packages", folder / "kernels"
    packages.mkdir()
    nvidia_site.build_libraries(folder / "lib", gpus)
    nvidia_site.install_cupy(packages, gpus)
    shutil.copytree(config.kernel_folder(), kernels)
    nvidia_site.place_machine_code(kernels)
    os.environ["LD_LIBRARY_PATH"] = str(folder / "lib")
    os.environ["SIMENV_PYTHON"] = str(bare.interpreter(folder, packages))
    os.environ["SIMENV_KERNELS"] = str(kernels)
    return True


def _work(clients: dict[str, Client], number: int, settings: Mapping[str, Any]) -> int:
    """Submit the tasks, kill and cancel; wait for all ends. Return how many were accepted."""
    client, pools = clients[""], {each["name"] for each in settings["pools"]}
    circuits = [four_qubit_circuit(seed) for seed in range(BATCH)]
    long = shapes.layered(20, 400, LONG, 1)
    accepted = 0
    for batch in range(number // BATCH):
        user, account, qos = SUBMITTERS[batch % len(SUBMITTERS)]
        submitter = clients[user]
        terms: dict[str, Any] = {"account": account or None, "qos": qos}
        kills_worker, kills_service = batch % EVERY == 0, batch % EVERY == EVERY // 2
        sent: list[tuple[list[Any], dict[str, Any]]]
        sent = [(circuits[:EMULATED], {"device": DEVICE, "pool": "main", "name": DEVICE}),
                (circuits[:EMULATED], {"pool": "lattice", "name": DEVICE}),
                (circuits[:GPU] if "gpu" in pools else [], {"engine": "gpu"}),
                (long if kills_worker or kills_service else [], {}),
                ([FAILING], {"engine": "fault"}),
                (circuits, {"seed": batch})]  # fmt: skip
        for programs, way in sent:
            if programs:
                tasks = submitter.submit_many(programs, shots=256, **way, **terms)
                accepted += len(tasks)
        if kills_worker or kills_service:
            submitter.cancel(tasks[-CANCELLED:])
            worker = _running(client)
            time.sleep(random.uniform(0.0, 0.05))
            if kills_worker:
                psutil.Process(worker).kill()
            else:
                _restart(client, settings)
        else:
            tasks[-1].wait()
    wait_until(lambda: client.status().queued + client.status().running == 0, 600, 0.1, "the end")
    return accepted


def _running(client: Client) -> int:
    """Return the pid of a worker that runs a task."""
    pids: list[int] = []

    def look() -> list[int]:
        workers = client.workers()
        pids[:] = [each.pid for each in workers if each.pool == "main" and each.pid and each.task]
        return pids

    wait_until(look, LOST_S, 0.002, "a running task")
    return random.choice(pids)


def _restart(client: Client, settings: Mapping[str, Any]) -> None:
    """Kill the service, wait until it has ended, and start it again."""
    service = service_process(client)
    service.kill()
    wait_until(lambda: not environments.still_running([service], 0.0), LOST_S)
    environments.up(settings)


def _compare(client: Client, accepted: int, report: Report) -> None:
    rows = list(client.history.tasks())
    assert len({row.id for row in rows}) == len(rows) == accepted, f"{len(rows)} of {accepted}"
    gpu_s = sum(row.used.gpu_us for row in rows) / 1e6
    retried = sum(row.attempts > 1 for row in rows)
    states = Counter(str(row.state) for row in rows)
    print(f"{len(rows)} tasks: {dict(states)}, {retried} ran more than once, {gpu_s:.2f} GPU s")
    assert min(states["DONE"], states["FAILED"], states["CANCELLED"], retried) > 0, "all kinds"
    assert gpu_s > 0.0 or GPU_POOL["name"] not in client.pools(), "no GPU time"
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


def _year(key: str, days: int, places: int, report: Report) -> None:
    """Measure a year of users each of whom runs tasks in so many places."""
    site, last = Site(1, PLACES[:places]), 500_000
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        file = Path(folder) / "journal.db"
        journal = Journal(file, "process")
        for hour in range(last - 24 * days, last):
            site.write_hour(journal, hour)
            if hour % 24 == 0:
                while statements := tables.merge_usage(journal.records, hour, MERGED_ROWS):
                    with journal.transaction("NORMAL") as db:
                        for statement in statements:
                            db.execute(*statement)
        journal.close()
        size = file.stat().st_size
    keys = f"{site.combinations} keys"
    print(f"{site.rows} rows of hours of {keys} written in {days} days")
    report.at_most(key, size / 1e6, f"usage of {days} days, 500 users, {keys}, MB")
