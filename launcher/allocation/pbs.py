"""Nodes of the current PBS job: OpenPBS, PBS Professional and Torque.

The nodefile lists a host once for each of its tasks. If all hosts are listed equally often, the
variables NCPUS or PBS_NUM_PPN may give the cores of a host too; the larger number is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from launcher.allocation.hostlist import MAX_SLOTS, NAME_THE_NODES, check_host_name, parse_uint
from launcher.base import Allocation, AllocationError, Node


def read(environ: Mapping[str, str]) -> Allocation:
    """Read the job's nodes, with 0 bytes of memory: PBS reports none. Raises AllocationError."""
    path = environ["PBS_NODEFILE"]
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        raise AllocationError(
            f"PBS_NODEFILE = {path!r} cannot be read: {reason}",
            hint=NAME_THE_NODES,
        ) from error
    names = [
        check_host_name(line.strip(), "PBS_NODEFILE", path) for line in text.splitlines() if line
    ]
    if not names:
        raise AllocationError(
            f"PBS_NODEFILE = {path!r} names no host",
            hint=NAME_THE_NODES,
        )
    tasks = Counter(names)
    cores = _number(environ, "NCPUS") or _number(environ, "PBS_NUM_PPN")
    if len(set(tasks.values())) > 1:
        cores = 0  # the hosts differ, and the variable describes one of them
    nodes = tuple(Node(name, max(count, cores), 0) for name, count in tasks.items())
    return Allocation(nodes, f"PBS job {environ.get('PBS_JOBID', '')}".rstrip())


def _number(environ: Mapping[str, str], variable: str) -> int:
    text = environ.get(variable) or "0"
    cores = parse_uint(text, MAX_SLOTS)
    if cores is None:
        raise AllocationError(
            f"{variable} = {text[:80]!r} is not a number of cores",
            hint=NAME_THE_NODES,
        )
    return cores
