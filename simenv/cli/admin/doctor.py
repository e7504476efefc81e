"""`simenv doctor`: check this machine, and print commands that repair it.

Invariant: a check reads and never repairs.
"""

from __future__ import annotations

from collections.abc import Iterator

import typer

from simenv.cli.admin import doctor_installation


def findings() -> Iterator[doctor_installation.DoctorFinding]:
    """Yield the findings of all checks; only those of the first if other files shadow our
    packages."""
    for finding in doctor_installation.names():
        yield finding
        if finding.level == "fail":
            return
    # These checks import our packages, so they run only if no other file shadows these.
    from simenv.cli.admin import doctor_checks

    for check in (
        *(doctor_installation.versions, doctor_installation.packaged_kernels),
        doctor_installation.extras,
        *(doctor_checks.cores, doctor_checks.memory, doctor_checks.gpus),
        *(doctor_checks.nodes, doctor_checks.launchers),
        *(doctor_checks.home, doctor_checks.kernels, doctor_checks.sockets),
        *(doctor_checks.connections, doctor_checks.modes, doctor_checks.folder_security),
        *(doctor_checks.kernel_folder_security, doctor_checks.socket_security),
        *(doctor_checks.launcher_security, doctor_checks.account_isolation),
    ):
        yield from check()


def doctor(context: typer.Context) -> None:
    """Check the installation; print commands that repair it.

    The exit code is 1 if something needs repair.
    """
    doctor_installation.report(context, findings())
