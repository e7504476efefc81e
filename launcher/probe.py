"""Probes of launchers, and the cache of their results."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec

from launcher.base import Command, Exit, Launcher, LaunchError, Share
from launcher.process import children
from simenv.sandbox.process_tree import describe_exit
from simenv.sandbox.progress import ProgressDeadline

# Probe of a launcher: two ranks are started through it and must see one another.
#
# Invariant: a probe ends within its timeout, and leaves no process and no file.

TIMEOUT_S = 10.0
RANKS = 2
_POLL_S = 0.005
_LIBRARY_CHARS = 120


class ProbeResult(msgspec.Struct, frozen=True):
    """Result for one candidate. The encoded names are those of format 1 of the probe cache."""

    launcher: str  # "prte", "mpirun"
    version: str = msgspec.field(name="what")  # "PRTE 3.0.14", "Open MPI 4.1.4"; "": not installed
    path: str
    works: bool
    detail: str = msgspec.field(name="words")  # its ranks' MPI library, or why it fails
    seconds: float = 0.0


def probe_launcher(
    launcher_name: str,
    version: str,
    path: str,
    create: Callable[[], Launcher],
    environ: Mapping[str, str],
    folder: Path,
    timeout_s: float = TIMEOUT_S,
) -> ProbeResult:
    """Start two ranks on this node through the launcher of `create`, and evaluate their output."""
    started = time.monotonic()
    log = folder / f"probe-{os.getpid()}.log"
    argv = (sys.executable, "-P", "-m", "launcher.probe_rank")
    share = Share(os.uname().nodename, RANKS)
    command = Command("probe", argv, tuple(environ.items()), log, folder, 1, (share,))
    end: Exit | None = None
    try:
        launcher = create()
        try:
            launcher.start(command)
            end = _wait(launcher, timeout_s)
        finally:
            launcher.kill("probe")
            launcher.close()
        text = log.read_text(errors="replace")
    except LaunchError as error:
        elapsed_s = time.monotonic() - started
        return ProbeResult(launcher_name, version, path, False, str(error), elapsed_s)
    finally:
        log.unlink(missing_ok=True)
    works, detail = evaluate(text, end, version, timeout_s)
    return ProbeResult(launcher_name, version, path, works, detail, time.monotonic() - started)


def probe_single_rank(environ: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Start one MPI process without any launcher. Return (True, the MPI library to which mpi4py is
    bound) or (False, the reason why there is none)."""
    argv = (sys.executable, "-P", "-m", "launcher.probe_rank")
    try:
        code, text = children.run(argv, environ, timeout_s)
    except subprocess.TimeoutExpired:
        return False, f"an MPI process does not start within {timeout_s:g} s"
    reports = [report for report in map(_parse_report, text.splitlines()) if report]
    if reports and "library" in reports[0]:
        return True, _library(reports)
    if reports and "error" in reports[0]:
        return False, str(reports[0]["error"])
    return False, ": ".join(
        (f"an MPI process ended with {describe_exit(code)}", *_first_line(text))
    )


def _wait(launcher: Launcher, timeout_s: float) -> Exit | None:
    deadline = ProgressDeadline(timeout_s)
    while not deadline.is_over:
        if exits := launcher.poll_exits():
            return exits[0]
        time.sleep(_POLL_S)  # a launcher is only polled
    return None


def evaluate(text: str, end: Exit | None, version: str, timeout_s: float) -> tuple[bool, str]:
    """Decide from the ranks' output whether they saw one another, and return the detail. Pure."""
    reports = [report for report in map(_parse_report, text.splitlines()) if report]
    errors = [str(report["error"]) for report in reports if "error" in report]
    sizes = [report["size"] for report in reports if "size" in report]
    if errors:
        return False, errors[0]
    if sizes and all(size == 1 for size in sizes):
        library = _library(reports)
        return False, (
            f"its ranks do not see one another: COMM_WORLD has size 1 in each; mpi4py is bound to "
            f"{library}, the launcher is {version}"
        )
    if end is None:
        return False, f"two ranks did not report within {timeout_s:g} s"
    if end.code != 0 or sizes != [RANKS] * RANKS:
        return False, ": ".join((f"two ranks ended with {end.reason}", *_first_line(text)))
    return True, _library(reports)


def _first_line(text: str) -> list[str]:
    """Return the first line with letters or digits: later lines are consequences of it."""
    return [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))][:1]


def _library(reports: list[dict[str, object]]) -> str:
    """Shorten a library's version line, to "Open MPI v5.0.11" for example."""
    full = next(str(report["library"]) for report in reports if "library" in report)
    return " ".join(full.partition(",")[0].split())[:_LIBRARY_CHARS]


def _parse_report(line: str) -> dict[str, object]:
    """Parse a line of a rank; {} if another program printed it."""
    if not line.startswith("{"):
        return {}
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


# Cache of probe results in a file, so that a start need not probe again.
#
# Only successful results are stored: a failure may be temporary and is probed again. An entry is
# valid for one program in its present state, on one node, under one environment. If the file cannot
# be read or written, everything is probed.

FORMAT = 1
MAX_ENTRIES = 64
# Prefixes of variables that decide which MPI is used and how it behaves.
MPI_VARIABLES = ("MPI4PY_", "OMPI_", "OPAL_", "PRTE_", "PMIX_", "MPICH_", "I_MPI_", "FI_", "UCX_")
LOADER_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD")


class _Entry(msgspec.Struct, frozen=True):
    key: str
    result: ProbeResult = msgspec.field(name="outcome")


class _File(msgspec.Struct, frozen=True):
    format: int
    entries: tuple[_Entry, ...]


class ProbeCache:
    """Cache file, read once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: tuple[_Entry, ...] = ()
        with suppress(OSError, msgspec.MsgspecError):
            read = msgspec.json.decode(file.read_bytes(), type=_File)
            if read.format == FORMAT:
                self._entries = read.entries

    def get(self, key: str) -> ProbeResult | None:
        return next((entry.result for entry in self._entries if entry.key == key), None)

    def add(self, key: str, result: ProbeResult) -> None:
        others = [entry for entry in self._entries if entry.key != key]
        self._entries = (*others[1 - MAX_ENTRIES :], _Entry(key, result))
        with suppress(OSError):
            self._write(msgspec.json.format(msgspec.json.encode(_File(FORMAT, self._entries))))

    def _write(self, text: bytes) -> None:
        """Replace the file atomically: several environments may start at once."""
        descriptor, name = tempfile.mkstemp(prefix=self._file.name, dir=self._file.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(text)
            Path(name).replace(self._file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def cache_key(path: str, environ: Mapping[str, str]) -> str:
    """Return a digest of a program's present state, of this node and of the variables of MPI."""
    try:
        info = Path(path).stat()
        state = f"{info.st_mtime_ns} {info.st_size}"
    except OSError:
        state = "gone"
    variables = sorted(
        f"{name}={value}"
        for name, value in environ.items()
        if name.startswith(MPI_VARIABLES) or name in LOADER_VARIABLES
    )
    facts = (
        *(path, state, sys.version, sys.prefix, mpi4py_version(), os.uname().nodename),
        *("in a Slurm job" if "SLURM_JOB_ID" in environ else "", *variables),
    )
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest()


def mpi4py_version() -> str:
    """Return the version of mpi4py; "" if it is not installed, "?" if it is not installed as a
    wheel.

    It is read without the import of mpi4py or of `importlib.metadata`, which would take 10 ms.
    """
    spec = find_spec("mpi4py")
    if spec is None or spec.origin is None:
        return ""
    installed = Path(spec.origin).parents[1].glob("mpi4py-*.dist-info")
    return next((path.stem.removeprefix("mpi4py-") for path in installed), "?")
