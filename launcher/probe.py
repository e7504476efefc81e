"""Does a launcher really start ranks that see one another? One hello of two ranks says.

Invariant: a probe ends within its timeout, and leaves no process and no file behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.base import Command, Exit, Launcher, LaunchError, Share
from launcher.process.children import exit_words

TIMEOUT_S = 10.0
RANKS = 2
_LOOK_S = 0.005
_LIBRARY_CHARS = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one candidate. `words`: its ranks' MPI library, or why it does not work."""

    launcher: str  # "prte", "mpirun"
    what: str  # "PRTE 3.0.14", "Open MPI 4.1.4"; "" where there is none
    path: str
    works: bool
    words: str
    seconds: float = 0.0


def hello(
    name: str,
    what: str,
    path: str,
    make: Callable[[], Launcher],
    environ: Mapping[str, str],
    folder: Path,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Start two ranks on this node through the launcher `make` makes, and hear what they say."""
    started = time.monotonic()
    log = folder / f"hello-{os.getpid()}.log"
    argv = (sys.executable, "-P", "-m", "launcher.probe_rank")
    share = Share(os.uname().nodename, RANKS)
    command = Command("hello", argv, tuple(environ.items()), log, folder, 1, (share,))
    end: Exit | None = None
    try:
        launcher = make()
        try:
            launcher.start(command)
            end = _wait(launcher, started + timeout_s)
        finally:
            launcher.kill("hello")
            launcher.close()
        text = log.read_text(errors="replace")
    except LaunchError as error:
        return Outcome(name, what, path, False, str(error), time.monotonic() - started)
    finally:
        log.unlink(missing_ok=True)
    works, words = judge(text, end, what, timeout_s)
    return Outcome(name, what, path, works, words, time.monotonic() - started)


def alone(environ: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """The MPI that mpi4py is bound to, without any launcher; else False, and why there is none."""
    argv = (sys.executable, "-P", "-m", "launcher.probe_rank")
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"an MPI process does not start within {timeout_s:g} s"
    text = done.stdout.decode("utf-8", "replace")
    said = [line for line in map(_said, text.splitlines()) if line]
    if said and "library" in said[0]:
        return True, _library(said)
    if said and "error" in said[0]:
        return False, str(said[0]["error"])
    return False, ": ".join(
        (f"an MPI process ended with {exit_words(done.returncode)}", *_first(text))
    )


def _wait(launcher: Launcher, deadline: float) -> Exit | None:
    while time.monotonic() < deadline:
        if ends := launcher.exited():
            return ends[0]
        time.sleep(_LOOK_S)
    return None


def judge(text: str, end: Exit | None, what: str, timeout_s: float) -> tuple[bool, str]:
    """Did all ranks see one another, and in words what they saw. Pure."""
    said = [line for line in map(_said, text.splitlines()) if line]
    errors = [str(line["error"]) for line in said if "error" in line]
    sizes = [line["size"] for line in said if "size" in line]
    if errors:
        return False, errors[0]
    if sizes and all(size == 1 for size in sizes):
        library = _library(said)
        return False, (
            f"its ranks do not see one another: each says it is alone; mpi4py is bound to "
            f"{library}, the launcher is {what}"
        )
    if end is None:
        return False, f"two ranks did not say hello within {timeout_s:g} s"
    if end.code != 0 or sizes != [RANKS] * RANKS:
        return False, ": ".join((f"two ranks ended with {end.words}", *_first(text)))
    return True, _library(said)


def _first(text: str) -> list[str]:
    """The first line that says something: what comes after are consequences."""
    return [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))][:1]


def _library(said: list[dict[str, object]]) -> str:
    """ "Open MPI v5.0.11" of what a library says about itself."""
    full = next(str(line["library"]) for line in said if "library" in line)
    return " ".join(full.partition(",")[0].split())[:_LIBRARY_CHARS]


def _said(line: str) -> dict[str, object]:
    """A line of a rank; {} if it is somebody else's."""
    if not line.startswith("{"):
        return {}
    try:
        values = json.loads(line)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
