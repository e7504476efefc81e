"""The cores and the memory of this machine that are really ours: affinity, cgroups, what is there.

Both versions of cgroups are read, this process's own group and all above it.
"""

from __future__ import annotations

import os
from pathlib import Path

from launcher.allocation.hostlist import LOOPBACK, same_host
from launcher.base import Node

_CGROUP = Path("/sys/fs/cgroup")


def this_machine() -> Node:
    """This node, as far as this process may use it."""
    return Node(os.uname().nodename, _cores(), _memory_bytes())


def is_here(name: str) -> bool:
    """Is that a name of this machine?"""
    return name in LOOPBACK or same_host(name, os.uname().nodename)


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    for folder in _groups(""):
        words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit():
            cores = min(cores, int(words[0]) // int(words[1]))
    for folder in _groups("cpu"):
        quota, period = (_number(folder / f"cpu.cfs_{word}_us") for word in ("quota", "period"))
        if quota and period:
            cores = min(cores, quota // period)
    return max(1, cores)


def _memory_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_number(folder / "memory.max") for folder in _groups("")]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in _groups("memory")]
    return min([memory, *(limit for limit in limits if limit)])


def _groups(controller: str) -> list[Path]:
    """This process's cgroup and all above it; `controller`: of version 1, "" for version 2."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, own = line.split(":", 2)
        if controller in names.split(","):
            # A container may see its own group as the root, and still be told the host's path.
            root = _CGROUP / names if controller else _CGROUP
            if controller and not root.is_dir():
                root = _CGROUP / controller
            path = root / own.lstrip("/")
            return [path, *(p for p in path.parents if p == root or root in p.parents)]
    return []


def _number(path: Path) -> int:
    """What the file says, 0 where it is not a positive number: "max", -1, no such file."""
    word = _read(path).strip()
    return int(word) if word.isdigit() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
