"""More workers than cores: refusal, and the event loop while many workers start.

An environment of two slots is up. `simenv scale main 999` must be refused within a second, naming
the slots and the memory that limit it. Then an environment is started with `simenv up --workers 64
--slots 2`, on a machine that can hold so many workers: all of them must get ready, while the
longest pass of the event loop stays below its bound and `status` is answered in time.

    python -m bench run overcommit [--workers 64]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from bench.harness.options import Option
from bench.harness.report import Report

SIMENV = Path(sys.executable).with_name("simenv")
READY_S = 300.0
LOOK_S = 0.2
OPTIONS = (Option("--workers", type=int, default=64, quick=8),)


def run(options: Namespace) -> Report:
    """Run the benchmark."""
    workers = options.workers
    report = Report("overcommit", f"overcommit: {workers} workers on 2 slots")
    with tempfile.TemporaryDirectory(prefix="simenv-bench-") as folder:
        environ = {**os.environ, "SIMENV_HOME": folder}
        _run_command(["up", "--slots", "2"], environ)
        try:
            begin = time.perf_counter()
            output = _run_command(["scale", "main", "999"], environ, code=3)
            refused_s = time.perf_counter() - begin
            print(output.strip())
        finally:
            _run_command(["down", "--now"], environ)
        _run_command(["up", "--slots", "2", "--workers", str(workers)], environ)
        try:
            ready, slowest_s, longest_ms = _until_ready(workers, environ)
        finally:
            _run_command(["down", "--now"], environ)
    report.at_most("refusal_s", refused_s, "`simenv scale main 999` refused, s")
    report.at_most("missing", workers - ready, f"workers of {workers} that did not get ready")
    report.at_most("longest_pass_ms", longest_ms, "longest pass of the event loop meanwhile, ms")
    report.at_most("status_s", slowest_s, "`simenv status` as typed meanwhile, slowest, s")
    return report


def _until_ready(workers: int, environ: dict[str, str]) -> tuple[int, float, float]:
    """Return ready workers, the slowest `status` in seconds, and the longest pass in
    milliseconds."""
    deadline = time.monotonic() + READY_S
    slowest_s = 0.0
    while True:
        begin = time.perf_counter()
        info = json.loads(_run_command(["--json", "status"], environ))
        slowest_s = max(slowest_s, time.perf_counter() - begin)
        ready = sum(pool["workers"] for pool in info["pools"])
        if ready >= workers or time.monotonic() > deadline:
            return ready, slowest_s, float(info["longest_pass_ms"])
        time.sleep(LOOK_S)


def _run_command(args: list[str], environ: dict[str, str], code: int = 0) -> str:
    done = subprocess.run([SIMENV, *args], env=environ, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise SystemExit(f"simenv {' '.join(args)}: exit {done.returncode}\n{done.stderr}")
    return done.stdout or done.stderr
