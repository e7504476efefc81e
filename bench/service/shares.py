"""Who gets what: fair share, sums of usage, reservations, and answers while tasks wait."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import threading
import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

import simenv
from bench.circuits import (
    CIRCUITS,
    ansatz_circuit,
    brickwork,
    four_qubit_circuit,
    layered,
    measured,
)  # fmt: skip
from bench.harness import Report, benchmark, in_rounds, probed
from bench.harness.environments import (
    cores,
    restart,
    service_process,
    started,
    waited_s,
)  # fmt: skip
from bench.peers.base import Gate
from bench.service import replayed_site
from simenv.client.circuits import load
from simenv.client.client import Client, connect
from simenv.client.reservations import Reservation
from simenv.errors import SimenvError
from simenv.model import PoolSpec, TaskState
from simenv.model.accounts import Account, UsageRow
from simenv.scheduler.core import gang_name
from simenv.service.journal import tables
from simenv.service.journal.writer import Journal
from simenv.wire.messages import accounting, admin, metrics
from simenv.wire.messages.history import LogRow
from simulators.gpu.devices.detect import find_gpu, refusal
from testbed import site, usage_site
from testbed.keys import remote_key
from testbed.waiting import until

LISTEN, LOST_S = "tcp://127.0.0.1:0", 60.0  # for which a client waits for the service
SHOTS = 1_024


# --- fair share -----------------------------------------------------------------------------------

SHARES = {"chem": (1.0, 1), "physics": (1.0, 3), "astro": (2.0, 6)}  # and number of users
GANGS = {"physics": 5, "astro": 2}  # tasks of two ranks in each submission
AHEAD = 8  # submissions of each user that wait
HALF_LIFE_S = 12 * site.HOUR_S  # for the arrears, which are 25 % less than without decay
WINDOW_S = 4 * site.HOUR_S  # in which the late account gets its arrears


def _day(report: Report, options: Namespace) -> None:
    accounts = site.site_accounts()
    work = site.day(accounts, options.tasks)
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        replayed = site.SimulatedDay(accounts, work, folder=Path(folder))
        replayed.run(site.DAY_S / 2)
        changed = replayed.restart()
        replayed.run(site.DAY_S)
        replayed.close()
    got = replayed.delivered(0.0, site.DAY_S)
    compared = site.deviations(accounts, got, replayed.saturated)
    print(f"{replayed.submitted} tasks, {replayed.ended} ended")
    print(f"{len(compared)} of {len(accounts)} accounts were saturated")
    report.at_most("day_percent", 100.0 * max(map(abs, compared.values())))
    report.at_most("restart_percent", 100.0 * changed)
    first_level = [name for name, each in accounts.items() if not each.parent]
    part = accounts[site.LATE].share / sum(accounts[name].share for name in first_level)
    forgetful = site.SimulatedDay(accounts, work, half_life_days=HALF_LIFE_S / site.DAY_S)
    forgetful.run(site.LATE_S + WINDOW_S)
    late = forgetful.delivered(site.LATE_S, site.LATE_S + WINDOW_S)
    extra_s = (late[site.LATE] / sum(late[name] for name in first_level) - part) * WINDOW_S
    expected_s = (1.0 - part) * site.arrears_s(site.LATE_S, part, HALF_LIFE_S)
    report.at_most("arrears_percent", 100.0 * abs(extra_s / expected_s - 1.0))
    needed_us = site.deciding_us(accounts, options.tasks, options.tasks // 5)
    print(", ".join(f"{part} {us:.1f} us" for part, us in needed_us.items()))
    report.at_most("decide_us", needed_us["decision"])
    report.at_most("task_us", sum(needed_us.values()))


def _real(report: Report, options: Namespace) -> None:
    users = {name: [f"{name}{k}" for k in range(count)] for name, (_, count) in SHARES.items()}
    accounts = {name: Account(share=SHARES[name][0], users=tuple(users[name])) for name in SHARES}
    settings = {
        "name": "bench-fair-share", "pools": [{"name": "main", "min": 2, "max": 2}], "slots": 2,
        "listen": LISTEN, "accounts": msgspec.to_builtins(accounts),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, started(settings) as own:
        files = [(name, remote_key(own, user, folder)[0]) for name in SHARES
                 for user in users[name]]  # fmt: skip
        for name in SHARES:  # warm-up
            for task in _submit(own, name, _work(name)):
                task.result()
        with _users(files):
            time.sleep(30.0 * options.minutes)
            before, known = _slot_s(own), _usage(own)
            restart(own, settings)
            kept = _usage(own)
            time.sleep(30.0 * options.minutes)
            after, by_pool = _slot_s(own), _slot_s(own, "pool")
    gangs = by_pool.get(gang_name("main", 2), 0.0) / sum(by_pool.values())
    print(f"{gangs:.0%} of the slot seconds were those of tasks of two ranks")
    assert gangs > 0.0, "no task ran on two ranks"
    # Turns alone would not show it: accounts that always have work get their shares without it too.
    lost = max(1.0 - kept.get(each, 0.0) / used for each, used in known.items())
    report.at_most("lost_percent", 100.0 * lost)
    since = dict.fromkeys(SHARES, 0.0)
    for key, used in (("real_percent", before), ("killed_percent", after)):
        worst = max(abs(each) for each in site.deviations(accounts, used, since).values())
        report.at_most(key, 100.0 * worst)


def _usage(client: Client) -> dict[tuple[str, str], float]:
    return {(row.account, row.user): row.usage for row in client.shares() if row.usage}


def _slot_s(client: Client, by: str = "account") -> dict[str, float]:
    """Return the slot seconds of ended tasks by account or pool."""
    answer = client.session.request(accounting.GetUsage(0, (by,)))
    return {row.key[0]: row.used.slot_us / 1e6 for row in answer.rows}


def _work(account: str) -> Any:
    """Return the work of one submission, some tenths of a second."""
    if account == "chem":
        return ansatz_circuit(12, 24, 60), np.random.default_rng(1).uniform(0, 6, (1_000, 24))
    shape = (16, 200, 100, 1) if account == "physics" else (20, 100, 40, 1)
    return [load(circuit).program for circuit in layered(*shape)]


def _submit(client: Client, account: str, work: Any) -> list[Any]:
    """Submit some circuits as tasks of two ranks, the others or a sweep as tasks of one."""
    gangs = GANGS.get(account, 0)
    wide = client.submit_many(work[:gangs], shots=SHOTS, ranks=2) if gangs else []
    return [*wide, *client.submit_many(work[gangs:] if gangs else work, shots=SHOTS)]


@contextmanager
def _users(files: Sequence[tuple[str, Path]]) -> Iterator[None]:
    """Let each user, given by account and key file, always have waiting tasks."""
    ending = threading.Event()

    def submit(account: str, file: Path) -> None:
        work = _work(account)
        while not ending.is_set():
            with suppress(SimenvError), connect(service=file, timeout_s=LOST_S) as client:
                waiting: deque[Any] = deque()
                while not ending.is_set():
                    waiting.append(_submit(client, account, work))
                    if len(waiting) > AHEAD:
                        waiting.popleft()[-1].wait(timeout_s=LOST_S)
            ending.wait(0.1)

    threads = [threading.Thread(target=submit, args=each) for each in files]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _site(report: Report, options: Namespace) -> None:
    accounts, seconds = site.site_accounts(), 60.0 * options.minutes
    settings: dict[str, Any] = {"listen": LISTEN, "accounts": msgspec.to_builtins(accounts)}
    work = site.day(accounts, options.real_tasks, seed=2)
    with tempfile.TemporaryDirectory() as folder, simenv.local(workers=2, **settings) as client:
        got = replayed_site.replay(client, folder, accounts, work, seconds, slots=2)
    compared = site.deviations(accounts, got.slot_s, got.saturated)
    print(f"{got.tasks} tasks of {got.users} users ended; "
          + ", ".join(f"{name} {100 * off:+.2f} %" for name, off in compared.items()))  # fmt: skip
    if compared:
        report.at_most("site_percent", 100.0 * max(map(abs, compared.values())))
    else:  # a day that is too short
        report.not_measured("site_percent", "no two siblings always had waiting tasks")


def _rate(report: Report, options: Namespace) -> None:
    accounts = site.site_accounts()
    users = [user for each in accounts.values() for user in each.users]
    programs = [load(circuit).program for circuit in layered(4, 30, options.each, 1)]
    settings: dict[str, Any] = {"listen": LISTEN, "accounts": msgspec.to_builtins(accounts)}
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=2, durability="accepted", **settings) as client,
    ):
        files = [remote_key(client, user, folder)[0] for user in users]
        calls = {name: lambda _, own=own: _rate_of(client, own, programs)
                 for name, own in (("one", files[:1] * len(files)), ("every", files))}  # fmt: skip
        rates = in_rounds(calls, options.rounds)
    report.at_least("rate_share", float(np.median(np.divide(rates["every"], rates["one"]))))


def _unfinished(client: Client) -> int:
    """Return how many tasks wait or run, without expected starts, whose simulation takes time."""
    answer = client.session.request(metrics.GetMetrics(0))
    return int(answer.service.running + sum(pool.waiting for pool in answer.pools))


def _rate_of(client: Client, files: Sequence[Path], programs: Sequence[Any]) -> float:
    steer = client.session.request
    steer(admin.SteerTarget(0, "main", "pause"))
    for seed, file in enumerate(files):
        with simenv.connect(service=file) as user:
            user.submit_many(programs, shots=SHOTS, seed=seed)
    queued, begin = _unfinished(client), time.perf_counter()
    steer(admin.SteerTarget(0, "main", "resume"))
    until(lambda: not _unfinished(client), 120.0, look_s=0.005)
    return queued / (time.perf_counter() - begin)


PARTS = {"day": _day, "real": _real, "site": _site, "rate": _rate}


@benchmark(only=PARTS, tasks=(100_000, 4_000), minutes=(5.0, 0.5), real_tasks=(20_000, 2_000),
           each=(200, 20), rounds=(20, 1))  # fmt: skip
def fair_share(report: Report, options: Namespace) -> None:
    """Fair share: a day of a site, simulated and for real, three accounts, the rate with 500 users.

    day: the site of `testbed.site` in simulated time, with a restart at noon; with a
    half-life of 12 h, the arrears of an account that begins 8 h late, compared with the decay of
    usage; and the scheduler's CPU time for a task while all wait. real: accounts with shares 1, 1
    and 2 on 2 workers, which always have waiting tasks, some of two ranks; in the middle the
    service is killed. site: the day for real as fast as `--minutes` require, all 500 users with a
    key each. rate: small circuits of all users, relative to as many of one user, in turns, queued
    while the pool is paused.
    """
    for name in options.only or PARTS:
        PARTS[name](report, options)


# --- sums of usage --------------------------------------------------------------------------------

BATCH, EVERY = 2_000, 5  # tasks; batches between two kills of a worker, and of the service
CANCELLED, EMULATED, GPU, LONG = 100, 20, 20, 4  # tasks of a batch
SAMPLE = 2_000  # receipts
LATTICE = "superconducting-lattice"
FAILING = (
    'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; rx(1000004) q[0]; measure q->c;'
)
POOLS = (
    {"name": "main", "min": 2, "max": 2}, {"name": "trap", "engine": "fault", "min": 1, "max": 1},
    {"name": "lattice", "device": LATTICE, "min": 1, "max": 1},
)  # fmt: skip
GPU_POOL = {"name": "gpu", "engine": "gpu", "min": 1, "max": 1}
ACCOUNTS = {
    "physics": {"share": 2, "users": ["ana", "ben"], "qos": ["normal", "batch"]},
    "course": {"users": ["ben", "gus"], "qos": ["normal", "batch"]},
}
QOS = {"normal": {}, "batch": {"priority": -10, "usage_factor": 0.5}}
OF_USERS = (("ana", "physics"), ("ben", "physics"), ("ben", "course"), ("gus", "course"), ("", ""))
BY = ("account", "user", "qos", "pool", "device", "engine")
# The same in rows of the history, which lack the device: tasks for it have its name.
COLUMNS = ("account", "owner", "qos", "pool", "name", "engine")
USED = ("slot_us", "gpu_us", "gib_us", "device_us")


@benchmark(tasks=(100_000, 10_000), days=(365, 40))
def usage_sums(report: Report, options: Namespace) -> None:
    """Sums of usage compared with the history, after kills, cancels and retries; bytes of a year.

    Tasks of three users in two accounts and two classes of service, and of the environment's own
    user, some for an emulated device, some on a GPU where there is one. Meanwhile workers and the
    service are killed; tasks are cancelled, and some fail. The
    sums of `usage`, by each key and by all together, are compared with those over the history, in
    microseconds, and the parts of waiting in receipts with the waits. Then the usage of a synthetic
    year of 10^7 tasks of 500 users is written hour by hour, with the merging of old hours and days.
    """
    pools = (*POOLS, GPU_POOL) if refusal(find_gpu()) is None else POOLS
    settings = {"name": "bench-usage-sums", "pools": pools, "accounts": ACCOUNTS, "qos": QOS,
                "slots": len(pools) + 1, "listen": "tcp://lo:0"}  # fmt: skip
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        clients = {"": (client := stack.enter_context(started(settings)))}
        for user in ("ana", "ben", "gus"):
            file, _ = remote_key(client, user, folder)
            other = simenv.connect(service=file, timeout_s=LOST_S)
            clients[user] = stack.enter_context(other)
        accepted = _tasks_of_usage(clients, options.tasks, settings)
        _compare(client, accepted, report)
    for key, places in (("year_mb", 3), ("year_more_mb", 8)):
        used, last = usage_site.Site(1, usage_site.PLACES[:places]), 500_000
        with tempfile.TemporaryDirectory(prefix="simenv-bench-") as name:
            path = Path(name) / "journal.db"
            journal = Journal(path, "process")
            for hour in range(last - 24 * options.days, last):
                used.write_hour(journal, hour)
                while not hour % 24 and (
                    statements := tables.merge_usage(journal.records, hour, 2_000)
                ):
                    with journal.transaction("NORMAL") as db:
                        for statement in statements:
                            db.execute(*statement)
            journal.close()
            report.at_most(key, path.stat().st_size / 1e6)


def _tasks_of_usage(clients: dict[str, Client], number: int, settings: Mapping[str, Any]) -> int:
    """Submit the tasks, kill and cancel; wait for all ends. Return how many were accepted."""
    client, pools = clients[""], {each["name"] for each in settings["pools"]}
    circuits = [four_qubit_circuit(seed) for seed in range(BATCH)]
    long, accepted = layered(20, 400, LONG, 1), 0
    submitters = [(*each, qos) for each in OF_USERS for qos in QOS]
    for batch in range(number // BATCH):
        user, account, qos = submitters[batch % len(submitters)]
        terms: dict[str, Any] = {"account": account or None, "qos": qos, "shots": 256}
        kills_worker, kills_service = batch % EVERY == 0, batch % EVERY == EVERY // 2
        sent: list[tuple[list[Any], dict[str, Any]]]
        sent = [(circuits[:EMULATED], {"device": LATTICE, "pool": "main", "name": LATTICE}),
                (circuits[:EMULATED], {"pool": "lattice", "name": LATTICE}),
                (circuits[:GPU] if "gpu" in pools else [], {"engine": "gpu"}),
                (long if kills_worker or kills_service else [], {}),
                ([FAILING], {"engine": "fault"}), (circuits, {"seed": batch})]  # fmt: skip
        for programs, way in sent:
            if programs:
                tasks = clients[user].submit_many(programs, **way, **terms)
                accepted += len(tasks)
        if not kills_worker and not kills_service:
            tasks[-1].wait()
            continue
        clients[user].cancel(tasks[-CANCELLED:])
        running: list[int] = []

        def look(found: list[int] = running) -> list[int]:
            found[:] = [each.pid for each in client.workers()
                        if each.pool == "main" and each.pid and each.task]  # fmt: skip
            return found

        until(look, LOST_S, look_s=0.002, message="a running task")
        time.sleep(random.uniform(0.0, 0.05))
        if kills_worker:
            psutil.Process(random.choice(running)).kill()
        else:
            restart(client, settings)
    until(lambda: client.status().queued + client.status().running == 0, 600, look_s=0.1)
    return accepted


def _compare(client: Client, accepted: int, report: Report) -> None:
    rows = list(client.history.tasks())
    assert len({row.id for row in rows}) == len(rows) == accepted, f"{len(rows)} of {accepted}"
    states = Counter(str(row.state) for row in rows)
    states["again"] = sum(row.attempts > 1 for row in rows)
    gpu_s = sum(row.used.gpu_us for row in rows) / 1e6
    print(f"{len(rows)} tasks: {dict(states)}, {gpu_s:.2f} GPU s")
    assert min(states[each] for each in ("DONE", "FAILED", "CANCELLED", "again")) > 0, "all kinds"
    assert gpu_s > 0.0 or GPU_POOL["name"] not in client.pools(), "no GPU time"
    differences: list[float] = []
    for by in ((), *((name,) for name in BY), BY):
        groups: dict[tuple[str, ...], list[LogRow]] = {}
        for row in rows:
            key = tuple(getattr(row, COLUMNS[BY.index(name)]) for name in by)
            groups.setdefault(key, []).append(row)
        counted = {row.key: _amounts(row) for row in client.usage(by).rows}
        assert counted.keys() == groups.keys(), f"rows by {by}"
        for key, group in groups.items():
            differences += np.abs(np.subtract(counted[key], _summed(group))).tolist()
    report.at_most("difference_us", round(max(differences), 3))  # units are sums of floats
    waits = [(row.timing.queued_us, sum(us for _, us in row.timing.waits)) for row in rows]
    waited_us = sum(each for each, _ in waits) or 1
    left = sum(max(0, waited - explained) for waited, explained in waits) / waited_us
    excess = 100.0 * sum(max(0, explained - waited) for waited, explained in waits) / waited_us
    print(f"{waited_us / 1e6:.0f} s of waiting, {left:.2%} left to earlier tasks and the service")
    report.at_most("excess_percent", excess)
    sample = random.Random(1).sample(rows, min(SAMPLE, len(rows)))
    receipts = [client.receipt(row.id) for row in sample]
    unexplained = max(abs(each.waited_us - sum(us for _, us in each.waits)) for each in receipts)
    report.at_most("unexplained_us", unexplained)


def _amounts(sums: UsageRow) -> tuple[float, ...]:
    used = (getattr(sums.used, name) for name in USED)
    return sums.tasks, sums.shots, *used, sums.wait_us, 1e6 * sums.units


def _summed(rows: list[LogRow]) -> tuple[float, ...]:
    """Return tasks, shots, amounts used, wait, and millionths of billing units of all rows."""
    shots = sum(row.shots * row.bindings for row in rows if row.state is TaskState.DONE)
    used = (sum(getattr(row.used, name) for row in rows) for name in USED)
    waits_us = sum(row.timing.queued_us for row in rows)
    return len(rows), shots, *used, waits_us, 1e6 * sum(row.units for row in rows)


# --- reservations ---------------------------------------------------------------------------------

WAITING = 3_000  # least number of waiting tasks of the flood


@benchmark(circuits=(300, 50), without=(20, 5))
def reservations(report: Report, options: Namespace) -> None:
    """Queueing time with a reservation of one worker while another client floods the queue.

    Two workers; one client keeps thousands of small circuits waiting. Another submits small
    circuits, each after the counts of the last one, with a reservation of one worker and
    `--without` any. The 99th percentile of acceptance to begin is compared with the promised bound.
    """
    sources = (layered(qubits, 30, 1_000, qubits) for qubits in (4, 6, 8, 10))
    work = itertools.cycle([[load(each).program for each in source] for source in sources])
    seeds = itertools.count()

    def flood() -> None:
        if _unfinished(client) < WAITING:
            client.submit_many(next(work), shots=SHOTS, seed=next(seeds))
        else:
            time.sleep(0.02)

    def wait_s(seed: int, reservation: int | None = None) -> float:
        circuit = four_qubit_circuit(seed)
        return waited_s(client.run(circuit, shots=SHOTS, seed=seed, reservation=reservation))

    with simenv.local(workers=2) as client:
        client.run(four_qubit_circuit(0), shots=SHOTS)
        try:
            with probed({"flood": flood}, 0.0):
                until(lambda: _unfinished(client) >= WAITING // 2, 60.0, message="no flood")
                plain = [wait_s(seed) for seed in range(options.without)]
                number = options.circuits
                with client.reserve("main", workers=1, count=number, timeout_s=30.0) as held:
                    bound_s = held.info().bound_ns / 1e9
                    reserved = [wait_s(1_000 + k, held.id) for k in range(number)]
        finally:
            client.cancel(info.id for info in client.queue(limit=10_000)[1])
    for name, waits in (("without", plain), ("reserved", reserved)):
        p50, p99, most = np.percentile(waits, (50, 99, 100)) * 1e3
        print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, most {most:.2f} ms")
    report.at_most("p99_of_bound", float(np.percentile(reserved, 99)) / bound_s)


GUADALUPE = "guadalupe"  # emulated
MACHINE = "qiskit_ibm_runtime.fake_provider:FakeManilaV2"
WIDEST = {"ideal": 16, "emulated": 10, "paced": 9, "hardware": 5}  # circuits of each pool


class Work:
    def __init__(self, rng: np.random.Generator, pool: str, number: int) -> None:
        qubits = int(rng.integers(2, WIDEST[pool] + 1))
        self.pool, self.family = pool, list(FAMILIES)[number % len(FAMILIES)]
        self.circuit = measured(qubits, FAMILIES[self.family](qubits, rng))
        self.shots = int(10 ** rng.uniform(1.5, 3.5))
        self.count = int(rng.integers(2, 7))

    def reserve(self, client: Client) -> Reservation:
        """Reserve the sizes of the circuits as they are written; kernels compile meanwhile."""
        sizes = [len(item.qubits) for item in self.circuit.data if item.operation.name != "barrier"]
        measures = self.circuit.count_ops().get("measure", 0)
        return client.reserve(
            self.pool, count=self.count, qubits=self.circuit.num_qubits, for_s=7_200.0,
            depth=self.circuit.depth(), gates_1q=sizes.count(1) - measures,
            gates_2q=sum(size > 1 for size in sizes), measurements=measures, shots=self.shots,
        )  # fmt: skip

    def ratio(self, client: Client, reservation: Reservation) -> float:
        """Run the circuits; return reserved / charged, infinite if one has failed."""
        try:
            where = {"pool": self.pool, "reservation": reservation.id}
            tasks = client.submit_many([self.circuit] * self.count, shots=self.shots, **where)
            for task in tasks:
                task.result(timeout=900.0)
        except SimenvError as error:
            print(f"  {self.pool}: {self.family} on {self.circuit.num_qubits} qubits: {error}")
            return float("inf")
        info = reservation.info()
        reservation.release()
        return float(info.credits_reserved / max(info.credits_consumed, 1e-9))


@benchmark(seed=5, reservations=(20, 3))
def reserved_work(report: Report, options: Namespace) -> None:
    """Reservations that are sized by the circuits which then run under them.

    Each names the sizes of a few equal circuits as they are written; then they run under it. It
    holds its work if all are done, and charged <= reserved <= 2 charged. Pools: an ideal simulator,
    an emulated device, a paced one, and a machine that transpiles what it gets. Cold: a new
    environment without compiled kernels; all reservations are made before the first circuit runs.
    Warm: each is made after the circuits of the last one.
    """
    rng = np.random.default_rng(options.seed)
    for pool in WIDEST:
        work = [Work(rng, pool, number) for number in range(2 * options.reservations)]
        cold, warm = work[: options.reservations], work[options.reservations :]
        device = "" if pool == "ideal" else GUADALUPE
        spec = PoolSpec(pool, min=2, max=2, device=device, pace=pool == "paced")
        if pool == "hardware":
            spec = PoolSpec(pool, "hardware", min=1, max=1, provider=MACHINE)
        with ExitStack() as stack:
            kernels = tempfile.TemporaryDirectory(prefix="simenv-bench-")
            os.environ["SIMENV_KERNELS"] = stack.enter_context(kernels)
            stack.callback(os.environ.pop, "SIMENV_KERNELS")
            local = simenv.local(pools=(spec,), start_timeout_s=900.0)
            client = stack.enter_context(local)
            client.policies.set_admission(pool, "credit", total_credits=10**15)
            reserved = [each.reserve(client) for each in cold]
            for name, ratios in (
                ("cold", [w.ratio(client, r) for w, r in zip(cold, reserved, strict=True)]),
                ("warm", [each.ratio(client, each.reserve(client)) for each in warm]),
            ):
                print(f"{pool} {name}: at most {max(ratios):.2f} times the charge")
                held = sum(1.0 <= ratio <= 2.0 for ratio in ratios)
                report.at_least(f"{pool}_{name}_percent", 100.0 * held / len(ratios))


def _toffoli(qubits: int, rng: np.random.Generator) -> Iterator[Gate]:
    """Yield Toffoli gates, each of which a reservation counts as one gate, after h."""
    yield from (("h", (qubit,), ()) for qubit in range(qubits))
    for _ in range(4 if qubits > 2 else 0):
        yield "ccx", tuple(rng.choice(qubits, 3, replace=False).tolist()), ()
        yield "t", (int(rng.integers(qubits)),), ()


FAMILIES = CIRCUITS | {"toffoli": _toffoli}


# --- answers while tasks wait ---------------------------------------------------------------------

LOOPED = (
    'OPENQASM 3; include "stdgates.inc"; qubit[18] q; bit[18] c; reset q; '
    "for int i in [0:20000] { h q; cx q[0], q[1]; } c = measure q;"
)
A_CALL, ASKED_S = 500, 0.05  # tasks; between two questions


@benchmark(tasks=(20_000, 2_000), users=2, seconds=(10.0, 3.0))
def forecast_passes(report: Report, options: Namespace) -> None:
    """Passes of the event loop while expected starts are asked for.

    Tasks of several users wait for two workers, and the users ask again and again for the queue,
    the pools and the state, whose answers have expected starts; one submits a task each time, and
    asks for that. Judged are the longest pass of the service, its share of a processor, and the
    answers to a client that asks for no forecast.
    """

    def ask(user: Client) -> None:
        user.status()
        user.pools()
        user.queue(limit=100)

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        own = stack.enter_context(simenv.local(workers=2, slots=2, listen=LISTEN))
        names = [f"user{number}" for number in range(options.users)]
        own.accounts.set("all", users=tuple(names))
        files = [remote_key(own, name, folder)[0] for name in names]
        users = [stack.enter_context(simenv.connect(service=file)) for file in files]
        for number in range(options.tasks // A_CALL):
            user = users[number % len(users)]
            user.submit_many([LOOPED] * A_CALL, shots=1_000, priority=number % 3)
        own.status()
        for user in users:
            stack.enter_context(probed({"status": partial(ask, user)}, ASKED_S))
        one = users[0]
        new = lambda: one.tasks([one.submit(LOOPED, shots=10).id])  # noqa: E731
        stack.enter_context(probed({"new": new}, ASKED_S))
        with probed({"other": partial(own.cancel, ["t-0"])}, 0.005) as times:
            (share,) = cores(options.seconds, service_process(own))
        status = own.status()
    print(f"{len(times['other'])} answers meanwhile; {status.queued} tasks wait")
    report.at_most("longest_pass_ms", status.longest_pass_ms)
    report.at_most("cpu_share", share)
    report.p99_ms("p99_ms", times["other"])


WIDE, APART_S = 25, 0.5


@benchmark(pairs=(8, 3))
def mixed_widths(report: Report, options: Namespace) -> None:
    """Waiting time of small circuits while a wide circuit runs on all slots of the node.

    Two workers on two slots. A 25-qubit circuit is submitted to the idle environment and gets both
    slots; while it runs, pairs of 3-qubit circuits are submitted, half a second apart. The figure
    is the longest time from the submission of a small circuit to its counts.
    """
    small = measured(3, [("h", (qubit,), ()) for qubit in range(3)])
    longest_s = 0.0
    with simenv.local(slots=2, pools=(PoolSpec("main", "statevector", 2, 2),)) as client:
        client.run(small, shots=100)
        time.sleep(2 * APART_S)  # a recent short task keeps a slot free
        wide = client.submit(measured(WIDE, brickwork(WIDE, 45, 1)), shots=10)
        while wide.state is TaskState.QUEUED:
            time.sleep(0.01)
        for _ in range(options.pairs):
            if wide.state is not TaskState.RUNNING:
                raise SystemExit("the wide circuit ended before the small ones were through")
            begin = time.perf_counter()
            for task in [client.submit(small, shots=100, seed=seed) for seed in range(2)]:
                task.result(timeout_s=60)
            longest_s = max(longest_s, time.perf_counter() - begin)
            time.sleep(APART_S)
        wide.result(timeout_s=300)
    report.seconds("wait_s", longest_s)
