"""The address of a service on another machine: a file with address, server key and the user's keys.

Invariant: a key file that others can read is not used. A certain refusal of the client is reported
at once, without waiting for a timeout.
"""

from __future__ import annotations

from pathlib import Path

from simenv.errors import ConfigError, KeyRefusedError, SimenvError
from simenv.wire.keyfiles import UserKeyFile, read_private
from simenv.wire.transport.tcp_client import CurveConnection, HandshakeState
from simenv.wire.transport.zmq_transport import Connection

MIN_HANG_UPS = 2  # a single one may come from a service that is ending


class KeyFileAddress:
    """The address in a file that `simenv keys add` made."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.stem
        self._file: UserKeyFile | None = None
        self._connection: CurveConnection | None = None

    def open(self, identity: bytes) -> Connection:
        """Return a new connection. Raises ConfigError if the file cannot be used; other faults are
        reported by `refusal` and `diagnose`."""
        file = read_private(self.path, UserKeyFile)
        connection = CurveConnection(file.address, file.server_key, file.keys, identity)
        self.name, self._file, self._connection = file.name, file, connection
        return connection

    def remote_endpoint(self) -> tuple[str, str]:
        """Return address and public key of the service."""
        file = self._file or read_private(self.path, UserKeyFile)
        return file.address, file.server_key

    def moved(self) -> bool:
        """Return whether the key file has been replaced since `open`."""
        try:
            return self._file is not None and read_private(self.path, UserKeyFile) != self._file
        except ConfigError:
            return False

    def refusal(self) -> SimenvError | None:
        connection, file = self._connection, self._file
        if connection is None or file is None:
            return None
        state = connection.handshake_state()
        if state is HandshakeState.REFUSED:
            return KeyRefusedError(
                f"the service at {file.address} does not know the key in {self.path} "
                f"({file.owner!r}): it was revoked, or is for another environment",
                hint="ask an administrator of the environment for a new key file "
                f"(made there by: simenv keys add {file.owner} --role {file.role})",
            )
        if state is HandshakeState.ABORTED and connection.hang_ups >= MIN_HANG_UPS:
            return KeyRefusedError(
                f"{file.address} breaks off the handshake: its server key is not the one in "
                f"{self.path}, or it is no simenv service",
                hint="ask an administrator of the environment for a new key file "
                "(made there by: simenv keys add)",
            )
        return None

    def diagnose(self) -> tuple[str, str]:
        file = self._file
        if file is None or self._connection is None:
            return "it has never answered", ""
        reason = describe_handshake(self._connection.handshake_state(), file.address)
        return reason, f"ask where it runs: simenv status --name {file.name}"


def describe_handshake(state: HandshakeState, address: str) -> str:
    """Describe the state of the last attempt to connect to an address."""
    return {
        HandshakeState.UNKNOWN: f"{address} does not answer",
        HandshakeState.NOBODY: f"nothing listens at {address}",
        HandshakeState.CONNECTED: f"{address} does not end its handshake",
        HandshakeState.ABORTED: f"{address} broke off the handshake",
        HandshakeState.REFUSED: f"{address} refused the key",
        HandshakeState.OPEN: f"the connection to {address} stands, and it is silent",
    }[state]


def is_personal(path: Path) -> bool:
    """Return whether this is a file of `simenv keys add`; its permissions are not checked."""
    try:
        with path.open("rb") as source:
            return b'"secret_key"' in source.read(4_096)
    except OSError:
        return False
