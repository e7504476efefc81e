"""What `simenv doctor` looks at. Invariant: a check looks and never mends."""

from __future__ import annotations

from collections.abc import Iterator

from simenv.cli.doctor import installation
from simenv.cli.doctor.finding import DoctorFinding

__all__ = ["DoctorFinding", "findings"]


def findings() -> Iterator[DoctorFinding]:
    """All checks, one after the other; where names are taken by others, no more than that."""
    for finding in installation.names():
        yield finding
        if finding.level == "fail":
            return
    # Only now: these import packages of ours by names that might have been others'.
    from simenv.cli.doctor import folders, launchers, machine, security

    for check in (
        installation.versions,
        installation.extras,
        machine.cores,
        machine.memory,
        machine.gpus,
        launchers.nodes,
        launchers.launchers,
        folders.home,
        folders.kernels,
        folders.sockets,
        folders.connections,
        folders.modes,
        security.folders,
        security.kernels,
        security.sockets,
        security.launchers,
    ):
        yield from check()
