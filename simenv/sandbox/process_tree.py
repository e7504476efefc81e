"""Ends of processes with all that they have started."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MOST_LEVELS = 32  # between a worker and its launcher
_FIRST_PAUSE_S = 1e-3
_PASSES, _PAUSE_S = 20, 0.05  # over descendants, which may start others meanwhile
_started: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
_lock = threading.Lock()  # of `_started`


def children(pid: int) -> list[int]:
    """Return the pids of the children of all threads of `pid`; [] if /proc has no such lists."""
    pids: list[int] = []
    with suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as listed:
                pids += map(int, listed.read().split())
    return pids


def threads(pid: int) -> int:
    """Return the number of threads of a process; 0 if it has ended."""
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


def descendants(pid: int, most: int = sys.maxsize) -> list[int]:
    """Return the pids of all descendants of `pid`, nearest first, and no further ones beyond
    `most`; [] if /proc has no lists of children."""
    return _with_descendants([pid], most)[1:]


def is_within(pid: int, root: int) -> bool:
    """Return whether a process is `root` or one of its descendants."""
    for _ in range(_MOST_LEVELS):
        if pid == root:
            return True
        try:
            with open(f"/proc/{pid}/stat") as file:
                status = file.read()
        except OSError:
            return False
        pid = int(status.rpartition(")")[2].split()[1])
        if pid <= 1:
            return False
    return False


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


def describe_exit(code: int) -> str:
    """Describe an exit code: 'exit 1', 'signal 9 (SIGKILL)'."""
    if code >= 0:
        return f"exit {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


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
    """Kill a child, which has not been waited for but may have ended, the group that it leads, if
    it does, and its descendants in other groups, as they are now."""
    below = descendants(pid)
    _signal_all([pid], signal.SIGKILL)
    with suppress(OSError):  # it leads none
        os.killpg(pid, signal.SIGKILL)
    _signal_all(below, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent has ended (prctl(2), PR_SET_CHILD_SUBREAPER),
    for `kill_orphans`."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def register(process: subprocess.Popen[bytes]) -> None:
    """Note a child that this process has started and waits for: it is not `adopted`."""
    with _lock:
        _started.add(process)


def adopted() -> list[int]:
    """Return the children of this process that nothing has registered: orphans of others that it
    has adopted, ended ones included, and children that are being started."""
    found = children(os.getpid())
    with _lock:
        own = {process.pid for process in _started}
    return [pid for pid in found if pid not in own]


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, and its parent has not waited for it."""
    with suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in "ZX"
    return False


def reap(pid: int) -> None:
    """Wait for a child that has ended; without effect for any other."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill_orphans(keep: Collection[int] = ()) -> bool:
    """Kill and reap all descendants of this process, but for the children `keep` and theirs; return
    whether none is left."""

    def find() -> list[int]:
        return [pid for pid in children(os.getpid()) if pid not in keep]

    pause_s = _FIRST_PAUSE_S
    for _ in range(_PASSES):
        # Twice: a process whose parent ends between two reads of /proc is in neither.
        if not kill_children(find) and not kill_children(find):
            return True
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_S)
    return False


def kill_children(find: Callable[[], Iterable[int]]) -> bool:
    """Kill the children of this process that `find` returns, and all below them; reap those that
    have ended, and return whether there were any. All are stopped before one is killed, so that
    those which start others come to an end at the limit of processes."""
    below: set[int] = set()
    for _ in range(_PASSES):
        found = {pid for pid in _with_descendants(find()) if pid not in below}
        _signal_all(found, signal.SIGSTOP)
        below |= found
        if not found:
            break
    _signal_all(below, signal.SIGKILL)
    for pid in below:
        reap(pid)
    return bool(below)


def _with_descendants(roots: Iterable[int], most: int = sys.maxsize) -> list[int]:
    pids = list(roots)
    for parent in pids:
        pids += children(parent)
        if len(pids) > most:
            break
    return pids


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)
