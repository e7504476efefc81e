"""The cores and the memory that are really ours: affinity, cgroups, and what is installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of the allocation. `slots`: threads of work it has room for."""

    name: str
    slots: int
    memory_bytes: int


def this_machine() -> Node:
    """This node, as far as this process may use it."""
    return Node(os.uname().nodename, _cores(), _memory_bytes())


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    for folder in _groups():
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit():
            cores = min(cores, max(1, int(words[0]) // int(words[1])))
    return max(1, cores)


def _memory_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for folder in _groups():
        limit = _read(folder / "memory.max").strip()
        if limit.isdigit():
            memory = min(memory, int(limit))
    return memory


def _groups() -> list[Path]:
    """This process's cgroup (version 2) and all above it."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            own = _CGROUP / line[3:].lstrip("/")
            return [own, *(p for p in own.parents if p == _CGROUP or _CGROUP in p.parents)]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
