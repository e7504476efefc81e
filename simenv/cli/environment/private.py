"""Environment of a command: the one that is up, else a private one for this call."""

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

PATIENCE_S = 0.9  # delay of the note about the start; shorter than that of the progress line


def client_of(common: Settings, stack: ExitStack) -> Client | None:
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
