"""Passes of the event loop while expected starts are asked for.

Tasks of several users wait for two workers, and the users ask again and again for the queue, the
pools and the state, whose answers have expected starts; one submits a task each time, and asks for
that. The figures are the longest pass of the service, its share of a processor, and the 99th
percentile of the answers to a client that asks for no forecast.
"""

from __future__ import annotations

import tempfile
import time
from argparse import Namespace
from contextlib import ExitStack
from functools import partial

import simenv
from bench.harness import Option, Report, probed
from bench.harness.environments import cpu_s, remote_key, service_process
from simenv.client.client import Client

PAUSE_S, ASKED_S = 0.005, 0.05
A_CALL = 500  # tasks
LONG = (
    'OPENQASM 3; include "stdgates.inc"; qubit[18] q; bit[18] c; reset q; '
    "for int i in [0:20000] { h q; cx q[0], q[1]; } c = measure q;"
)
OPTIONS = (
    Option("--tasks", default=20_000, help="that wait", quick=2_000),
    Option("--users", default=2, help="who ask"),
    Option("--seconds", default=10.0, help="of questions", quick=3.0),
)


def run(options: Namespace) -> Report:
    report = Report("forecast_passes", f"{options.tasks} tasks wait; {options.users} users ask")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        own = stack.enter_context(simenv.local(workers=2, slots=2, listen="tcp://127.0.0.1:0"))
        names = [f"user{number}" for number in range(options.users)]
        own.accounts.set("all", users=tuple(names))
        files = [remote_key(own, name, folder)[0] for name in names]
        users = [stack.enter_context(simenv.connect(service=file)) for file in files]
        for number in range(0, options.tasks, A_CALL):
            user = users[number // A_CALL % len(users)]
            user.submit_many([LONG] * A_CALL, shots=1_000, priority=number // A_CALL % 3)
        own.status()
        before_ms = own.status().longest_pass_ms
        for user in users:
            stack.enter_context(probed({"status": partial(_ask, user)}, ASKED_S))
        service = service_process(own)
        stack.enter_context(probed({"new": partial(_submit, users[0])}, ASKED_S))
        with probed({"other": partial(own.cancel, ["t-0"])}, PAUSE_S) as times:
            begin_s, used_s = time.monotonic(), cpu_s(service)
            time.sleep(options.seconds)
            share = (cpu_s(service) - used_s) / (time.monotonic() - begin_s)
        longest_ms = own.status().longest_pass_ms
        print(
            f"longest pass before {before_ms:.0f} ms; {len(times['other'])} answers meanwhile; "
            f"{own.status().queued} tasks wait"
        )
    report.at_most("longest_pass_ms", longest_ms, "longest pass of the service, ms")
    report.at_most("cpu_share", share, "processor time of the service, of one core")
    report.p99_ms("p99_ms", times["other"], "answers to a client that asks for no forecast")
    return report


def _submit(user: Client) -> None:
    """Submit a task, and ask when it starts."""
    task = user.submit(LONG, shots=10)
    user.tasks([task.id])


def _ask(user: Client) -> None:
    user.status()
    user.pools()
    user.queue(limit=100)
