"""Keys of users, who reach a service over TCP."""

from __future__ import annotations

from pathlib import Path

from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.wire.keyfiles import UserKeyFile, read_private


def remote_key(
    client: Client, name: str, folder: str | Path, role: str = "client"
) -> tuple[Path, UserKeyFile]:
    """Issue a key; return its file and contents."""
    file = Path(folder) / f"{name}.simenv"
    issue_key(client.keys, name, role, file)
    return file, read_private(file, UserKeyFile)
