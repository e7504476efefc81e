"""What `simenv doctor` looks at. Invariant: a check looks and never mends."""

from __future__ import annotations

from collections.abc import Iterator

from simenv.cli.checks import folders, installation, machine
from simenv.cli.checks.finding import Finding

__all__ = ["Finding", "findings"]

_CHECKS = (
    installation.names,
    installation.versions,
    installation.extras,
    machine.cores,
    machine.memory,
    folders.home,
    folders.kernels,
    folders.sockets,
    folders.connections,
)


def findings() -> Iterator[Finding]:
    """All checks, one after the other."""
    for check in _CHECKS:
        yield from check()
