"""The command `python -m bench record`: all goals, measured at one commit, in one result file.

Each benchmark runs in a process of its own, one after the other, when the machine is quiet. The
result file then holds figures of this code alone: those of commits with other packages or
benchmarks are removed when the recording begins. A recording that was interrupted goes on where it
stopped. A goal for which a run gives no figure is stored as not measured, so that no older figure
stands in its place.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

from bench.figures import STORED, goals
from bench.harness import kernels, results
from bench.harness.report import Figure
from simenv.config.paths import kernel_folder

# Runs of a table of goals, where they are not one run of the benchmark with that name.
RUNS: dict[str, tuple[str, ...]] = {
    "latency_tcp": ("latency --tcp",),
    "queue": ("queue --million",),
    "noise_calibration": (
        "noise_calibration --test-only",
        "noise_calibration --test-only --splits 3",
    ),
}
# Figures of the README and of its chart come first: a recording may be interrupted.
FIRST = ("throughput", "latency", "vqls", "cold_start", "queue", "small", "wide", "observables")
QUIET_PERCENT = 15.0  # of all cores, by other processes
QUIET_WAIT_S = 900.0
LIMIT_S = 1_800.0  # of one run
_TERM_S = 10.0


def add_to(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks")
    parser.add_argument("--all", action="store_true", help="every benchmark that has goals")
    parser.add_argument("--file", type=Path, default=STORED, help="default: %(default)s")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        dest="runs",
        metavar="RUN",
        help="run instead of the benchmark's own: 'NAME OPTION ...'; may be repeated",
    )
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument(
        "--limit", type=float, default=LIMIT_S, help="seconds of one run, default: %(default)s"
    )


def record(options: Namespace) -> int:
    """Measure the benchmarks named by `options`; return 1 if a goal is missed or not measured."""
    commit = results.commit()
    if not commit or commit.endswith("+"):
        raise SystemExit("commit the changes first: a recording is of one commit")
    by_name = planned(goals(), [shlex.split(text) for text in options.runs])
    names = list(by_name) if options.all else options.names
    unknown = set(names) - set(by_name)
    if unknown or not names:
        raise SystemExit(f"name benchmarks, or --all; there are: {', '.join(by_name)}")
    stored = results.read(options.file) if options.file.exists() else []
    current = {each: results.has_code_of(each) for each in {each.commit for each in stored}}
    same = [each for each in stored if current[each.commit] and not each.quick]
    if len(same) < len(stored):
        results.write(options.file, same)
    recorded = set() if options.again else {each.benchmark for each in same}
    for folder in (kernel_folder(), kernels.FOLDER):  # else compilers run beside the first runs
        kernels.compile_kernels(folder)
    for name in names:
        if name in recorded:
            print(f"{name}: recorded already at {commit}; --again measures it anew")
            continue
        figures = [
            figure
            for command in by_name[name]
            for figure in _measured(command, options.limit)
            if figure.benchmark == name
        ]
        results.append(options.file, figures, quick=False)
        stored = results.read(options.file)
        keys = {each.key for each in stored if each.benchmark == name and each.value is not None}
        measured = [
            each
            for each in stored
            if each.benchmark != name or each.value is not None or each.key not in keys
        ]
        results.write(options.file, measured)
        keys |= {each.key for each in measured if each.benchmark == name}
        results.append(options.file, missing(name, goals()[name], keys), quick=False)
    last = {each.identity: each for each in results.read(options.file)}
    missed = [each for each in last.values() if each.benchmark in names and not each.met]
    for each in missed:
        state = "not measured" if each.value is None else f"{each.value:.4g}, goal {each.goal:g}"
        print(f"MISSED {each.benchmark} {each.key}: {each.label}: {state}")
    print(f"{len(last) - len(missed)} of {len(last)} figures of {commit} meet their goals")
    return 1 if missed else 0


def planned(
    all_goals: Mapping[str, Mapping[str, float]], given: Sequence[Sequence[str]]
) -> dict[str, list[list[str]]]:
    """Return the runs (benchmark and its options) of each table of goals, those of FIRST first.
    `given`: runs that replace those of the benchmark they name. Raises SystemExit for others."""
    order = [*FIRST, *(name for name in all_goals if name not in FIRST)]
    by_name = {name: [shlex.split(text) for text in RUNS.get(name, (name,))] for name in order}
    for name in {run[0] for run in given}:
        if name not in by_name:
            raise SystemExit(f"--with names no benchmark that has goals: {name}")
        by_name[name] = [list(run) for run in given if run[0] == name]
    return by_name


def missing(name: str, keys: Mapping[str, float], measured: Collection[str]) -> list[Figure]:
    """Return a figure without a value for each goal that the runs gave no figure for."""
    return [
        Figure(name, key, "no figure of this run", None, goal)
        for key, goal in keys.items()
        if key not in measured
    ]


def _measured(run: Sequence[str], limit_s: float) -> list[Figure]:
    """Run a benchmark in a process group of its own; return its figures, none if it failed."""
    _wait_until_quiet()
    begin = time.monotonic()
    name = shlex.join(run)
    print(f"\n=== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.jsonl"
        command = [sys.executable, "-m", "bench", "run", *run, "--json", str(file)]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            print(f"{name}: ended after {limit_s:.0f} s")
        finally:
            _end_group(process)
        print(f"=== {name}: {time.monotonic() - begin:.0f} s", flush=True)
        return [each.figure() for each in results.read(file)] if file.exists() else []


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_TERM_S)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _wait_until_quiet() -> None:
    end = time.monotonic() + QUIET_WAIT_S
    while (busy := psutil.cpu_percent(interval=1.0)) > QUIET_PERCENT:
        if time.monotonic() > end:
            raise SystemExit(
                f"other processes use {busy:.0f} % of this machine (limit {QUIET_PERCENT:.0f} %):"
                " end them; the recording goes on where it stopped"
            )
