"""Ends of processes with all that they have started."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PASSES, _PAUSE_S = 20, 0.05  # over descendants, which may start others meanwhile


def descendants(pid: int) -> list[int]:
    """Return the pids of all descendants of `pid`, nearest first; [] if /proc has no lists of
    children."""
    pids = [pid]
    for parent in pids:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                pids += [int(child) for child in children.read_text().split()]
    return pids[1:]


def kill_tree(pid: int) -> None:
    """Kill the group that a child leads and has not been waited for, and its descendants in other
    groups, as they are now."""
    below = descendants(pid)
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    _kill_all(below)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended (prctl(2), PR_SET_CHILD_SUBREAPER),
    for `kill_orphans`."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_orphans() -> None:
    """Kill and reap all descendants of this process, which has no children that it needs."""
    for _ in range(_PASSES):
        below = descendants(os.getpid())
        _kill_all(below)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not below:
            return
        time.sleep(_PAUSE_S)


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
