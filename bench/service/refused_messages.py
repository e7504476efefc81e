"""Memory of the service after large messages of a client that were refused.

A client with a key of role client sends messages of up to 7 MiB over CURVE and waits for each
refusal: one series for each path that a message takes. The figure is the growth of the service's
memory in a series. A path is an entry of `BODIES` in `bench.testbed.attacks`.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace

import simenv
from bench.harness import Option, Report
from bench.harness.environments import remote_key, service_process
from bench.testbed.attacks import BODIES, growth_bytes

OPTIONS = (Option("--messages", default=200, quick=30),)


def run(options: Namespace) -> Report:
    report = Report("refused_messages", f"{options.messages} refused messages on each path")
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as client,
    ):
        _, user_key = remote_key(client, "mallory", folder)
        service = service_process(client)
        for name in BODIES:
            growth = growth_bytes(service, user_key, name, options.messages)
            report.at_most("growth_mib", growth / 2**20, f"{name}: growth of the service, MiB")
    return report
