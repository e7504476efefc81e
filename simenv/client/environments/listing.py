"""List of the environments of this user, running ones and others.

Only the folders below SIMENV_HOME are read; no service is asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simenv import config
from simenv.client.connection.address import ended, read
from simenv.errors import NoServiceError


class EnvironmentInfo(msgspec.Struct, frozen=True):
    """One environment. `state`: "up"; "crashed": its service ended and left its connection file;
    "unreadable": that file is unsafe or invalid; "down"."""

    name: str
    state: str
    pid: int  # of its service; 0: unknown
    node: str  # node of the service
    address: str  # TCP address for other machines; "": none
    folder: str
    reason: str = ""  # why the connection file is unreadable


def environments(home: Path | None = None) -> Iterator[EnvironmentInfo]:
    """Iterate over the environments with a folder below `home`, by name."""
    root = home or config.home_root()
    try:
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return
    for folder in folders:
        connection = folder / "connection.json"
        if os.path.lexists(connection):
            yield _running(folder, connection)
        elif (folder / "config.json").exists():
            yield EnvironmentInfo(folder.name, "down", 0, "", "", str(folder))


def _running(folder: Path, connection: Path) -> EnvironmentInfo:
    try:
        file = read(connection)
    except NoServiceError as error:
        return EnvironmentInfo(folder.name, "unreadable", 0, "", "", str(folder), error.message)
    state = "crashed" if ended(file) else "up"
    return EnvironmentInfo(folder.name, state, file.pid, file.node, file.address, str(folder))
