"""The nodes of the PBS job we are in: OpenPBS, PBS Professional and Torque.

The nodefile names a host once for each of its tasks. Where all hosts stand there equally often, the
number of cores a host may be told besides (NCPUS, PBS_NUM_PPN) and counts, being larger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from launcher.allocation.hostlist import MAX_SLOTS, checked, whole_number
from launcher.base import Allocation, AllocationError, Node


def read(environ: Mapping[str, str]) -> Allocation:
    """The job's nodes, with 0 bytes of memory: PBS tells none. AllocationError."""
    path = environ["PBS_NODEFILE"]
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise AllocationError(
            f"PBS_NODEFILE = {path!r} cannot be read: {why}",
            hint="name the nodes yourself: --hosts node1:2,node2:2",
        ) from error
    lines = [checked(line.strip(), "PBS_NODEFILE", path) for line in text.splitlines() if line]
    if not lines:
        raise AllocationError(
            f"PBS_NODEFILE = {path!r} names no host",
            hint="name the nodes yourself: --hosts node1:2,node2:2",
        )
    often = Counter(lines)
    told = _number(environ, "NCPUS") or _number(environ, "PBS_NUM_PPN")
    if len(set(often.values())) > 1:
        told = 0  # the hosts differ, and it speaks of one of them
    nodes = tuple(Node(name, max(count, told), 0) for name, count in often.items())
    return Allocation(nodes, f"PBS job {environ.get('PBS_JOBID', '')}".rstrip())


def _number(environ: Mapping[str, str], variable: str) -> int:
    text = environ.get(variable) or "0"
    cores = whole_number(text, MAX_SLOTS)
    if cores is None:
        raise AllocationError(
            f"{variable} = {text[:80]!r} is not a number of cores",
            hint="name the nodes yourself: --hosts node1:2,node2:2",
        )
    return cores
