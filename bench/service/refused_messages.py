"""Memory of the service after large messages of a client that were refused.

A client with a key of role client sends messages of up to 7 MiB over CURVE and waits for each
refusal: one series for each path that a message takes. The figure is the growth of the service's
memory in a series. A path is an entry of `BODIES` in tests/support/refused.py.

    python -m bench run refused_messages [--messages 200] [--only explain]
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import psutil

from bench.harness.options import Option
from bench.harness.report import Report

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))

from refused import BODIES, growth_bytes

import simenv
from simenv.client.administration import issue_key
from simenv.client.environments import read
from simenv.wire.keyfiles import UserKeyFile, read_private

OPTIONS = (
    Option("--messages", type=int, default=200, quick=30),
    Option("--only", choices=sorted(BODIES), action="append"),
)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    report = Report("refused_messages", f"{options.messages} refused messages on each path")
    with (
        tempfile.TemporaryDirectory() as folder,
        simenv.local(workers=1, listen="tcp://127.0.0.1:0") as client,
    ):
        file = Path(folder) / "key"
        issue_key(client.keys, "mallory", "client", file)
        person = read_private(file, UserKeyFile)
        service = psutil.Process(read(Path(client.service)).pid)
        for name in options.only or BODIES:
            growth = growth_bytes(service, person, name, options.messages)
            report.at_most("growth_mib", growth / 2**20, f"{name}: growth of the service, MiB")
    return report
