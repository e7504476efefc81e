"""Messages of every type with edge values over real connections: survival and answer times.

Messages of clients, administrators, gateways and workers are generated from the types of the
protocol with a fixed seed (`bench.testbed.typed_messages`), and sent over a local stream and over
CURVE with a key of each role, eight in flight on each connection. Meanwhile an honest client runs
circuits. The figures are the longest time until an answer, and whether the service is the same
process of the same start with no fault of its own.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from pathlib import Path

import simenv
from bench.harness import Option, Report, timed
from bench.testbed.typed_messages import HONEST, POOL, exchange
from simenv.model import PoolSpec

OPTIONS = (
    Option("--seed", default=1),
    Option("--messages", default=100_000, quick=10_000),
)


def run(options: Namespace) -> Report:
    report = Report("typed_fuzz", f"{options.messages} messages of every type, with edge values")
    pools = (PoolSpec(name=POOL), PoolSpec(name=HONEST))
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(pools=pools, slots=2, listen="tcp://127.0.0.1:0") as client,
    ):
        before = client.status()
        took_s, found = timed(
            lambda: exchange(client, Path(folder), options.messages, options.seed)
        )
        after, faults = client.status(), client.metrics().service.internal_errors
    print(f"{found.sent} messages in {took_s:.0f} s; answers: {found.answers.most_common(12)}")
    print(f"longest pass of the service: {after.longest_pass_ms:.0f} ms")
    slowest = sorted(found.longest_s.items(), key=lambda item: -item[1])[:5]
    print("slowest: " + ", ".join(f"{kind} {1e3 * each:.0f} ms" for kind, each in slowest))
    same = (after.pid, after.epoch) == (before.pid, before.epoch)
    right = all(set(counts) <= {"00", "11"} for counts in found.bells)
    report.at_least("lives", same and right, "the same service lives, other circuits are right")
    report.at_most("internal_errors", faults, "faults of the service")
    report.at_most("longest_s", slowest[0][1], "longest time until an answer, s")
    return report
