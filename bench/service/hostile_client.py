"""Effect of a hostile client with a valid key on the service and on other clients.

Each scenario is one attack with a key of role client over CURVE, in a process of its own. Meanwhile
a good client with another key and one on the service's machine repeatedly ask for an answer. The
figures are the peak memory of the service, the 99th percentile of the good clients' answer times,
and the time to revoke the attacker's key during the attack. A scenario is a function in
tests/support/hostile.py; `ATTACKS` names them all.

    python -m bench run hostile_client [--seconds 10] [--only never_reads]
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from bench.harness.options import Option
from bench.harness.report import Report
from bench.harness.timing import RepeatedCall

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from hostile import ATTACKS, ON_SMALL_DISK, Prey, prepare
from small_disk import small_disk

import simenv
from simenv.client.administration import issue_key
from simenv.client.client import Client
from simenv.client.environments import read
from simenv.errors import SimenvError
from simenv.wire.keyfiles import UserKeyFile, read_private

LOOK_S = 0.01
PAUSE_S = 0.005
DISK_BYTES = 512 * 2**20
HEIGHT = 0.6  # share of an attack's time after which its key is revoked


class AttackResult(msgspec.Struct, frozen=True):
    """Measurements of one scenario; times in seconds."""

    peak_gib: float
    near_s: list[float]
    far_s: list[float]
    revoke_s: float
    lives: bool
    codes: Counter[str]


OPTIONS = (
    Option("--seconds", type=float, default=10.0, quick=3.0),
    Option("--only", choices=sorted(ATTACKS), action="append"),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("hostile_client", f"attacks of {options.seconds:g} s by a client with a key")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or ATTACKS:
            if name in ON_SMALL_DISK and os.geteuid():
                print(f"\n{name}: left out, only root can mount a small disk")
                continue
            result = measured(name, options.seconds, Path(folder))
            codes = (
                ", ".join(f"{count} {code}" for code, count in result.codes.most_common()) or "-"
            )
            print(f"\n{name}: refusals: {codes}; {len(result.far_s)} answers to the good client")
            report.at_least("lives", result.lives, "the service lives")
            report.at_most("peak_gib", result.peak_gib, "memory of the service, GiB")
            for where, times in (("here", result.near_s), ("far", result.far_s)):
                p99_ms = float(np.percentile(times, 99)) * 1e3
                report.at_most("p99_ms", p99_ms, f"answers to a good client {where}, p99, ms")
            report.at_most("revoke_s", result.revoke_s, "to revoke the key, s")
    return report


def measured(name: str, seconds: float, folder: Path) -> AttackResult:
    """Run one scenario against a service of its own."""
    small = small_disk(folder / f"disk-{name}", DISK_BYTES) if name in ON_SMALL_DISK else None
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if small is not None:
            disk = stack.enter_context(small)
            options = {"state_dir": str(disk), "results": {"keep_free_gib": 0.2}}
        local_client = stack.enter_context(
            simenv.local(workers=1, listen="tcp://127.0.0.1:0", **options)
        )
        service = psutil.Process(read(Path(local_client.service)).pid)
        good_key, hostile_key = folder / f"good-{name}", folder / f"bad-{name}"
        issue_key(local_client.keys, "good", "client", good_key)
        issue_key(local_client.keys, "bad", "client", hostile_key)
        with simenv.connect(service=hostile_key) as hostile_client:
            targets = prepare(hostile_client)
        methods = multiprocessing.get_context("spawn")
        results: Queue[Counter[str]] = methods.Queue()
        user_key = read_private(hostile_key, UserKeyFile)
        attack = methods.Process(target=_attack, args=(name, user_key, seconds, targets, results))
        with simenv.connect(service=good_key) as tcp_client:
            peaks = [0]
            memory = RepeatedCall(partial(_note_peak, service, peaks), LOOK_S)
            calls = [
                RepeatedCall(_repeated_query(each), PAUSE_S, (SimenvError,))
                for each in (local_client, tcp_client)
            ]
            attack.start()
            attack.join(seconds * HEIGHT)
            begin = time.monotonic()
            local_client.keys.revoke("bad")
            revoke_s = time.monotonic() - begin
            codes = results.get(timeout=60 + 2 * seconds)
            attack.join()
            times = [call.end() for call in calls]
            memory.end()
        lives = service.is_running() and bool(local_client.status())
    return AttackResult(peaks[0] / 2**30, *times, revoke_s, lives, codes)


def _attack(
    name: str, user_key: UserKeyFile, seconds: float, targets: Prey, results: Queue[Counter[str]]
) -> None:
    results.put(ATTACKS[name](user_key, seconds, targets))


def _repeated_query(client: Client) -> Callable[[], object]:
    return lambda: client.cancel(["t-0"])


def _note_peak(service: psutil.Process, peaks: list[int]) -> None:
    peaks[0] = max(peaks[0], service.memory_info().rss)
