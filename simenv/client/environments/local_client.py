"""The private service of `simenv.local`, and the client that owns it."""

from __future__ import annotations

import os
import shutil
import weakref
from contextlib import suppress
from pathlib import Path

from simenv.client.client import Client
from simenv.client.connection.address import FileAddress, read
from simenv.client.environments import launch
from simenv.errors import SimenvError

ANSWER_S = 5.0  # timeout of the shutdown request, after which the process is ended

_lifelines: set[int] = set()


class PrivateService:
    """A service process that is a child of this process, with its folders.

    Invariant: `end` acts once, and only in the process that started the service.
    """

    def __init__(self, process: launch.Service, connection: Path, folders: list[Path]) -> None:
        self.connection = connection
        self._process, self._folders = process, folders
        self._sockets: Path | None = None
        self._owner = os.getpid()
        self._ended = False
        _lifelines.add(process.lifeline)

    def address(self) -> FileAddress:
        """Return the address of the service. Raises NoServiceError."""
        self._sockets = Path(read(self.connection).sockets)
        return FileAddress(self.connection)

    def is_running(self) -> bool:
        """Return whether this process owns the service and it still runs."""
        return (
            not self._ended and os.getpid() == self._owner and self._process.process.poll() is None
        )

    def end(self) -> None:
        """End the service and remove its folders. Idempotent; no effect in a forked child."""
        if self._ended or os.getpid() != self._owner:
            return
        self._ended = True
        _lifelines.discard(self._process.lifeline)
        os.close(self._process.lifeline)
        launch.end(self._process.process)
        if self._sockets is not None:
            launch.clear(self._sockets, self.connection)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


class LocalClient(Client):
    """A client whose environment ends with it.

    Invariant: the service ends when the connection is closed or collected, and at interpreter exit.
    Tasks and results refer to the connection, so the service lives as long as one is in use.
    """

    def __init__(self, service: PrivateService) -> None:
        """Connect to the private service. Raises NoServiceError."""
        super().__init__(service.address())
        self._service = service
        self._end = weakref.finalize(self._session, service.end)

    def close(self) -> None:
        """End the environment with service, workers and files. Idempotent.

        In a forked child only the child's own connection is closed.
        """
        if self._service.is_running():
            with suppress(SimenvError):
                self.shutdown(now=True, timeout_s=ANSWER_S)
        super().close()
        self._end()


def _close_lifelines() -> None:
    """Close lifelines in a forked child, so that a private service ends with its owner."""
    for descriptor in _lifelines:
        os.close(descriptor)
    _lifelines.clear()


os.register_at_fork(after_in_child=_close_lifelines)
