"""Address of a service on this machine or on another.

The address of a service on another machine is a file with address, server key and the user's keys.
Invariants: a key file that others can read is not used. A refusal by the service is reported at
once; a handshake that fails in another way is that of a service that is away, whatever its cause.

The address of a service of this user is its connection file, read again when the service restarts
elsewhere. Invariant: a connection file that belongs to another user, or that others can write, is
not used.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from simenv import config, files
from simenv.client.launch import SERVICE, last_lines
from simenv.config import ConnectionFile
from simenv.errors import DECODE_ERRORS, ConfigError, KeyRefusedError, NoServiceError, SimenvError
from simenv.process import runs
from simenv.text import elapsed
from simenv.wire.keyfiles import (
    KeyPair,
    UserKeyFile,
    exclusive,
    new_pair,
    read_private,
    write_private,
)
from simenv.wire.transport import zmq_transport
from simenv.wire.transport.unix_streams import UnixConnection, peer_of

NEXT_S = 3.0  # for one of several addresses to answer
NOBODY_S = 0.5  # where nothing listens, or something else does
MAX_STANDBYS = 8  # that a key file names
TAKEOVER_S = 30.0  # in which a standby answers at one of them


class KeyFileAddress:
    """The address in a file that `simenv keys add` made."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.stem
        self.patience_s = 0.0
        self._turn = 0  # of its addresses, if there are several
        self._silent_s = self._looked_s = 0.0  # since when the service is, and the last look
        self._file: UserKeyFile | None = None
        self._connection: zmq_transport.CurveConnection | None = None
        self._proved_key = ""  # the server key that a service has proved to this client

    @property
    def owner(self) -> str:
        """Name of the key. Raises ConfigError if the file cannot be used."""
        return read_private(self.path, UserKeyFile).owner

    @property
    def role(self) -> str:
        """Role of the key, as its file says. Raises ConfigError if the file cannot be used."""
        return read_private(self.path, UserKeyFile).role

    @property
    def gateway(self) -> str:
        """URL of the gateway, as the file says; "": none. Raises ConfigError if the file cannot be
        used."""
        return read_private(self.path, UserKeyFile).gateway

    def open(self, identity: bytes) -> zmq_transport.Connection:
        """Return a new connection. Raises ConfigError if the file cannot be used; other faults are
        reported by `refusal` and `diagnose`."""
        file = read_private(self.path, UserKeyFile)
        if self._connection is not None and self._file is not None and self._connection.was_open:
            self._proved_key = self._file.server_key
        addresses = (file.address, *file.standbys)
        self.patience_s = TAKEOVER_S if file.standbys else 0.0
        address = addresses[self._turn % len(addresses)]
        connection = zmq_transport.CurveConnection(address, file.server_key, file.keys, identity)
        self.name, self._file, self._connection = file.name, file, connection
        return connection

    def remote_endpoint(self) -> tuple[str, str]:
        """Return address and public key of the service."""
        file = self._file or read_private(self.path, UserKeyFile)
        return file.address, file.server_key

    @property
    def standbys(self) -> tuple[str, ...]:
        """The other addresses in the file."""
        return () if self._file is None else self._file.standbys

    def learn(self, standbys: tuple[str, ...]) -> None:
        """Keep the addresses of the standbys that the service has named, in the file too where it
        can be written: they are tried when the service is away. Those before are kept after them,
        since the service may have moved to one of them."""
        file, connection = self._file, self._connection
        if file is None or connection is None:
            return
        named = (*standbys, connection.address, *file.standbys)
        others = [each for each in dict.fromkeys(named) if each not in ("", file.address)]
        kept = tuple(others[:MAX_STANDBYS])
        if set(kept) == set(file.standbys):
            return
        self._file = msgspec.structs.replace(file, standbys=kept)
        self.patience_s = TAKEOVER_S
        with suppress(ConfigError, OSError), exclusive(self.path):
            if read_private(self.path, UserKeyFile) == file:
                write_private(self.path, self._file)

    def moved(self) -> bool:
        """Return whether the key file has been replaced since `open`, or it is the turn of another
        one of its addresses: each has NEXT_S to answer, or NOBODY_S."""
        now = time.monotonic()
        if now - self._looked_s > NEXT_S / 2:  # it was not looked for: it has answered meanwhile
            self._silent_s = now
        self._looked_s = now
        if self.standbys and now - self._silent_s >= (NOBODY_S if self._is_elsewhere() else NEXT_S):
            self._silent_s = now
            self._turn += 1
            return True
        try:
            file = self._file
            if file is None:
                return False
            found = read_private(self.path, UserKeyFile)
            return msgspec.structs.replace(found, standbys=file.standbys) != file
        except ConfigError:
            return False

    def _is_elsewhere(self) -> bool:
        found = zmq_transport.HandshakeState
        state = None if self._connection is None else self._connection.handshake_state()
        return state in (found.NOBODY, found.ABORTED)

    def refusal(self) -> SimenvError | None:
        connection, file = self._connection, self._file
        if connection is None or file is None:
            return None
        if connection.handshake_state() is not zmq_transport.HandshakeState.REFUSED:
            return None
        return KeyRefusedError(
            f"the service at {file.address} does not know the key in {self.path} "
            f"({file.owner!r}): it was revoked, has expired, or is for another environment",
            hint="ask an administrator of the environment for a new key file "
            f"(made there by: simenv keys add {file.owner} --role {file.role})",
        )

    def diagnose(self) -> tuple[str, str]:
        file, connection = self._file, self._connection
        if file is None or connection is None:
            return "it has never answered", ""
        state = connection.handshake_state()
        reason = describe_handshake(state, connection.address)
        hint = f"ask where it runs: simenv status --name {file.name}"
        is_aborted = state is zmq_transport.HandshakeState.ABORTED
        if is_aborted and not connection.was_open and self._proved_key != file.server_key:
            hint += f"; or its server key is not the one in {self.path}: ask for a new key file"
        return reason, hint


def describe_handshake(state: zmq_transport.HandshakeState, address: str) -> str:
    """Describe the state of the last attempt to connect to an address."""
    return {
        zmq_transport.HandshakeState.UNKNOWN: f"{address} does not answer",
        zmq_transport.HandshakeState.NOBODY: f"nothing listens at {address}",
        zmq_transport.HandshakeState.CONNECTED: f"{address} does not end its handshake",
        zmq_transport.HandshakeState.ABORTED: f"{address} broke off the handshake",
        zmq_transport.HandshakeState.REFUSED: f"{address} refused the key",
        zmq_transport.HandshakeState.OPEN: f"the connection to {address} stands, and it is silent",
    }[state]


def is_personal(path: Path) -> bool:
    """Return whether this is a file of `simenv keys add`; its permissions are not checked."""
    try:
        with path.open("rb") as source:
            return b'"secret_key"' in source.read(4_096)
    except OSError:
        return False


FORMAT = 1
PROBE_S = 1.0
_READ = msgspec.json.Decoder(ConnectionFile).decode


class Address(Protocol):
    """Protocol to find and open a service, and to describe one that does not answer."""

    name: str
    path: Path  # its connection file
    patience_s: float  # in which a silent service may be replaced by a standby; 0: by none

    @property
    def standbys(self) -> tuple[str, ...]:
        """Addresses for other machines at which standbys will listen."""

    def open(self, identity: bytes) -> zmq_transport.Connection:
        """Return a new connection. Raises NoServiceError if the service has certainly ended."""

    def learn(self, standbys: tuple[str, ...]) -> None:
        """Keep the addresses of the standbys that the service has named."""

    def moved(self) -> bool:
        """Return whether the service now listens elsewhere than at the last `open`."""

    def refusal(self) -> SimenvError | None:
        """Return the error with which this client is certainly refused, or None."""

    def diagnose(self) -> tuple[str, str]:
        """Return what is known about a silent service, and a hint."""

    def remote_endpoint(self) -> tuple[str, str]:
        """Return the TCP address for other machines and the public key of the service; else ""."""


class FileAddress:
    """The address in a connection file: a Unix socket if the service is on this machine, else its
    TCP address for the environment's own user."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.parent.name
        self.patience_s = 0.0
        self._file: ConnectionFile | None = None
        self._connection: UnixConnection | zmq_transport.CurveConnection | None = None

    def open(self, identity: bytes) -> zmq_transport.Connection:
        file = read(self.path)
        self.name, self.patience_s = file.name, file.takeover_s
        if ended(file):
            self._file = file
            hint = self.diagnose()[1]
            raise NoServiceError(f"no service {file.name!r}: {self.diagnose()[0]}", hint=hint)
        self._connection, self._file = self._connected(file, identity), file
        return self._connection

    def _connected(
        self, file: ConnectionFile, identity: bytes
    ) -> UnixConnection | zmq_transport.CurveConnection:
        socket_path, own = Path(file.sockets) / zmq_transport.CLIENT_SOCKET, file.own
        is_local = file.node == os.uname().nodename
        if files.weakness(socket_path.parent) is None:
            stream_path = socket_path.with_name(zmq_transport.CLIENT_STREAM)
            with suppress(NoServiceError):  # a service that is restarting
                return UnixConnection(stream_path, identity, file.pid if is_local else 0)
        if _is_own_socket(socket_path, must_listen=not is_local):
            address = zmq_transport.endpoint(socket_path, must_exist=True)
            return zmq_transport.CurveConnection(address, file.socket_key, new_pair(), identity)
        if own is None and is_local:
            message = f"{socket_path} is not of this user, or others can write its folder: not used"
            hint = f"simenv down{_option(file.name)}; simenv up{_option(file.name)}"
            raise NoServiceError(message, hint=hint)
        if own is None:
            raise NoServiceError(
                f"environment {file.name!r} runs on {file.node}, and listens for no other machine",
                hint=f"there: simenv down{_option(file.name)}; simenv up{_option(file.name)} "
                "--listen tcp://INTERFACE:0; or work there",
            )
        keys = KeyPair(own.public, own.secret)
        return zmq_transport.CurveConnection(own.address, own.server_key, keys, identity)

    def learn(self, standbys: tuple[str, ...]) -> None:
        """Do nothing: the service writes them into the file."""

    def moved(self) -> bool:
        try:
            file = read(self.path)
        except NoServiceError:
            return False
        last = self._file
        if last is None or ended(file):
            return False
        if isinstance(self._connection, UnixConnection) and self._connection.is_lost:
            return True
        way = (file.sockets, file.socket_key, file.own)
        return way != (last.sockets, last.socket_key, last.own)

    def refusal(self) -> SimenvError | None:
        connection = self._connection
        if (
            not isinstance(connection, zmq_transport.CurveConnection)
            or connection.handshake_state() is not zmq_transport.HandshakeState.REFUSED
            or self.moved()
        ):
            return None
        message = f"the service at {connection.address} does not know the key in {self.path}"
        hint = "the file is not the one it wrote; simenv up names it as key"
        return KeyRefusedError(message, hint=hint)

    def remote_endpoint(self) -> tuple[str, str]:
        file = self._file or read(self.path)
        return file.address, file.server_key

    @property
    def standbys(self) -> tuple[str, ...]:
        """Those that the file names now."""
        try:
            return read(self.path).standbys
        except NoServiceError:
            return ()

    def diagnose(self) -> tuple[str, str]:
        log = self.path.with_name("service.log")
        file = self._file
        # On another machine the live journal may be out of reach.
        restore = "" if file is None or file.node == os.uname().nodename else " --restore"
        start = f"simenv up{_option(self.name)}{restore}"
        hint = f"see {log}{_last_log_line(log)}; start again: {start}"
        if file is None:
            return "it has never answered", hint
        state = "has ended" if ended(file) else "does not answer"
        connection = self._connection
        if isinstance(connection, zmq_transport.CurveConnection) and not ended(file):
            handshake = connection.handshake_state()
            if handshake is not zmq_transport.HandshakeState.OPEN:
                state = f"is out of reach: {describe_handshake(handshake, connection.address)}"
        try:
            age = f"; last sign of life {elapsed(time.time() - self.path.stat().st_mtime)} ago"
        except OSError:
            age = "; its connection file is gone"
        return f"process {file.pid} on {file.node} {state}{age}", hint


def find(name: str | None = None, file: Path | None = None) -> Address:
    """Return the address of `file`, else of `name`, else of SIMENV_SERVICE, else of `default`. A
    file may be the address of a broker. Raises ConfigError, OptionError."""
    path = file or (None if name else config.service_file())
    if path is None:
        path = config.connection_file(name or "default")
    elif str(path).startswith(config.BROKERS):
        from simenv.client.connection.broker import BrokerAddress

        return BrokerAddress(str(path))
    elif is_personal(path):
        return KeyFileAddress(path)
    return FileAddress(path)


def read(path: Path) -> ConnectionFile:
    """Read a connection file. Raises NoServiceError for a missing, unsafe or invalid file."""
    try:
        with path.open("rb") as source:
            info = os.fstat(source.fileno())
            body = source.read(65_536)
    except FileNotFoundError as error:
        name = path.parent.name
        if path != config.home_root() / name / "connection.json":
            hint = "its service has ended, or it is another file: simenv up names it as key"
            raise NoServiceError(f"there is no connection file {path}", hint=hint) from error
        message = f"no environment {name!r} is up (there is no {path})"
        raise NoServiceError(message, hint=f"start one: simenv up{_option(name)}") from error
    except OSError as error:
        raise NoServiceError(f"cannot read {path}: {error.strerror}") from error
    if info.st_uid != os.getuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        message = f"{path} belongs to someone else or can be written by others: not believed"
        raise NoServiceError(message, hint=f"chmod 600 {path}, or start your own: simenv up")
    try:
        file = _READ(body)
    except DECODE_ERRORS as error:
        raise NoServiceError(f"{path} is not a connection file: {error}") from error
    if file.format != FORMAT:
        raise NoServiceError(
            f"{path} has format {file.format} (simenv {file.version}), this client reads {FORMAT}",
            hint="use one version of simenv on both sides",
        )
    if file.own is not None and info.st_mode & 0o077:
        message = f"{path} holds a secret key and can be opened by others: not used"
        hint = f"chmod 600 {path}; if others may have read it: simenv down, simenv up"
        raise NoServiceError(message, hint=hint)
    return file


def ended(file: ConnectionFile) -> bool:
    """Return whether the service has certainly ended; False for a service on another node."""
    return file.node == os.uname().nodename and not runs(
        file.pid, SERVICE, start_ticks=file.start_ticks
    )


def _is_own_socket(path: Path, *, must_listen: bool) -> bool:
    """Return whether the path is a socket of this user, in a folder that no other user can write.

    The path comes from a file that several machines may see, and another user of this machine may
    have created a folder of that name. `must_listen`: if False, the service is on this machine, and
    a socket without a listener is accepted, because the service may be restarting.
    """
    if not os.path.lexists(path.parent):
        return not must_listen
    if files.weakness(path.parent) is not None:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except OSError:
            return not must_listen
        return files.is_current_user(peer_of(probe)[1])


def _last_log_line(log: Path) -> str:
    lines = last_lines(log)
    return f" (last line: {lines[0][:200]})" if lines else ""


def _option(name: str) -> str:
    return "" if name == "default" else f" --name {name}"
