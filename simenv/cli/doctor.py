"""`simenv doctor`: is this machine fit, and what to type where it is not."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from simenv.cli import out, settings


class Kernels(StrEnum):
    """How kernels of large states are written."""

    AUTO = "auto"
    VECTORS = "vectors"
    PLAIN = "plain"


def doctor(
    context: typer.Context,
    kernels: Annotated[
        Kernels | None,
        typer.Option(
            help="From the next start on: kernels in vectors, in plain loops that any processor"
            " runs, or as this one likes."
        ),
    ] = None,
) -> None:
    """Check this installation, and say what to type.

    The exit code is 1 if something must be mended.
    """
    from simenv.cli.checks import findings

    if kernels is not None:
        _choose(kernels)
    failed = False
    remedies: set[str] = set()  # one lack may show in several checks: what to type is said once
    for finding in findings():
        failed |= finding.level == "fail"
        if settings.of(context).as_json:
            out.json_line(finding)
        else:
            out.line(f"{out.paint(finding.level, width=4)}  {finding.what:<13} {finding.detail}")
            if finding.remedy and finding.remedy not in remedies:
                out.line(f"{'':20}type: {finding.remedy}")
                remedies.add(finding.remedy)
    if failed:
        raise typer.Exit(1)


def _choose(kernels: Kernels) -> None:
    from simenv import config
    from simulators import jit  # here, because numba takes 0.3 s to import

    jit.choose(config.kernel_folder(), "" if kernels is Kernels.AUTO else kernels.value)
