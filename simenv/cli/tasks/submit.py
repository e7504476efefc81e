"""`simenv submit`: one circuit from a file, to the environment that is up or to a private one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.bundle.container import is_bundle
from simenv.cli.output import terminal
from simenv.cli.tasks.circuit_input import client_and_circuit
from simenv.cli.tasks.circuit_options import (
    CircuitOptions,
    errors_for_command_line,
)
from simenv.cli.tasks.result import Timeout
from simenv.cli.tasks.result_view import present
from simenv.cli.tasks.waiting import answer_progress


@options.with_options(CircuitOptions)
def submit(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="OpenQASM 2 or 3, QPY, or a bundle; - is stdin.")],
    asked: CircuitOptions,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and show it.")] = False,
    timeout: Timeout = None,
) -> None:
    """Submit a circuit; print its id, or its result (--wait).

    With no environment up, a private one is started for this call, which waits. A bundle (from
    `simenv result ID --bundle`) is run again as it was.
    """
    common = options.settings_of(context)
    if file != "-" and is_bundle(Path(file)):
        from simenv.cli.bundle.rerun import rerun

        rerun(context, common, Path(file), wait, timeout)
        return
    with errors_for_command_line(), contextlib.ExitStack() as stack:
        client, is_private, loaded = client_and_circuit(common, file, stack)
        with answer_progress():
            task = client.submit(loaded.program, **asked.arguments(loaded))
        if wait or is_private:
            present(client, task, common.as_json, timeout, is_private=is_private)
        elif common.as_json:
            terminal.json_line({"task": task.id})
        else:
            terminal.line(task.id)
