"""Client of an environment whose service is down: its journal answers, read-only.

Used by commands that only read. Invariant: nothing is written, and no call waits for an event that
cannot happen while the service is down.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from simenv import config
from simenv.cli import terminal
from simenv.client.client import Client
from simenv.client.connection import address
from simenv.config import Config, EnvironmentPaths
from simenv.errors import ConfigError, NoServiceError, NotFoundError, SimenvError
from simenv.text import elapsed
from simenv.wire import codec
from simenv.wire.messages.client import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from simenv.service.queries.history import Archive


def open_archive(name: str | None, service: Path | None, reason: NoServiceError) -> Client:
    """Return a client that reads the journal of the selected environment; print a note about it.
    Raises `reason` if the service may be up elsewhere, or if there is no journal here; JournalError
    if the journal cannot be read."""
    location = address.find(name, service)
    if not isinstance(location, address.FileAddress) or not _is_down(location):
        raise reason
    home = location.path.parent
    try:
        settings = config.read(home / "config.json")
    except ConfigError:
        settings = Config(name=home.name)
    from simenv.service.queries.history import Archive

    try:
        archive = Archive(settings, EnvironmentPaths(home, config.state_folder(settings, home)))
    except NotFoundError:
        raise reason from None
    age = ""
    if isinstance(archive.place, Path):
        age = f", last written {elapsed(time.time() - archive.place.stat().st_mtime)} ago"
    terminal.note(f"no service is up: read from {archive.place}{age}")
    return Client(ArchiveAddress(location.path, archive))


def _is_down(location: address.FileAddress) -> bool:
    """Return whether it is certain that no service writes this journal. A connection file of
    another node means that a service may be up there."""
    try:
        return address.ended(address.read(location.path))
    except NoServiceError:
        return not location.path.exists()


class ArchiveAddress:
    """Address of a journal; see `simenv.client.connection.address.Address`."""

    patience_s = 0.0
    standbys: tuple[str, ...] = ()

    def __init__(self, path: Path, archive: Archive) -> None:
        self.path, self.name = path, path.parent.name
        self._archive = archive

    def open(self, _identity: bytes) -> ArchiveConnection:
        return ArchiveConnection(self._archive)

    def moved(self) -> bool:
        return False

    def learn(self, standbys: tuple[str, ...]) -> None:
        pass

    def refusal(self) -> SimenvError | None:
        return None

    def diagnose(self) -> tuple[str, str]:
        return "the service is down", "start it: simenv up"

    def remote_endpoint(self) -> tuple[str, str]:
        return "", ""


class ArchiveConnection:
    """Connection to a journal: each message is answered while it is sent."""

    message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._inbox = Inbox()
        self.receive, self.wake = self._inbox.receive, self._inbox.wake

    def send(self, body: bytes) -> None:
        self._inbox.put(*self._archive.answer(codec.from_client(body)))

    def fileno(self) -> int:
        raise OSError("a journal is read without a descriptor")

    def close(self) -> None:
        """Close the journal. Idempotent."""
        self._archive.close()


class Inbox:
    """Queue of messages within this process: the receiving half of a `Connection`. Thread-safe."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._bodies: deque[bytes] = deque()
        self._woken = False

    def __len__(self) -> int:
        return len(self._bodies)

    def put(self, *bodies: bytes) -> None:
        """Append messages, in order."""
        with self._arrived:
            self._bodies.extend(bodies)
            self._arrived.notify_all()

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message; None after `timeout_s`, or when `wake` was called."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._bodies or self._woken, timeout_s)
            if self._woken or not self._bodies:
                self._woken = False
                return None
            return self._bodies.popleft()

    def wake(self) -> None:
        """Let the present `receive`, or else the next one, return None."""
        with self._arrived:
            self._woken = True
            self._arrived.notify_all()
