"""Environment of a command, the one that is up, else a private one for this call; and `simenv
exec`.

`simenv exec -- CMD` runs an application against an environment; its leftovers are removed. The
command gets the same terminal and signals, and its exit code is returned. Invariant: from before
the child's first instruction until after its last, every signal to this process is passed to the
child; this process ends only after the child.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.errors import NoServiceError, SimenvError

if TYPE_CHECKING:
    from simenv.client.client import Client

PATIENCE_S = 0.9  # delay of the note about the start; shorter than that of the progress line


def client_of(common: app.Settings, stack: ExitStack) -> Client | None:
    """Return a client of the environment that is up; None if there is none and a private one may
    replace it."""
    # A connection file means an environment that is up, or that crashed with tasks: no private one.
    if not (common.named or config.connection_file().exists()):
        return None
    try:
        return stack.enter_context(common.connect())
    except NoServiceError:
        if common.named or config.connection_file().exists():
            raise
        return None


@contextmanager
def started(workers: int) -> Iterator[Client]:
    """Yield a client of a private environment, which ends with the context."""
    import simenv

    text = "no environment is up: starting a private one for this call"
    note = threading.Timer(PATIENCE_S, terminal.note, [text])
    note.start()
    with ExitStack() as stack:
        try:
            client = stack.enter_context(simenv.local(workers=workers))
        finally:
            note.cancel()
            note.join()
        yield client


NOT_FOUND, NOT_RUNNABLE = 127, 126  # exit codes as in shells
_PASSED_ON = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
)
_SENT_BY_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})


def run_child(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command to its end; return its exit code, or 128 + n if signal n ended it. Raises
    OSError if the command cannot be started. Must be called from the main thread."""
    watched = _PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = os.posix_spawnp(
            argv[0],
            list(argv),
            dict(environ),
            setsigmask=before,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores these two signals
        )
        return _until_it_ends(child, watched)
    finally:
        while signal.sigtimedwait(watched, 0) is not None:
            pass  # it came together with the child's end, and was meant for the child
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _until_it_ends(child: int, watched: frozenset[signal.Signals]) -> int:
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        settings = signal.sigwaitinfo(watched)
        if settings.si_signo == signal.SIGCHLD:
            continue
        # A terminal signals its whole foreground group, so the child has that signal already.
        if settings.si_pid or settings.si_signo not in _SENT_BY_TERMINAL:
            os.kill(child, settings.si_signo)


def execute(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(help="Command and arguments, after --.", metavar="CMD...")
    ],
    run_name: Annotated[
        str | None,
        typer.Option(help="Name of this run in history and profile; default: a random id."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of workers of a private environment.")
    ] = 2,
) -> None:
    """Run an application that finds this environment.

    Sets SIMENV_SERVICE for it and its child processes, and returns its exit code.
    With no environment up, a private one is started for this call. Tasks that were accepted and
    have not ended when it ends stay with an environment that was up, as for any other client;
    what it has reserved is released.
    """
    common = app.settings_of(context)
    if shutil.which(command[0]) is None and not os.path.exists(command[0]):
        terminal.note(f"simenv exec: {command[0]}: {os.strerror(errno.ENOENT)}")
        raise typer.Exit(NOT_FOUND)
    drawn = f"run-{secrets.token_hex(4)}"
    name = config.check_name(run_name, "--run-name") if run_name else drawn
    with ExitStack() as stack:
        client = client_of(common, stack)
        if client is None:
            client = stack.enter_context(started(workers))
        environ = {**os.environ, "SIMENV_SERVICE": client.service, "SIMENV_APP": name}
        stack.callback(_release, client, name)
        try:
            code = run_child(command, environ)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            terminal.note(f"simenv exec: {command[0]}: {error.strerror}")
            code = NOT_FOUND if missing else NOT_RUNNABLE
    raise typer.Exit(code)


def _release(client: Client, run_name: str) -> None:
    """Release the reservations that the application did not release."""
    from simenv.model.reservations import APP

    try:
        for info in client.reservations():
            if info.state == "active" and (APP, run_name) in info.metadata:
                client.reservation(info.id).release(f"{run_name} has ended")
    except SimenvError as error:  # the service may be down; reservations expire anyway
        terminal.note(f"simenv exec: reservations of {run_name} may remain: {error.message}")
