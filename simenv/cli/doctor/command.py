"""`simenv doctor`: check this machine, and print commands that repair it."""

from __future__ import annotations

import typer

from simenv.cli import options
from simenv.cli.output import terminal


def doctor(context: typer.Context) -> None:
    """Check the installation; print commands that repair it.

    The exit code is 1 if something needs repair.
    """
    from simenv.cli.doctor.checks import findings

    failed = False
    remedies: set[str] = set()  # several checks may have one remedy: it is printed once
    for finding in findings():
        failed |= finding.level == "fail"
        if options.settings_of(context).as_json:
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
