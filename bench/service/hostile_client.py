"""Effect of a hostile client with a valid key on the service and on other clients.

Each scenario is one attack with a key of role client over CURVE, in a process of its own. Meanwhile
a good client with another key and one on the service's machine repeatedly ask for an answer. The
figures are the peak memory of the service, the 99th percentile of the good clients' answer times,
and the time to revoke the attacker's key during the attack. A scenario is a function in
`bench.testbed.attacks`; `ATTACKS` names them all.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from argparse import Namespace
from collections import Counter
from contextlib import ExitStack
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import simenv
from bench.harness import Option, Report, probed, timed_s
from bench.harness.environments import remote_key, service_process, tmpfs
from bench.testbed.attacks import ATTACKS, ON_SMALL_DISK, Prey, prepare
from simenv.errors import SimenvError
from simenv.wire.keyfiles import UserKeyFile

LOOK_S = 0.01
PAUSE_S = 0.005
DISK_BYTES = 512 * 2**20
HEIGHT = 0.6  # share of an attack's time after which its key is revoked
OPTIONS = (
    Option("--seconds", default=10.0, quick=3.0),
    Option("--only", choices=sorted(ATTACKS), action="append"),
)


def run(options: Namespace) -> Report:
    report = Report("hostile_client", f"attacks of {options.seconds:g} s by a client with a key")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or ATTACKS:
            if name in ON_SMALL_DISK and os.geteuid():
                print(f"\n{name}: left out, only root can mount a small disk")
            else:
                _attacked(report, name, options.seconds, Path(folder))
    return report


def _attacked(report: Report, name: str, seconds: float, folder: Path) -> None:
    """Run one scenario against a service of its own."""
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if name in ON_SMALL_DISK:
            disk = stack.enter_context(tmpfs(folder / f"disk-{name}", DISK_BYTES))
            options = {"state_dir": str(disk), "results": {"keep_free_gib": 0.2}}
        local_client = stack.enter_context(
            simenv.local(workers=1, listen="tcp://127.0.0.1:0", **options)
        )
        service = service_process(local_client)
        good_file, _ = remote_key(local_client, f"good-{name}", folder)
        hostile_file, user_key = remote_key(local_client, f"bad-{name}", folder)
        with simenv.connect(service=hostile_file) as hostile_client:
            targets = prepare(hostile_client)
        methods = multiprocessing.get_context("spawn")
        results: Queue[Counter[str]] = methods.Queue()
        attack = methods.Process(target=_attack, args=(name, user_key, seconds, targets, results))
        tcp_client = stack.enter_context(simenv.connect(service=good_file))
        peaks: list[int] = []
        questions = {
            "here": partial(local_client.cancel, ["t-0"]),
            "far": partial(tcp_client.cancel, ["t-0"]),
        }
        with (
            probed({"memory": lambda: peaks.append(service.memory_info().rss)}, LOOK_S),
            probed(questions, PAUSE_S, (SimenvError,)) as times,
        ):
            attack.start()
            attack.join(seconds * HEIGHT)
            revoke_s = timed_s(lambda: local_client.keys.revoke(f"bad-{name}"))
            codes = results.get(timeout=60 + 2 * seconds)
            attack.join()
        lives = service.is_running() and bool(local_client.status())
    refused = ", ".join(f"{count} {code}" for code, count in codes.most_common())
    print(f"\n{name}: refusals: {refused or '-'}; {len(times['far'])} answers to the good client")
    report.at_least("lives", lives, f"{name}: the service lives")
    report.at_most("peak_gib", max(peaks) / 2**30, f"{name}: memory of the service, GiB")
    for where, each in times.items():
        report.p99_ms("p99_ms", each, f"{name}: answers to a good client {where}")
    report.at_most("revoke_s", revoke_s, f"{name}: to revoke the key, s")


def _attack(
    name: str, user_key: UserKeyFile, seconds: float, targets: Prey, results: Queue[Counter[str]]
) -> None:
    results.put(ATTACKS[name](user_key, seconds, targets))
