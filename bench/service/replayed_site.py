"""The day of the made-up site for real: its users submit circuits to an environment.

The day lasts some minutes, so each task is shorter than in `SimulatedDay` by what the environment
has less of time and slots. A task is a circuit of the width whose slot time is nearest; several of
them or fewer bring the work of the submission. Tasks of several ranks are tasks of one rank with
all their work. Users connect in windows, each with a key of its own, and submit what is theirs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import simenv
from bench import circuits as shapes
from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.model.accounts import Account, AccountTree
from simenv.wire.messages.history import LogRow
from testbed import site
from testbed.keys import remote_key

WIDTHS, OPERATIONS, SHOTS = range(4, 21, 2), 150, 1_024
WINDOWS = 50  # of the day
CONNECTIONS = 4  # at a time
SAMPLE_S = 0.5


class Delivered(NamedTuple):
    """What each account got, with those below it, and since when those that always had waiting
    tasks had them, in seconds."""

    slot_s: dict[str, float]
    saturated: dict[str, float]
    tasks: int  # that ended
    users: int  # that submitted


def replay(
    client: Client,
    folder: str,
    accounts: Mapping[str, Account],
    work: Sequence[site.Submission],
    seconds: float,
    slots: int,
) -> Delivered:
    """Replay a day within so many seconds on an environment with so many slots. `client`: of an
    administrator; `folder`: for the users' keys."""
    programs = {q: load(shapes.layered(q, OPERATIONS, 1, 1)[0]).program for q in WIDTHS}
    costs_s = dict(_costs_s(client, programs))
    print(", ".join(f"{qubits}: {1e3 * each:.2f} ms" for qubits, each in costs_s.items()))
    users = {each.user for each in work}
    files = {user: remote_key(client, user, folder)[0] for user in sorted(users)}
    window_s = site.DAY_S / WINDOWS
    smaller = seconds * slots / (site.DAY_S * site.NODES * site.NODE_SLOTS)
    begin_s = time.time()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        for number, group in groupby(work, key=lambda each: int(each.time_s / window_s)):
            time.sleep(max(0.0, begin_s + number * seconds / WINDOWS - time.time()))
            by_user: dict[str, list[tuple[str, list[Any]]]] = {}
            for each in group:
                cost_s = each.cost_s * each.ranks * smaller
                qubits = min(costs_s, key=lambda q: abs(np.log(costs_s[q] / cost_s)))
                count = max(1, round(each.tasks * cost_s / costs_s[qubits]))
                sent = each.account, [programs[qubits]] * count
                by_user.setdefault(each.user, []).append(sent)
            list(threads.map(_submit, map(files.__getitem__, by_user), by_user.values()))
    time.sleep(max(0.0, begin_s + seconds - time.time()))
    rows = client.history.tasks(begin_s)
    return _delivered(accounts, list(rows), begin_s, begin_s + seconds, len(users))


def _costs_s(client: Client, programs: Mapping[int, Any]) -> Iterator[tuple[int, float]]:
    for qubits, program in programs.items():
        tasks = client.submit_many([program] * 11, shots=SHOTS)
        for task in tasks:
            task.result()
        used = [client.receipt(task).used.slot_us for task in tasks[1:]]  # the first compiles
        yield qubits, statistics.median(used) / 1e6


def _submit(file: Path, work: Sequence[tuple[str, list[Any]]]) -> None:
    with simenv.connect(service=file) as user:
        for account, programs in work:
            user.submit_many(programs, shots=SHOTS, account=account)


def _delivered(
    accounts: Mapping[str, Account],
    rows: Sequence[LogRow],
    begin_s: float,
    end_s: float,
    users: int,
) -> Delivered:
    tree = AccountTree(accounts)
    samples = np.arange(begin_s, end_s, SAMPLE_S)
    slot_s, first_s = dict.fromkeys(accounts, 0.0), dict[str, float]()
    waiting = {name: np.zeros(len(samples) + 1, int) for name in accounts}
    ended = 0
    for row in rows:
        has_ended = 0.0 < row.ended_s <= end_s
        ended += has_ended
        has_started = row.timing.run_us > 0 or row.ended_s > 0.0
        start_s = row.submitted_s + row.timing.queued_us / 1e6 if has_started else end_s
        places = np.searchsorted(samples, (row.submitted_s, start_s))
        for name in tree.path(row.account):
            first_s[name] = min(row.submitted_s, first_s.get(name, end_s))
            slot_s[name] += row.used.slot_us / 1e6 if has_ended else 0.0
            waiting[name][places[0]] += 1
            waiting[name][places[1]] -= 1
    saturated = {}
    for name, since_s in first_s.items():
        counts = np.cumsum(waiting[name])[np.searchsorted(samples, since_s) : -2]
        if counts.all():
            window = int((since_s - begin_s) / (end_s - begin_s) * WINDOWS)
            saturated[name] = window * (end_s - begin_s) / WINDOWS
    return Delivered(slot_s, saturated, ended, users)
