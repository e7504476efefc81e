"""`simenv doctor`: check this machine, and print commands that repair it."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from simenv.cli import app, terminal
from simenv.cli.admin import doctor_installation
from simenv.cli.admin.doctor_installation import DoctorFinding

# Checks of `simenv doctor`. Invariant: a check reads and never repairs.


def findings() -> Iterator[DoctorFinding]:
    """Yield the findings of all checks; only those of the first if other files shadow our
    packages."""
    for finding in doctor_installation.names():
        yield finding
        if finding.level == "fail":
            return
    # These checks import our packages, so they run only if no other file shadows these.
    from simenv.cli.admin import doctor_checks

    for check in (
        doctor_installation.versions,
        doctor_installation.extras,
        doctor_checks.cores,
        doctor_checks.memory,
        doctor_checks.gpus,
        doctor_checks.nodes,
        doctor_checks.launchers,
        doctor_checks.home,
        doctor_checks.kernels,
        doctor_checks.sockets,
        doctor_checks.connections,
        doctor_checks.modes,
        doctor_checks.folder_security,
        doctor_checks.kernel_folder_security,
        doctor_checks.socket_security,
        doctor_checks.launcher_security,
    ):
        yield from check()


def doctor(context: typer.Context) -> None:
    """Check the installation; print commands that repair it.

    The exit code is 1 if something needs repair.
    """

    failed = False
    remedies: set[str] = set()  # several checks may have one remedy: it is printed once
    for finding in findings():
        failed |= finding.level == "fail"
        if app.settings_of(context).as_json:
            terminal.json_line(finding)
        else:
            terminal.line(
                f"{terminal.paint(finding.level, width=4)}  {finding.what:<13} {finding.detail}"
            )
            if finding.remedy and finding.remedy not in remedies:
                terminal.line(f"{'':20}type: {finding.remedy}")
                remedies.add(finding.remedy)
    if failed:
        raise typer.Exit(1)
