"""Fair share: a day of a site, simulated and for real, three accounts, the rate with 500 users.

day: 10^5 tasks of the site of `bench.testbed.site`, in simulated time, with a restart at noon.
What saturated accounts got is compared with their shares. Then, with a half-life of 12 h, what an
account got that begins 8 h late, compared with the decay of usage; and the scheduler's CPU time
for a task while 10^5 tasks wait: to choose it, to begin, end and charge it, and for its ticks.

real: accounts with shares 1, 1 and 2 on 2 workers, which always have waiting tasks: one user with
sweeps of 12 qubits, three with circuits of 16 and six with circuits of 20. Of the circuits of 16
and 20 qubits some are tasks of two ranks, which take both slots. In the middle the service is
killed with SIGKILL and started again; what it knew of usage before is compared with what
it knows after.

site: the simulated day for real on 2 workers, as fast as the given minutes require, see
`bench.testbed.replayed_site`: all 500 users submit, each with a key of its own.

rate: small circuits of all users of the site, relative to as many of one user; in turns. 10^5 are
queued while the pool is paused, and run while no client is connected. A user's turn costs the
service some 30 us, whatever the number of its circuits; so --each decides what remains of the rate.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import simenv
from bench import small_circuits as shapes
from bench.harness import Option, Report, rounds
from bench.harness.environments import home, remote_key, service_process, wait_until
from bench.testbed import replayed_site, site
from simenv.client import environments
from simenv.client.circuits import load
from simenv.client.client import Client, connect
from simenv.errors import SimenvError
from simenv.model.accounts import Account
from simenv.scheduler.core import gang_name
from simenv.wire.messages import accounting, admin, metrics

NAME, SHOTS = "bench-fair-share", 1_024
SHARES = {"chem": (1.0, 1), "physics": (1.0, 3), "astro": (2.0, 6)}  # and number of users
LISTEN = "tcp://127.0.0.1:0"
POOL = {"name": "main", "min": 2, "max": 2}
AHEAD = 8  # submissions of each user that wait
GANGS = {"physics": 5, "astro": 2}  # tasks of two ranks in each submission
LOST_S = 60.0  # for which a client waits for the service
HALF_LIFE_S = 12 * site.HOUR_S  # for the arrears, which are 25 % less than without decay
WINDOW_S = 4 * site.HOUR_S  # in which the late account gets its arrears
PARTS = ("day", "real", "site", "rate")
OPTIONS = (
    Option("--only", choices=PARTS, action="append"),
    Option("--tasks", default=100_000, help="of the day", quick=4_000),
    Option("--minutes", default=5.0, help="of the real accounts, and of the real day", quick=0.5),
    Option("--real-tasks", default=20_000, help="of the real day, about", quick=2_000),
    Option("--each", default=200, help="circuits of a user, for the rate", quick=20),
    rounds(20, quick=1),
)


def run(options: Namespace) -> Report:
    report = Report("fair_share", "fair share: accounts of 2 workers, and of a simulated site")
    for name in options.only or PARTS:
        {"day": _day, "real": _real, "site": _site, "rate": _rate}[name](report, options)
    return report


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
    first_level = [name for name, each in accounts.items() if not each.parent]
    used = sum(got[name] for name in first_level) / (site.NODES * site.NODE_SLOTS * site.DAY_S)
    print(f"{replayed.submitted} tasks, {replayed.ended} ended, {used:.1%} of all slots used")
    worst = 100.0 * max(map(abs, compared.values()))
    label = f"saturated accounts, {len(compared)} of {len(accounts)}: from their shares, percent"
    report.at_most("day_percent", worst, label)
    report.at_most("restart_percent", 100.0 * changed, "usage changed by a restart, percent")
    part = accounts[site.LATE].share / sum(accounts[name].share for name in first_level)
    forgetful = site.SimulatedDay(accounts, work, half_life_days=HALF_LIFE_S / site.DAY_S)
    forgetful.run(site.LATE_S + WINDOW_S)
    late = forgetful.delivered(site.LATE_S, site.LATE_S + WINDOW_S)
    extra_s = (late[site.LATE] / sum(late[name] for name in first_level) - part) * WINDOW_S
    expected_s = (1.0 - part) * site.arrears_s(site.LATE_S, part, HALF_LIFE_S)
    print(
        f"account {site.LATE}: arrears of {extra_s:.0f} s of all slots, {expected_s:.0f} s by decay"
    )
    error = 100.0 * abs(extra_s / expected_s - 1.0)
    report.at_most("arrears_percent", error, "arrears of a late account, from the decay, percent")
    needed_us = site.deciding_us(accounts, options.tasks, options.tasks // 5)
    print(", ".join(f"{part} {us:.1f} us" for part, us in needed_us.items()))
    where = f"for a task, {options.tasks} waiting, us"
    report.at_most("decide_us", needed_us["decision"], f"scheduler, decision {where}")
    label = f"scheduler, decision, begin, end with its charge, and ticks {where}"
    report.at_most("task_us", sum(needed_us.values()), label)


def _real(report: Report, options: Namespace) -> None:
    users = {name: [f"{name}{k}" for k in range(count)] for name, (_, count) in SHARES.items()}
    accounts = {name: Account(share=SHARES[name][0], users=tuple(users[name])) for name in SHARES}
    settings = {
        "name": NAME, "pools": [POOL], "slots": 2, "listen": LISTEN,
        "accounts": msgspec.to_builtins(accounts),
    }  # fmt: skip
    with home() as folder:
        environments.up(settings)
        try:
            with connect(NAME) as client:
                files = [
                    (name, remote_key(client, user, folder)[0])
                    for name in SHARES
                    for user in users[name]
                ]
                for name in SHARES:  # warm-up
                    for task in _submit(client, name, _work(name)):
                        task.result()
            with _users(files):
                time.sleep(30.0 * options.minutes)
                before = _used_slot_s()
                with connect(NAME) as client:
                    service = service_process(client)
                    known = _usage(client)
                service.kill()
                wait_until(lambda: not environments.still_running([service], 0.0), 60.0)
                environments.up(settings)
                with connect(NAME) as client:
                    kept = _usage(client)
                time.sleep(30.0 * options.minutes)
                after, by_pool = _used_slot_s(), _used_slot_s("pool")
        finally:
            environments.down(NAME, now=True)
    gangs = by_pool.get(gang_name("main", 2), 0.0) / sum(by_pool.values())
    print(f"{gangs:.0%} of the slot seconds were those of tasks of two ranks")
    assert gangs > 0.0, "no task ran on two ranks"
    # Turns alone would not show it: accounts that always have work get their shares without it too.
    lost = max(1.0 - kept.get(each, 0.0) / used for each, used in known.items())
    report.at_most("lost_percent", 100.0 * lost, "usage lost by a kill of the service, percent")
    since = dict.fromkeys(SHARES, 0.0)
    for key, label, used in (
        ("real_percent", "before the service is killed", before),
        ("killed_percent", "with a kill of the service in the middle", after),
    ):
        print(", ".join(f"{name} {used[name]:.1f}" for name in SHARES), "slot seconds")
        worst = max(abs(each) for each in site.deviations(accounts, used, since).values())
        report.at_most(key, 100.0 * worst, f"three accounts, {label}: from their shares, percent")


def _usage(client: Client) -> dict[tuple[str, str], float]:
    """Return the decayed usage of the accounts and of their users."""
    return {(row.account, row.user): row.usage for row in client.shares() if row.usage}


def _work(account: str) -> Any:
    """Return the work of one submission, some tenths of a second."""
    if account == "chem":
        return shapes.ansatz(12, 24, 60), np.random.default_rng(1).uniform(0, 6, (1_000, 24))
    circuits = (
        shapes.layered(16, 200, 100, 1) if account == "physics" else shapes.layered(20, 100, 40, 1)
    )
    return [load(circuit).program for circuit in circuits]


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


def _used_slot_s(by: str = "account") -> dict[str, float]:
    """Return the slot seconds of ended tasks by account or pool."""
    with connect(NAME) as client:
        answer = client.session.request(accounting.Usage, accounting.GetUsage, by=(by,))
    return {row.key[0]: row.used.slot_us / 1e6 for row in answer.rows}


def _site(report: Report, options: Namespace) -> None:
    accounts, seconds = site.site_accounts(), 60.0 * options.minutes
    settings: dict[str, Any] = {"listen": LISTEN, "accounts": msgspec.to_builtins(accounts)}
    work = site.day(accounts, options.real_tasks, seed=2)
    with tempfile.TemporaryDirectory() as folder, simenv.local(workers=2, **settings) as client:
        got = replayed_site.replay(client, folder, accounts, work, seconds, slots=2)
    first_level = [name for name, each in accounts.items() if not each.parent]
    used = sum(got.slot_s[name] for name in first_level) / (2 * seconds)
    compared = site.deviations(accounts, got.slot_s, got.saturated)
    for name, off in compared.items():
        print(f"{name}: {got.slot_s[name]:.1f} slot seconds, {100 * off:+.2f} % of its share")
    print(f"{got.tasks} tasks of {got.users} users ended, {used:.1%} of both slots used")
    label = f"the day for real, {len(compared)} saturated accounts: from their shares, percent"
    if compared:
        report.at_most("site_percent", 100.0 * max(map(abs, compared.values())), label)
    else:  # a day that is too short
        report.not_measured("site_percent", label, "no two siblings always had waiting tasks")


def _rate(report: Report, options: Namespace) -> None:
    accounts = site.site_accounts()
    users = [user for each in accounts.values() for user in each.users]
    programs = [load(circuit).program for circuit in shapes.layered(4, 30, options.each, 1)]
    settings: dict[str, Any] = {"listen": LISTEN, "accounts": msgspec.to_builtins(accounts)}
    shares: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=2, durability="accepted", **settings) as client,
    ):
        files = [remote_key(client, user, folder)[0] for user in users]
        cases = [[files[0]] * len(files), files]
        for turn in range(options.rounds + 1):
            first = turn % 2  # neither of them always comes after the other
            rates = {k: _rate_of(client, cases[k], programs) for k in (first, 1 - first)}
            one, every = rates[0], rates[1]
            print(f"one user {one:,.0f}, {len(users)} users {every:,.0f} circuits a second")
            shares.append(every / one)
    share = statistics.median(shares[1:])  # the first round warms up
    label = f"rate of {len(users)} users with {options.each} circuits each, relative to one user's"
    report.at_least("rate_share", share, label)


def _rate_of(client: Client, files: Sequence[Path], programs: Sequence[Any]) -> float:
    """Return the circuits per second of the users of these key files."""
    steer: Callable[..., Any] = partial(
        client.session.request, admin.TargetReply, admin.SteerTarget, device="main"
    )
    steer(verb="pause")
    for seed, file in enumerate(files):
        with simenv.connect(service=file) as user:
            user.submit_many(programs, shots=SHOTS, seed=seed)
    queued, begin = _unfinished(client), time.perf_counter()
    steer(verb="resume")
    wait_until(lambda: not _unfinished(client), 120.0, 0.005)
    return queued / (time.perf_counter() - begin)


def _unfinished(client: Client) -> int:
    """Return the number of tasks that have not ended, without expected starts, whose simulation
    would take a fifth of the service's time."""
    answer = client.session.request(metrics.Metrics, metrics.GetMetrics)
    return answer.service.running + sum(pool.waiting for pool in answer.pools)
