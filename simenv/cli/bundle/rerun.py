"""`simenv submit BUNDLE`: run the task of a bundle again with the same settings."""

from __future__ import annotations

import contextlib
from pathlib import Path

import typer

from simenv.cli.bundle.collect import load
from simenv.cli.environment import private
from simenv.cli.options import Settings
from simenv.cli.output import terminal
from simenv.cli.tasks.result_view import present
from simenv.errors import OptionError

_FREE = ("file", "wait", "timeout")  # options that a bundle does not set


def rerun(
    context: typer.Context, common: Settings, path: Path, wait: bool, timeout: float | None
) -> None:
    """Submit the task of a bundle; print its id, or its result."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in _FREE and source is not None and source.name == "COMMANDLINE":
            raise OptionError(
                f"--{name.replace('_', '-')} cannot be combined with a bundle, which sets it",
                hint=f"simenv submit {path} --wait",
            )
    bundle = load(path)
    with contextlib.ExitStack() as stack:
        client = private.client_of(common, stack)
        is_private = client is None
        if client is None:
            client = stack.enter_context(private.started(workers=1))
        tasks = client.history.resubmit(bundle)
        if wait or is_private:
            full = tasks[0] if len(tasks) == 1 else client.task(tasks[0].handle.id)
            present(client, full, common.as_json, timeout, is_private=is_private)
        elif common.as_json:
            terminal.json_line({"task": tasks[0].handle.id})
        else:
            terminal.line(tasks[0].handle.id)
