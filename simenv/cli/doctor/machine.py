"""What this machine has, and how much of it is really ours."""

from __future__ import annotations

import os
from collections.abc import Iterator

from launcher.allocation.this_node import this_node
from simenv.cli.doctor.finding import DoctorFinding
from simenv.cli.output import terminal
from simulators import catalog

LEAST_FREE_BYTES = 2**30


def cores() -> Iterator[DoctorFinding]:
    """Affinity and cgroup quota against what is built in; who else is at work."""
    node, there = this_node(), os.cpu_count() or 1
    detail = f"{node.slots} of {there} cores are ours"
    load = os.getloadavg()[0]
    if load > there:
        detail += f", but {load:.1f} threads want to run"
        yield DoctorFinding("warn", "cores", detail, "top -o %CPU")
    else:
        yield DoctorFinding("ok", "cores", detail)


def memory() -> Iterator[DoctorFinding]:
    """The limit, what is free now, and the widest circuit it holds."""
    import psutil

    limit = this_node().memory_bytes
    free = min(limit, psutil.virtual_memory().available)
    engine = next(card for card in catalog.CARDS if card.automatic)
    width = engine.max_qubits_in(free)
    detail = f"{terminal.size(free)} free of {terminal.size(limit)}: circuits up to {width} qubits"
    if free < LEAST_FREE_BYTES:
        yield DoctorFinding("warn", "memory", detail, "top -o %MEM")
    else:
        yield DoctorFinding("ok", "memory", detail)
