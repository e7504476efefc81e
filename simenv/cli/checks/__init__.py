"""What `simenv doctor` looks at. Invariant: a check looks and never mends."""

from __future__ import annotations

from collections.abc import Iterator

from simenv.cli.checks import installation
from simenv.cli.checks.finding import Finding

__all__ = ["Finding", "findings"]


def findings() -> Iterator[Finding]:
    """All checks, one after the other; where names are taken by others, no more than that."""
    for finding in installation.names():
        yield finding
        if finding.level == "fail":
            return
    # Only now: these import packages of ours by names that might have been others'.
    from simenv.cli.checks import folders, keys, launching, machine, security

    for check in (
        installation.versions,
        installation.extras,
        machine.cores,
        machine.memory,
        launching.nodes,
        launching.launchers,
        folders.home,
        folders.kernels,
        folders.sockets,
        folders.connections,
        keys.modes,
        security.folders,
        security.kernels,
        security.sockets,
        security.launchers,
    ):
        yield from check()
