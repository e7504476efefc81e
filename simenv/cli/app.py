"""`simenv`: the list of commands and the options they share. `main` is what `entry` calls.

Invariant: importing this loads typer, msgspec and zmq at most; each command loads the rest when it
runs, so that a short one answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from simenv import __version__
from simenv.cli import (
    demo,
    doctor,
    environment,
    explain,
    keys,
    lists,
    out,
    past,
    submit,
    tasks,
    trace,
)
from simenv.cli import run as application
from simenv.cli.border import guarded
from simenv.cli.gc import gc
from simenv.cli.measure import command as measure
from simenv.cli.perf import command as perf
from simenv.cli.settings import Settings, hoist

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
for _command in (
    demo.demo,
    environment.up,
    environment.down,
    environment.status,
    lists.pools,
    lists.workers,
    lists.queue,
    past.log,
    trace.trace,
    past.events,
    perf.perf,
    measure.bench,
    submit.submit,
    explain.explain,
    tasks.result,
    tasks.cancel,
    application.run,
    environment.logs,
    gc,
    doctor.doctor,
):
    app.command()(_command)
app.add_typer(keys.keys, name="keys")


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option(help="Which environment; `default` if not said.")
    ] = None,
    service: Annotated[
        Path | None, typer.Option(help="Its connection file; SIMENV_SERVICE names it too.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Objects instead of text, one a line.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="The version, and nothing else.")] = (
        False
    ),
) -> None:
    """Run quantum circuits on resident simulators. These options may stand after a command too."""
    context.obj = Settings(name, service, as_json, debug)
    if version:
        out.line(__version__)
    elif context.invoked_subcommand is None:
        out.line(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """One command line; the exit code."""
    common_words = arguments[: arguments.index("--")] if "--" in arguments else arguments

    def call() -> object:
        command = typer.main.get_command(app)
        return command.main(hoist(arguments), prog_name="simenv", standalone_mode=False)

    return guarded(call, as_json="--json" in common_words, debug="--debug" in common_words)


def main() -> None:
    """The command line of this process. SIGTERM ends it as tidily as an error does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:]))
