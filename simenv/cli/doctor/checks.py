"""Checks of `simenv doctor`. Invariant: a check reads and never repairs."""

from __future__ import annotations

from collections.abc import Iterator

from simenv.cli.doctor import installation
from simenv.cli.doctor.finding import DoctorFinding

__all__ = ["DoctorFinding", "findings"]


def findings() -> Iterator[DoctorFinding]:
    """Yield the findings of all checks; only those of the first if other files shadow our
    packages."""
    for finding in installation.names():
        yield finding
        if finding.level == "fail":
            return
    # These checks import our packages, so they run only if no other file shadows these.
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
