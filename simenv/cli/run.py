"""`simenv run -- CMD`: an application against an environment, and nothing of it left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config
from simenv.cli import child, out, private, settings
from simenv.errors import SimenvError

if TYPE_CHECKING:
    from simenv.client.client import Client

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def run(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(help="The command and its arguments, after --.", metavar="CMD...")
    ],
    app: Annotated[
        str | None,
        typer.Option(help="What to call this run in log and perf; else an id is drawn."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Simulators, where a private environment is started.")
    ] = 2,
) -> None:
    """Run an application against the environment that is up; its exit code is ours.

    It finds the environment through SIMENV_SERVICE, wherever it starts processes that inherit it.
    With no environment up, a private one is started for this call. Tasks that were accepted and
    have not ended when it ends stay with an environment that was up, as for any other client;
    what it has reserved is released.
    """
    common = settings.of(context)
    if shutil.which(command[0]) is None and not os.path.exists(command[0]):
        out.note(f"simenv run: {command[0]}: {os.strerror(errno.ENOENT)}")
        raise typer.Exit(child.NOT_FOUND)
    name = config.check_name(app, "--app") if app else "run-" + _drawn()
    with contextlib.ExitStack() as stack:
        client = private.found(common, stack)
        if client is None:
            client = stack.enter_context(private.started(workers))
        environ = {**os.environ, "SIMENV_SERVICE": client.service, "SIMENV_APP": name}
        stack.callback(_release, client, name)
        try:
            code = child.run(command, environ)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            out.note(f"simenv run: {command[0]}: {error.strerror}")
            code = child.NOT_FOUND if missing else child.NOT_RUNNABLE
    raise typer.Exit(code)


def _release(client: Client, app: str) -> None:
    """Give back what the application has reserved and not released."""
    from simenv.client.reservations import APP

    try:
        for info in client.reservations():
            if info.state == "active" and (APP, app) in info.metadata:
                client.reservation(info.id).release(f"{app} has ended")
    except SimenvError as error:  # the service may be gone; they expire by themselves
        out.note(f"simenv run: reservations of {app} may be left: {error.message}")


def _drawn() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))
