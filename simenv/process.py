"""Memory, start time and garbage collector of this process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_START_TIME = 19  # field of /proc/self/stat, counted from the third (proc(5))


def resident_bytes() -> int:
    """Resident memory of this process in bytes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:  # not Linux
        import psutil  # imported here: it takes 15 ms

        return int(psutil.Process().memory_info().rss)


def start_ticks() -> str:
    """Start time of this process in clock ticks since boot; "" on systems without /proc."""
    try:
        return Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_START_TIME]
    except OSError:
        return ""


def release_memory() -> int:
    """Collect garbage and give free pages back to the system. Returns the resident bytes."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def freeze_gc() -> None:
    """Enable the garbage collector for objects that are created from now on; it skips existing
    objects."""
    gc.collect()
    gc.freeze()
    gc.enable()
