"""Cores and memory that this process may use on this machine: CPU affinity and cgroup limits.

Both versions of cgroups are read, this process's own group and all its ancestors.
"""

from __future__ import annotations

import os
from pathlib import Path

from launcher.allocation.gpus import local_gpus
from launcher.allocation.hostlist import LOOPBACK, same_host
from launcher.base import Node

_CGROUP = Path("/sys/fs/cgroup")


def this_node() -> Node:
    """Return this machine as a node, with the cores, memory and GPUs this process may use."""
    gpus = local_gpus(os.environ)
    name = os.uname().nodename
    return Node(name, _cores(), memory_bytes(), len(gpus), gpu_details=gpus)


def is_this_node(name: str) -> bool:
    """Return whether `name` is a name of this machine."""
    return name in LOOPBACK or same_host(name, os.uname().nodename)


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    for folder in _groups(""):
        quota_period = _read(folder / "cpu.max").split()
        if len(quota_period) == 2 and quota_period[0].isdigit():
            cores = min(cores, int(quota_period[0]) // int(quota_period[1]))
    for folder in _groups("cpu"):
        quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota and period:
            cores = min(cores, quota // period)
    return max(1, cores)


def memory_bytes() -> int:
    """Memory of this machine that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_number(folder / "memory.max") for folder in _groups("")]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in _groups("memory")]
    return min([memory, *(limit for limit in limits if limit)])


def _groups(controller: str) -> list[Path]:
    """Return this process's cgroup and its ancestors; `controller`: of version 1, "": version 2."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, group = line.split(":", 2)
        if controller in names.split(","):
            # A container may see its own group as the root although the path is the host's.
            root = _CGROUP / names if controller else _CGROUP
            if controller and not root.is_dir():
                root = _CGROUP / controller
            path = root / group.lstrip("/")
            return [path, *(p for p in path.parents if p == root or root in p.parents)]
    return []


def _number(path: Path) -> int:
    """Read a positive number; 0 for other texts ("max", -1) and for a missing file."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
