"""Memory of a process and of all that it has started, as the kernel counts it (proc(5)).

Pages that several processes share are counted once, by their parts (PSS). Files in memory may be
mapped by no process: they are counted by their open descriptors, as are the buffers of sockets and
pipes, of which the kernel tells no size. Pages of shared anonymous memory that no process has in
its page tables are not seen: confined functions can make none (`simenv.sandbox.restricted_calls`).

To read the PSS of a process takes a millisecond, and more for a large one. The time of a tree is
bounded: of many processes the largest are measured, and a sample of the others stands for them.
"""

from __future__ import annotations

import os
import random
import re
import sys
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from simenv.sandbox.process_tree import descendants

MOST_PROCESSES = 8_192  # of a tree of which more than these are not looked at
LARGEST, SAMPLE = 64, 128  # processes whose PSS is read: with the most memory, of the others
CERTAIN = 2  # times `enough_bytes`: how much more there is does not matter
_RESIDENT = re.compile(r"^Vm(?:RSS|Swap):\s+(\d+) kB$", re.MULTILINE)
_MEMFD = "/memfd:"  # how links to descriptors of files in memory begin
_BUFFERED = ("socket:[", "pipe:[")
BUFFER_BYTES = 2**18  # of a socket or pipe: above what either holds unless it asks for more


class TreeMemory(NamedTuple):
    """Memory of a tree of processes, and their number."""

    used_bytes: int
    processes: int


def tree_memory(pid: int, enough_bytes: int = 0) -> TreeMemory:
    """Measure `pid` and its descendants. Up to `enough_bytes` a larger sum that is measured faster
    suffices, in which shared pages count once for each process; so does a part of the sum that is
    above CERTAIN times as many bytes."""
    pids = [pid, *descendants(pid, MOST_PROCESSES)]
    resident = {each: _resident_bytes(each) for each in pids}
    opened, used = _open_bytes(pids), sum(resident.values())
    if opened + used > enough_bytes:
        enough = CERTAIN * enough_bytes - opened if enough_bytes else sys.maxsize
        used = _proportional_sum(resident, enough)
    return TreeMemory(opened + used, len(pids))


def _proportional_sum(resident: dict[int, int], enough_bytes: int) -> int:
    """Return the sum of the PSS of processes, of which the resident memory is known, or a part of
    it above `enough_bytes`."""
    by_size = sorted(resident, key=resident.__getitem__, reverse=True)
    result = 0
    for pid in islice(by_size, LARGEST):
        result += _proportional_bytes(pid)
        if result > enough_bytes:
            return result
    rest = by_size[LARGEST:]
    sample = random.sample(rest, min(SAMPLE, len(rest)))
    sampled = sum(map(_proportional_bytes, sample))
    part = sum(resident[pid] for pid in sample) / max(1, sum(resident[pid] for pid in rest))
    return result + round(sampled / part if part else sampled)


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process with what of it is swapped out; 0: it has ended."""
    with suppress(OSError), open(f"/proc/{pid}/status") as file:
        return sum(int(number) << 10 for number in _RESIDENT.findall(file.read()))
    return 0


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
