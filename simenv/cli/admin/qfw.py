"""`simenv qfw`: install simenv's service in QFw and its DEFw, check it, remove it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.output import terminal

VARIABLE = "DEFW_EXTERNAL_SERVICES_PATH"
MODULE = "svc_simenv_qpm"
qfw = typer.Typer(help="Install and check the simenv service of QFw.")
Folder = Annotated[
    Path | None,
    typer.Argument(metavar="[QFW_PATH]", help="Folder of QFw; default: QFW_PATH."),
]


@qfw.callback()
def nouns() -> None:
    """Commands for the service of QFw."""


@qfw.command()
def install(
    context: typer.Context,
    folder: Folder = None,
    pool: Annotated[str, typer.Option(help="Serve only this pool.")] = "",
    private: Annotated[
        bool, typer.Option(help="Start a private environment that ends with the service.")
    ] = False,
) -> None:
    """Link the service into QFw, set SIMENV_* in its activation, and let `simenv` run beside it.

    Run it before `qfw_activate`, with the Python of QFw's virtual environment.
    """
    from simenv import config
    from simenv.frontends.qfw import installing

    settings = {
        "SIMENV_QPM_PRIVATE": "yes" if private else "no",
        "SIMENV_HOME": str(config.home_root()),
    }
    service = None if private else _service(options.settings_of(context))
    if service is not None:
        settings["SIMENV_SERVICE"] = str(service)
    if pool:
        settings["SIMENV_QPM_POOL"] = pool
    built = installing.install(_folder(folder), settings)
    if options.settings_of(context).as_json:
        terminal.json_line({"made": [str(path) for path in built], "variables": settings})
        return
    for path in built:
        terminal.line(str(path))
    terminal.line(f"next: simenv up; then: simenv qfw check {_folder(folder)}")
    terminal.line(f"then: qfw_setup.sh --services-config {built[-1]}")


@qfw.command()
def check(context: typer.Context, folder: Folder = None) -> None:
    """Check that QFw loads the service and reaches an environment.

    The exit code is 1 if something needs repair.
    """
    from simenv.cli.doctor.qfw import findings

    failed = False
    for finding in findings(_folder(folder), os.environ):
        failed |= finding.level == "fail"
        if options.settings_of(context).as_json:
            terminal.json_line(finding)
            continue
        terminal.line(
            f"{terminal.paint(finding.level, width=4)}  {finding.what:<12} {finding.detail}"
        )
        if finding.remedy:
            terminal.line(f"{'':20}type: {finding.remedy}")
    if failed:
        raise typer.Exit(1)


@qfw.command()
def uninstall(context: typer.Context, folder: Folder = None) -> None:
    """Remove from QFw what `install` added."""
    from simenv.frontends.qfw import installing

    removed = [str(path) for path in installing.uninstall(_folder(folder))]
    if options.settings_of(context).as_json:
        terminal.json_line({"gone": removed})
    else:
        terminal.line("\n".join(removed) or "simenv is not installed there")


@qfw.command()
def path(
    context: typer.Context,
    export: Annotated[
        bool, typer.Option(help="Print a line for a shell that adds it to the variable.")
    ] = False,
) -> None:
    """Print the folder of svc_simenv_qpm, for DEFW_EXTERNAL_SERVICES_PATH."""
    from simenv.frontends.qfw import SERVICES

    if options.settings_of(context).as_json:
        terminal.json_line({"variable": VARIABLE, "path": str(SERVICES), "module": MODULE})
    elif export:
        terminal.line(f'export {VARIABLE}="{SERVICES}${{{VARIABLE}:+:${VARIABLE}}}"')
    else:
        terminal.line(str(SERVICES))


def _service(common: options.Settings) -> Path | None:
    """Return the absolute path of the connection file: DEFw changes its folder."""
    from simenv import config

    result = common.service or config.service_file()
    if result is None and common.name:
        result = config.connection_file(common.name)
    return None if result is None else result.expanduser().absolute()


def _folder(folder: Path | None) -> Path:
    from simenv.errors import ConfigError

    named = folder or Path(os.environ.get("QFW_PATH", ""))
    if named == Path():
        raise ConfigError(
            "the folder of QFw is not given", hint="name it as an argument, or set QFW_PATH"
        )
    return named
