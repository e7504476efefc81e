"""Memory of a process and of all that it has started, as the kernel counts it (proc(5)).

Pages that several processes share are counted once, by their parts (PSS). Files in memory may be
mapped by no process: they are counted by their open descriptors, as are the buffers of sockets and
pipes, of which the kernel tells no size.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from simenv.sandbox.process_tree import descendants

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEMFD = "/memfd:"  # how links to descriptors of files in memory begin
_BUFFERED = ("socket:[", "pipe:[")
BUFFER_BYTES = 2**18  # of a socket or pipe: above what either holds unless it asks for more


class TreeMemory(NamedTuple):
    """Memory of a tree of processes, and their number."""

    used_bytes: int
    processes: int


def tree_memory(pid: int, enough_bytes: int = 0) -> TreeMemory:
    """Measure `pid` and its descendants. Up to `enough_bytes` a larger sum that is measured faster
    suffices, in which shared pages count once for each process."""
    pids = [pid, *descendants(pid)]
    opened = _open_bytes(pids)
    resident = sum(map(_resident_bytes, pids)) + opened
    if resident > enough_bytes:
        resident = sum(map(_proportional_bytes, pids)) + opened
    return TreeMemory(resident, len(pids))


def _resident_bytes(pid: int) -> int:
    with suppress(OSError, ValueError), open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
    return 0  # it has ended


def _proportional_bytes(pid: int) -> int:
    """Return the PSS of a process with what of it is swapped out; its resident memory if this
    process may not read that."""
    sizes: dict[str, int] = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                name, _, value = line.partition(":")
                if value.endswith("kB\n"):
                    sizes[name] = int(value.split()[0]) << 10
    except (OSError, ValueError):
        return _resident_bytes(pid)
    return sizes.get("Pss", 0) + sizes.get("SwapPss", 0)


def _open_bytes(pids: list[int]) -> int:
    """Return the bytes of all files in memory, sockets and pipes that these processes have open.
    What of files is mapped counts twice: which part that is the kernel does not tell quickly."""
    found: dict[tuple[int, int], int] = {}
    buffered: set[str] = set()
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
            for each in descriptors:
                with suppress(OSError):
                    link = os.readlink(each.path)
                    if link.startswith(_BUFFERED):
                        buffered.add(link)
                    elif link.startswith(_MEMFD):
                        info = each.stat()
                        found[info.st_dev, info.st_ino] = 512 * info.st_blocks
    return sum(found.values()) + BUFFER_BYTES * len(buffered)
