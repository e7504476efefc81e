"""What a service has started on this machine, directly or not, and whether it is gone.

Invariant: a process is known by its pid and the moment it began, so that another one with the same
pid is never waited for and never killed. Where there is no /proc, nothing is known.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOOK_S = 0.01


class Process(NamedTuple):
    """One that runs, or ran."""

    pid: int
    began: str  # in clock ticks since the machine was started


def below(pid: int) -> set[Process]:
    """All descendants of a process, as they are now: workers, daemons, helpers."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        words = _words(int(entry.name))
        if words:
            children.setdefault(int(words[1]), []).append(Process(int(entry.name), words[19]))
    found: set[Process] = set()
    open_pids = [pid]
    while open_pids:
        for child in children.get(open_pids.pop(), ()):
            if child not in found:
                found.add(child)
                open_pids.append(child.pid)
    return found


def left(processes: Collection[Process], timeout_s: float) -> list[Process]:
    """Those that still run after so long."""
    deadline = time.monotonic() + timeout_s
    while running := [each for each in processes if _runs(each)]:
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK_S)
    return running


def kill(processes: Collection[Process]) -> None:
    """At once."""
    for each in processes:
        if _runs(each):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each.pid, signal.SIGKILL)


def _runs(process: Process) -> bool:
    words = _words(process.pid)
    return bool(words) and words[19] == process.began and words[0] not in ("Z", "X")


def _words(pid: int) -> list[str]:
    """/proc/PID/stat from the third field on (proc(5)); [] if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
