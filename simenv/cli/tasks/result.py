"""`simenv result`: wait for a task and show its result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.options import seconds
from simenv.cli.output import terminal
from simenv.cli.tasks.result_view import present

Timeout = Annotated[
    float | None,
    typer.Option(callback=seconds, help="Maximum seconds to wait; then the exit code is 124."),
]


def result(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Id of a task, as `submit` and `queue` print it.")],
    timeout: Timeout = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write the whole result to FILE.h5, FILE.npz or FILE.json.", dir_okay=False
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder or .zip to create with all that `submit` needs to run it again."),
    ] = None,
) -> None:
    """Wait for a task and show its result.

    For a sweep, t-8k2f names all bindings that travelled together, t-8k2f.17 one of them.
    """
    common = options.settings_of(context)
    with common.connect_or_read() as client:
        entry = client.task(task)
        if bundle is not None:
            from simenv.cli.bundle.collect import collect

            entry.wait(progress=sys.stderr.isatty(), timeout_s=timeout)
            collect(client, entry, bundle)
            terminal.note(f"run it again: simenv submit {bundle} --wait")
        present(client, entry, common.as_json, timeout, save)
