"""The command `python -m bench record`: all goals, measured at one commit, in one result file.

Each benchmark runs in a process of its own, one after the other, when the machine is quiet. Its
figures then replace those of other code (packages, benchmarks) that the file has of it; figures of
benchmarks that are not named, or that cannot run here, stay with the commit they were measured at.
A goal for which a run gives no figure is stored as not measured, so that no older figure stands in
its place. A recording that was interrupted goes on where it stopped. At its end it names what
missed its goal, and what was not measured and why; either gives the exit status 1.

A run is ended after the limit of its benchmark. One that needs options runs with `--with`:
  python -m bench record --all --with 'qfw_host --qfw FOLDER --defw FOLDER'
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.figures import STORED
from bench.harness import kernels, results
from bench.harness.report import Figure, goals
from simenv.config.paths import kernel_folder

# Runs of a table of goals, where they are not one run of the benchmark with that name.
RUNS: dict[str, tuple[str, ...]] = {
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
LIMIT_S = 1_800.0  # of one run, unless LIMITS_S has another
LIMITS_S = {
    "soak": 10_800.0,  # its load takes two hours
    **dict.fromkeys(("wide", "noise_speed", "fair_share", "failover"), 7_200.0),
    **dict.fromkeys(("tensornetwork", "native_basis", "pauli_propagation"), 5_400.0),
    **dict.fromkeys(("noise_calibration", "transpile", "job_pool"), 3_600.0),
    **dict.fromkeys(("stalls", "identity_renewal"), 5_400.0),
    **dict.fromkeys(("wait_forecasts", "observables"), 3_600.0),
}
_TERM_S = 10.0


def _gpu() -> str:
    from simulators.gpu.devices.detect import find_gpu, refusal

    reason = refusal(find_gpu())
    return reason[0] if reason is not None else ""


def _noise_data() -> str:
    from bench.measured_sets import DATA

    if (DATA / "splits.json").is_file():
        return ""
    return "no data; name their folder, such as --with 'emulators --data FOLDER'"


# By benchmark: the reason for which its own runs cannot measure here, "" if they can.
UNAVAILABLE: dict[str, Callable[[], str]] = {
    "gpu": _gpu,
    "emulators": _noise_data,
    "noise_calibration": _noise_data,
    "qfw_host": lambda: "name the host: --with 'qfw_host --qfw FOLDER --defw FOLDER'",
}


def add_to(parser: ArgumentParser) -> None:
    parser.description, parser.formatter_class = __doc__, RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks")
    parser.add_argument("--all", action="store_true", help="every benchmark that has goals")
    parser.add_argument("--file", type=Path, default=STORED, help="default: %(default)s")
    text = "run instead of the benchmark's own: 'NAME OPTION ...'; may be repeated"
    more = {"action": "append", "default": [], "dest": "runs", "metavar": "RUN", "help": text}
    parser.add_argument("--with", **more)
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    text = f"seconds of each run; default: {LIMIT_S:g}, more for long ones"
    parser.add_argument("--limit", type=float, help=text)


def record(options: Namespace) -> int:
    """Measure the benchmarks named by `options`; return 1 if a goal is missed or not measured."""
    commit = results.commit()
    if not commit or commit.endswith("+"):
        raise SystemExit("commit the changes first: a recording is of one commit")
    given = [shlex.split(text) for text in options.runs]
    by_name = planned(goals(), given)
    names = list(by_name) if options.all else options.names
    unknown = set(names) - set(by_name)
    if unknown or not names:
        raise SystemExit(f"name benchmarks, or --all; there are: {', '.join(by_name)}")
    stored = _read(options.file)
    commits = {each.commit for each in stored}
    other_code = {each for each in commits if not results.has_code_of(each)}
    same = [each for each in stored if each.commit not in other_code and not each.quick]
    recorded = set() if options.again else {each.benchmark for each in same}
    for folder in (kernel_folder(), kernels.FOLDER):  # else compilers run beside the first runs
        kernels.compile_kernels(folder)
    left_out: dict[str, str] = {}
    with_options = {run[0] for run in given}
    for name in names:
        if name in recorded:
            print(f"{name}: recorded already at {commit}; --again measures it anew")
        elif name not in with_options and (why := UNAVAILABLE.get(name, str)()):
            left_out[name] = why
        else:
            figures = _figures(name, by_name[name], options.limit)
            before = [each for each in same if each.benchmark == name]
            others = [each for each in _read(options.file) if each.benchmark != name]
            keys = {each.key for each in (*figures, *before) if each.value is not None}
            before = [each for each in before if each.value is not None or each.key not in keys]
            figures = [each for each in figures if each.value is not None or each.key not in keys]
            results.write(options.file, (*others, *before))
            results.append(options.file, figures, quick=False)
    judged = [each for each in _read(options.file) if each.benchmark in {*names} - {*left_out}
              and each.commit not in other_code and not each.quick]  # fmt: skip
    older = {name: sorted({each.commit for each in stored if each.benchmark == name})
             for name in left_out}  # fmt: skip
    return _summarize(judged, left_out, older)


def _figures(name: str, runs: Sequence[Sequence[str]], limit_s: float | None) -> list[Figure]:
    """Run a benchmark; return at least one figure for each of its goals. `limit_s`: of a run; None:
    that of the benchmark."""
    figures: list[Figure] = []
    failures = []
    keys = goals()[name]
    for run in runs:
        measured, failure = _measured(run, limit_s or LIMITS_S.get(run[0], LIMIT_S))
        own = [each for each in measured if each.benchmark == name]
        figures += [each for each in own if each.key in keys]
        # A part that failed as a whole names no goal.
        failures += [f"{each.label}: {each.reason}" for each in own if not each.key]
        failures += [failure] if failure else []
    reason = "; ".join(failures) or "the run gave no figure for it"
    none = [Figure(name, key, "no figure of this run", None, keys[key], reason=reason)
            for key in keys.keys() - {each.key for each in figures}]  # fmt: skip
    return [*figures, *none]


def _read(file: Path) -> list[results.Result]:
    return results.read(file) if file.exists() else []


def _summarize(
    judged: Sequence[results.Result], left_out: Mapping[str, str], older: Mapping[str, list[str]]
) -> int:
    """Print what missed its goal, and what was not measured and why. `left_out`: reasons by
    benchmark; `older`: commits of its older figures. Return 1 if there is anything of either."""
    last = {each.identity: each for each in judged}
    missed = [each for each in last.values() if not each.met and each.value is not None]
    unmeasured = [each for each in last.values() if each.value is None]
    for each in missed:
        value = f"{each.value:.4g}, goal {each.goal:g}"
        print(f"MISSED {each.benchmark} {each.key}: {each.label}: {value}")
    for each in unmeasured:
        print(f"NOT MEASURED {each.benchmark} {each.key}: {each.label}: {each.reason}")
    for name, why in left_out.items():
        stay = f"; older figures stay, of {', '.join(older[name])}" if older[name] else ""
        print(f"NOT MEASURED {name}, all {len(goals()[name])} goals: {why}{stay}")
    met = len(last) - len(missed) - len(unmeasured)
    count = len(unmeasured) + sum(len(goals()[name]) for name in left_out)
    print(f"{met} figures meet their goals, {len(missed)} miss them, {count} were not measured")
    return 1 if missed or count else 0


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


def _measured(run: Sequence[str], limit_s: float) -> tuple[list[Figure], str]:
    """Run a benchmark in a process group of its own. Return its figures, and the last line of its
    errors or its limit if it failed; "" if it did not. A run that is ended keeps its figures."""
    _wait_until_quiet()
    begin = time.monotonic()
    name = shlex.join(run)
    print(f"\n=== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file, errors = Path(folder) / "figures.jsonl", Path(folder) / "errors"
        command = [sys.executable, "-m", "bench", "run", *run, "--json", str(file)]
        with errors.open("wb") as stream:
            process = subprocess.Popen(command, start_new_session=True, stderr=stream)
        failure = ""
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            failure = f"{name} was ended after its limit of {limit_s:g} s"
        else:
            text = errors.read_text(errors="replace").strip()
            if status:  # 1 also stands for a missed goal
                failure = f"{name}: {text.splitlines()[-1]}" if text else ""
        finally:
            _end_group(process)
        sys.stderr.write(errors.read_text(errors="replace"))
        print(f"=== {name}: {time.monotonic() - begin:.0f} s", flush=True)
        return [each.figure() for each in _read(file)], failure


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_TERM_S)


def _wait_until_quiet() -> None:
    end = time.monotonic() + QUIET_WAIT_S
    while (busy := psutil.cpu_percent(interval=1.0)) > QUIET_PERCENT:
        if time.monotonic() > end:
            share = f"{busy:.0f} % of this machine (limit {QUIET_PERCENT:.0f} %)"
            text = "end them; the recording goes on where it stopped"
            raise SystemExit(f"other processes use {share}: {text}")
