"""The environment a command works with: the one that is up, else a private one for this call."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from simenv import config
from simenv.cli.options import Settings
from simenv.cli.output import terminal
from simenv.errors import NoServiceError

if TYPE_CHECKING:
    from simenv.client.client import Client

PATIENCE_S = 0.9  # after so long a line says what is waited for; before the start's own line


def client_of(common: Settings, stack: ExitStack) -> Client | None:
    """The environment that is up; None if there is none and a private one may take its place."""
    # A connection file: one that is up, or broke off with its tasks. Another is none of it.
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
    """A private environment, gone at the end."""
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
