"""Result files: one JSON line for each figure, with its commit and machine."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from bench.harness.report import ROOT, Figure

FORMAT = 1
_CODE = ("simenv", "simulators", "launcher", "noise_models", "bench", "testbed", "requirements")


class Result(msgspec.Struct, frozen=True):
    """One line of a result file."""

    format: int
    benchmark: str
    key: str
    label: str
    value: float | None
    goal: float
    at_least: bool
    met: bool
    quick: bool
    commit: str
    machine: str
    cores: int
    load: float  # load average of the last minute, read after the benchmark
    time_s: float  # Unix time
    # Of the random inputs; None: they are fixed, or were measured before it was kept.
    seed: int | None = None
    reason: str = ""  # for which it was not measured; "" in files of before

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.benchmark, self.key, self.label

    def figure(self) -> Figure:
        """Return the figure without its machine and commit."""
        return Figure(**{name: getattr(self, name) for name in Figure.__struct_fields__})


def append(file: Path, figures: Iterable[Figure], *, quick: bool) -> None:
    """Append figures to a result file."""
    where = {"commit": commit(), "machine": _machine(), "cores": os.cpu_count() or 1}
    with file.open("ab") as out:
        for figure in figures:
            when = {"quick": quick, "load": os.getloadavg()[0], "time_s": time.time(), **where}
            own = msgspec.structs.asdict(figure)
            result = Result(format=FORMAT, met=figure.met, **own, **when)
            out.write(msgspec.json.encode(result) + b"\n")


def write(file: Path, results: Iterable[Result]) -> None:
    """Replace a result file."""
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(b"".join(msgspec.json.encode(result) + b"\n" for result in results))
    new.replace(file)


def read(file: Path) -> list[Result]:
    """Read a result file. Raises SystemExit with a message if the file is not a result file."""
    try:
        lines = file.read_bytes().splitlines()
        results = [msgspec.json.decode(line, type=Result) for line in lines if line]
    except (OSError, msgspec.MsgspecError) as error:
        raise SystemExit(f"{file} is no result file of `bench run --json`: {error}") from error
    unknown = {result.format for result in results} - {FORMAT}
    if unknown:
        raise SystemExit(f"{file} has format {unknown.pop()}; this version reads {FORMAT}")
    return results


def compare(before: list[Result], after: list[Result]) -> list[str]:
    """Return a table of the figures that both files have, as lines; of each figure the newest."""
    old = {result.identity: result for result in before}
    new = {result.identity: result for result in after}
    lines = [f"{'before':>12} {'after':>12} {'ratio':>7}  figure"]
    for identity, result in new.items():
        earlier = old.get(identity)
        if earlier is None or earlier.value is None or result.value is None:
            continue
        ratio = f"{result.value / earlier.value:7.3f}" if earlier.value else "      -"
        name = f"{result.benchmark}: {result.label}"
        lines.append(f"{earlier.value:12.4g} {result.value:12.4g} {ratio}  {name}")
    only_one = len(old.keys() ^ new.keys())
    if only_one:
        lines.append(f"{only_one} figures are in one of the files only")
    return lines


def commit() -> str:
    """Return the abbreviated commit of this checkout, with "+" for uncommitted changes of code."""
    revision = _git("rev-parse", "--short=8", "HEAD")
    changes = _git("diff", "--name-only", "HEAD", "--", ".", ":(exclude)docs", ":(exclude)*.md")
    return f"{revision}+" if changes else revision


def has_code_of(revision: str) -> bool:
    """Return whether this checkout has the packages and benchmarks of a commit."""
    command = ["git", "diff", "--quiet", revision, "HEAD", "--", *_CODE]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def _git(*arguments: str) -> str:
    """Return what git prints, without its line end; nothing where this is no checkout."""
    with suppress(OSError):
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()
    return ""


def _machine() -> str:
    """Return the models of the CPU and of the GPUs, from /proc; of a CPU without one, the
    architecture."""

    def models(path: Path, name: str) -> list[str]:
        lines = path.read_text().splitlines() if path.exists() else ()
        return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]

    cpu = models(Path("/proc/cpuinfo"), "model name") or [platform.machine()]
    paths = Path("/proc/driver/nvidia/gpus").glob("*/information")
    return ", ".join([cpu[0], *sorted({name for path in paths for name in models(path, "Model:")})])
