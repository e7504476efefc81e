"""This process: its memory, start time, garbage collector, and end; other processes of its user.

A worker ends on request, on errors, and with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import NoReturn

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_TIME = 19  # field of /proc/self/stat, counted from the third (proc(5))
SERVICE_GC = (100_000, 50, 1000)  # thresholds: a service holds millions of objects for long
LAST_S = 3.0  # limit of each exit call; a launcher that ends all workers waits a little longer
_last: list[Callable[[], None]] = []


def resident_bytes() -> int:
    """Resident memory of this process in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:  # not Linux
        import psutil  # imported here: it takes 15 ms

        return int(psutil.Process().memory_info().rss)


def node_load() -> tuple[int, int]:
    """Busy time of all processors of this node since its start in ms, and its memory in use in
    bytes; zeros on systems without /proc."""
    try:
        with open("/proc/stat", encoding="ascii") as stat:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(
                int, stat.readline().split()[1:9]
            )
        memory = {}
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in islice(lines, 3):
                name, value = line.split()[:2]
                memory[name] = int(value)
        used_kib = memory["MemTotal:"] - memory["MemAvailable:"]
    except (OSError, ValueError, KeyError):
        return 0, 0
    ticks = user + nice + system + irq + softirq + steal
    return ticks * 1000 // _TICKS_PER_S, used_kib << 10


def age_s() -> float:
    """Seconds since the start of this process, with the start of Python."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(start_ticks() or 0) / _TICKS_PER_S


def start_ticks() -> str:
    """Start time of this process in clock ticks since boot; "" on systems without /proc."""
    try:
        return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[START_TIME]
    except OSError:
        return ""


def runs(pid: int, fragment: bytes, *, ending: bool = False, start_ticks: str = "") -> bool:
    """Return whether `pid` is a process of this user with `fragment` in its command line.

    Processes of other users count as ended, and so do all processes if permission is missing.
    `start_ticks`: start time of the process, if known, because another process may get the same
    pid. `ending`: also count a process that is exiting and has no command line any more.
    """
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return False  # root may signal everybody
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return not Path("/proc/self").exists()
    if start_ticks and fields[START_TIME] != start_ticks:
        return False
    return fields[0] not in ("Z", "X") and (fragment in line or (ending and not line))


def find_processes(*fragments: bytes) -> list[int]:
    """Return the pids of the processes of this user that have all fragments in their command
    line; [] on systems without /proc."""
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if all(runs(pid, fragment) for fragment in fragments)]


def release_memory() -> int:
    """Collect garbage and give free pages back to the system. Returns the resident bytes."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def freeze_gc(thresholds: tuple[int, int, int] | None = None) -> None:
    """Enable the garbage collector for objects that are created from now on; it skips existing
    objects. `thresholds`: of its generations, see `gc.set_threshold`."""
    gc.collect()
    gc.freeze()
    gc.enable()
    if thresholds is not None:
        gc.set_threshold(*thresholds)


def exit_process(code: int, reason: str) -> NoReturn:
    """End the process now, after a last line in its log and the calls of `on_exit`. For
    workers: all their state is stored elsewhere, so they may end at any time."""
    log_line(f"leaving: {reason}")
    for call in _last:
        thread = threading.Thread(target=call, name="leaving", daemon=True)
        thread.start()
        thread.join(LAST_S)
    os._exit(code)


def on_exit(call: Callable[[], None]) -> None:
    """Register `call` to run before this process ends itself, and on SIGTERM. It has LAST_S, and
    does not wait for the main thread."""
    _last.append(call)
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """End the process from a separate thread: the main thread may be in a call of a provider."""
    args = (128 + number, f"signal {number}")
    threading.Thread(target=exit_process, args=args, name="leave", daemon=True).start()


def log_line(line: str) -> None:
    """Write a line to stderr, the log of a worker."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def import_also_from(folders: str) -> None:
    """Search modules in these folders too, written as in PYTHONPATH. They come after all installed
    packages, so that no file of a user replaces a module of ours."""
    sys.path += [folder for folder in folders.split(os.pathsep) if folder not in ("", *sys.path)]
