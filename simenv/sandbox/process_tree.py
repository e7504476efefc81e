"""Ends of processes with all that they have started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_FIRST_PAUSE_S = 1e-3
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


def exit_code(process: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of a child, negative for a signal; None: it runs. The child is not
    waited for, so that its pid stays that of its group, for `kill_tree`."""
    if process.returncode is not None:
        return process.returncode
    try:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # another thread, or `kill_orphans`, has waited for it
        return process.poll()
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def end_tree(process: subprocess.Popen[bytes], patience_s: float, killed_s: float) -> None:
    """Wait until a child has ended, for `patience_s` at most; kill it and all that it has started;
    wait for `killed_s` at most, as one that hangs in the kernel stays. Idempotent."""
    end_s, pause_s = time.monotonic() + patience_s, _FIRST_PAUSE_S
    while exit_code(process) is None and time.monotonic() < end_s:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S)
    if process.returncode is None:
        kill_tree(process.pid)
    with suppress(subprocess.TimeoutExpired):
        process.wait(killed_s)


def kill_tree(pid: int) -> None:
    """Kill the group that a child leads, which has not been waited for but may have ended, and its
    descendants in other groups, as they are now."""
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
