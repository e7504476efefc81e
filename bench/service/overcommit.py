"""More workers than cores: refusal, and the event loop while many workers start.

An environment of two slots is up. `simenv scale main 999` must be refused within a second, naming
the slots and the memory that limit it. Then an environment is started with `simenv up --workers 64
--slots 2`, on a machine that can hold so many workers: all of them must get ready, while the
longest pass of the event loop stays below its bound and `status` is answered in time.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from argparse import Namespace
from functools import partial

from bench.harness import Report, timed
from bench.harness.environments import simenv
from bench.harness.options import Option

READY_S = 300.0
LOOK_S = 0.2
OPTIONS = (Option("--workers", default=64, quick=8),)


def run(options: Namespace) -> Report:
    workers = options.workers
    report = Report("overcommit", f"overcommit: {workers} workers on 2 slots")
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        command = partial(simenv, environ={**os.environ, "SIMENV_HOME": folder})
        command(["up", "--slots", "2"])
        try:
            refused_s, output = timed(lambda: command(["scale", "main", "999"], code=3))
            print(output.strip())
        finally:
            command(["down", "--now"])
        command(["up", "--slots", "2", "--workers", str(workers)])
        try:
            deadline = time.monotonic() + READY_S
            slowest_s, ready = 0.0, 0
            while ready < workers and time.monotonic() <= deadline:
                seconds, text = timed(lambda: command(["--json", "status"]))
                slowest_s, info = max(slowest_s, seconds), json.loads(text)
                ready = sum(pool["workers"] for pool in info["pools"])
                time.sleep(LOOK_S)
        finally:
            command(["down", "--now"])
    report.at_most("refusal_s", refused_s, "`simenv scale main 999` refused, s")
    report.at_most("missing", workers - ready, f"workers of {workers} that did not get ready")
    label = "longest pass of the event loop meanwhile, ms"
    report.at_most("longest_pass_ms", float(info["longest_pass_ms"]), label)
    report.at_most("status_s", slowest_s, "`simenv status` as typed meanwhile, slowest, s")
    return report
