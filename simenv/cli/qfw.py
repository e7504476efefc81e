"""`simenv qfw`: what QFw and its DEFw have to be told to drive this pool."""

from __future__ import annotations

from typing import Annotated

import typer

from simenv.cli import out, settings

VARIABLE = "DEFW_EXTERNAL_SERVICES_PATH"
MODULE = "svc_simenv_qpm"
qfw = typer.Typer(help="The pool behind QFw: path.")


@qfw.callback()
def nouns() -> None:
    """A group, also while it has one command."""


@qfw.command()
def path(
    context: typer.Context,
    export: Annotated[
        bool, typer.Option(help="As a line for a shell, before what is set there.")
    ] = False,
) -> None:
    """The folder that belongs on DEFW_EXTERNAL_SERVICES_PATH: it holds svc_simenv_qpm."""
    from simenv.frontends.qfw import SERVICES

    if settings.of(context).as_json:
        out.json_line({"variable": VARIABLE, "path": str(SERVICES), "module": MODULE})
    elif export:
        out.line(f'export {VARIABLE}="{SERVICES}${{{VARIABLE}:+:${VARIABLE}}}"')
    else:
        out.line(str(SERVICES))
