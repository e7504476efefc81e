"""The address of a service on another machine: a file with its place, its key and one's own.

Invariant: a file that others can read is not used; whatever keeps a client out is told in words as
soon as it is certain, and never waited for.
"""

from __future__ import annotations

from pathlib import Path

from simenv.errors import ConfigError, KeyRefusedError, SimenvError
from simenv.wire.keyfiles import UserKeyFile, read_private
from simenv.wire.transport.tcp_client import CurveConnection, HandshakeState
from simenv.wire.transport.zmq_transport import Connection

SURE_HANG_UPS = 2  # one may be a service that is just ending


class KeyFileAddress:
    """The address in a file that `simenv keys add` made."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.stem
        self._file: UserKeyFile | None = None
        self._connection: CurveConnection | None = None

    def open(self, identity: bytes) -> Connection:
        """ConfigError when the file cannot be used; the rest shows in `refusal` and `fate`."""
        file = read_private(self.path, UserKeyFile)
        connection = CurveConnection(file.address, file.server_key, file.keys, identity)
        self.name, self._file, self._connection = file.name, file, connection
        return connection

    def door(self) -> tuple[str, str]:
        """Address and public key of the service."""
        file = self._file or read_private(self.path, UserKeyFile)
        return file.address, file.server_key

    def moved(self) -> bool:
        """Was the file replaced by another?"""
        try:
            return self._file is not None and read_private(self.path, UserKeyFile) != self._file
        except ConfigError:
            return False

    def refusal(self) -> SimenvError | None:
        connection, file = self._connection, self._file
        if connection is None or file is None:
            return None
        way = connection.way()
        if way is HandshakeState.REFUSED:
            return KeyRefusedError(
                f"the service at {file.address} does not know the key in {self.path} "
                f"({file.owner!r}): it was revoked, or is for another environment",
                hint="ask an administrator of the environment for a new key file "
                f"(made there by: simenv keys add {file.owner} --role {file.role})",
            )
        if way is HandshakeState.BROKEN_OFF and connection.hang_ups >= SURE_HANG_UPS:
            return KeyRefusedError(
                f"{file.address} breaks off the handshake: its server key is not the one in "
                f"{self.path}, or it is no simenv service",
                hint="ask an administrator of the environment for a new key file "
                "(made there by: simenv keys add)",
            )
        return None

    def fate(self) -> tuple[str, str]:
        file = self._file
        if file is None or self._connection is None:
            return "it was never heard", ""
        reason = found_out(self._connection.way(), file.address)
        return reason, f"ask where it runs: simenv status --name {file.name}"


def found_out(way: HandshakeState, address: str) -> str:
    """How far the last attempt to reach an address came, in words."""
    return {
        HandshakeState.UNKNOWN: f"{address} does not answer",
        HandshakeState.NOBODY: f"nothing listens at {address}",
        HandshakeState.CONNECTED: f"{address} does not end its handshake",
        HandshakeState.BROKEN_OFF: f"{address} broke off the handshake",
        HandshakeState.REFUSED: f"{address} refused the key",
        HandshakeState.OPEN: f"the connection to {address} stands, and it is silent",
    }[way]


def is_personal(path: Path) -> bool:
    """Is this a file that `simenv keys add` made? Whether it may be used is another question."""
    try:
        with path.open("rb") as source:
            return b'"secret_key"' in source.read(4_096)
    except OSError:
        return False
