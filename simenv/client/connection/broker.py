"""Address of another user's environment, for which its credential broker gives certificates.

`local:OWNER/NAME` is an environment of OWNER on this host; `munge:OWNER@HOST:PORT/NAME` one on
another node of the site. Nobody hands over a file: the kernel, or MUNGE, names this user to the
broker. Invariants: a certificate is believed only if the kernel, or MUNGE, names OWNER as its
sender; the secret key is made here for each connection and never leaves this process; a
certificate is renewed by a thread of the connection until that is closed.
"""

from __future__ import annotations

import pwd
import re
import secrets
import socket
import stat
import struct
import threading
import time
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from simenv import config
from simenv.errors import (
    DECODE_ERRORS,
    KeyRefusedError,
    NoServiceError,
    OptionError,
    SimenvError,
    by_code,
)
from simenv.wire import munge
from simenv.wire.keyfiles import KeyPair, new_pair
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest, UserCertificate
from simenv.wire.transport.zmq_transport import Connection, CurveConnection, HandshakeState

TIMEOUT_S = 3.0  # of one request
TRIES, PAUSE_S = 5, 0.1  # of a request that the broker did not answer; each pause is twice as long
RETRY_S = 5.0  # after a renewal that failed
_LOCAL = re.compile(r"local:(?P<owner>[^/@:]+)(/(?P<name>[^/]+))?\Z")
_MUNGE = re.compile(
    r"munge:(?P<owner>[^/@:]+)@(?P<host>[^/@]+):(?P<port>\d{1,5})(/(?P<name>[^/]+))?\Z"
)
_CREDENTIALS = struct.Struct("iII")  # ucred: pid, uid, gid


class CertifiedConnection(CurveConnection):
    """A connection whose certificate is renewed until it is closed."""

    def __init__(self, certificate: ConnectionCertificate, keys: KeyPair, route: bytes) -> None:
        self.closed = threading.Event()
        super().__init__(certificate.address, certificate.server_key, keys, route)

    def is_refused(self) -> bool:
        """Return whether the service has refused the certificate; then nothing can be sent."""
        return self.handshake_state() is HandshakeState.REFUSED

    def close(self) -> None:
        self.closed.set()
        super().close()


class ConnectionCertificate(Protocol):
    """What a certificate says: the service accepts a public key for `lifetime_s` seconds from now.
    The service is at `address`, and proves `server_key`."""

    @property
    def address(self) -> str: ...
    @property
    def server_key(self) -> str: ...
    @property
    def lifetime_s(self) -> float: ...


class CertificateAddress(ABC):
    """Base of the addresses whose connections use certificates: `_request` gets one."""

    path: Path
    patience_s = 0.0  # with a silent service; see Address
    standbys: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._certificate: ConnectionCertificate | None = None  # the last one
        self._connected: tuple[str, str] | None = None  # address and server key of the connection
        self._connection: CertifiedConnection | None = None
        self._public_key = ""
        self._denial: SimenvError | None = None
        self._prepared: tuple[KeyPair, ConnectionCertificate] | None = None

    def prepare(self) -> ConnectionCertificate:
        """Get the certificate of the next connection, and return it. Raises like `open`."""
        pair = new_pair()
        certificate = self._request(pair.public)
        self._prepared = pair, certificate
        return certificate

    @abstractmethod
    def _request(self, public_key: str, tries: int = TRIES) -> ConnectionCertificate:
        """Ask for a certificate. Raises SimenvError."""

    def open(self, identity: bytes) -> Connection:
        """Return a new connection, with a certificate of its own. Raises KeyRefusedError if the
        environment does not accept this user, NoServiceError if its broker cannot be reached."""
        self._denial = None
        if self._prepared is None:
            self.prepare()
        assert self._prepared is not None
        (pair, certificate), self._prepared = self._prepared, None
        self._public_key, self._certificate = pair.public, certificate
        self._connected = certificate.address, certificate.server_key
        connection = self._connection = CertifiedConnection(certificate, pair, identity)
        period_s = max(1.0, certificate.lifetime_s / 2)
        arguments = (weakref.ref(self), connection.closed, period_s)
        threading.Thread(
            target=_keep_renewing, args=arguments, name="simenv-certificate", daemon=True
        ).start()
        return connection

    def renew(self) -> bool:
        """Renew the certificate of the connection. Returns False if that failed; a refusal is
        kept for `refusal`."""
        try:
            self._certificate = self._request(self._public_key, tries=1)
        except KeyRefusedError as error:
            self._denial = error
            return True
        except SimenvError:
            return False
        self._denial = None  # one that was refused for a while, as by a group that was not read
        return True

    def moved(self) -> bool:
        """Return whether a new connection is needed: the broker has named another address since
        `open`, or the service does not know the certificate, because it has started again or this
        process was stopped for long."""
        last, connection = self._certificate, self._connection
        if last is None or connection is None:
            return False
        return connection.is_refused() or (last.address, last.server_key) != self._connected

    def learn(self, standbys: tuple[str, ...]) -> None:
        """Record them; the broker names the address of the service that leads."""
        self.standbys = standbys

    def refusal(self) -> SimenvError | None:
        return self._denial

    def remote_endpoint(self) -> tuple[str, str]:
        certificate = self._certificate or self._request(new_pair().public)
        return certificate.address, certificate.server_key


class BrokerAddress(CertificateAddress):
    """The address of a service that its broker knows. `path`: the address as text."""

    def __init__(self, text: str) -> None:
        """Raises OptionError for a text of another form and for an unknown owner, ConfigError."""
        parts = _LOCAL.match(text) or _MUNGE.match(text)
        if parts is None:
            hint = "local:OWNER/NAME, or munge:OWNER@HOST:PORT/NAME"
            raise OptionError(f"service {text[:80]!r} is no address of a broker", hint=hint)
        self.path = Path(text)
        self.name = config.check_name(parts["name"] or "default")
        self._owner = parts["owner"]
        self._owner_uid = _uid_of(parts["owner"])
        self._remote = (parts["host"], int(parts["port"])) if text.startswith("munge:") else None
        super().__init__()

    def diagnose(self) -> tuple[str, str]:
        hint = f"its owner, {self._owner}, starts it again: simenv up --name {self.name}"
        return f"the service of {self.path} does not answer", hint

    def _request(self, public_key: str, tries: int = TRIES) -> UserCertificate:
        """Ask the broker for a certificate. Raises SimenvError."""
        for attempt in range(tries):
            try:
                return self._ask(public_key)
            except OSError as error:
                if attempt == tries - 1 or isinstance(error, TimeoutError):
                    hint = "it has too much to do, or is starting: try again"
                    text = f"the broker of {self.path} does not answer: {error}"
                    raise NoServiceError(text, hint=hint) from error
                time.sleep(PAUSE_S * 2**attempt)
        raise AssertionError("tries is at least 1")

    def _ask(self, public_key: str) -> UserCertificate:
        """Send one request. Raises OSError if nothing answers, SimenvError."""
        nonce = secrets.token_hex(16)
        request = CertificateRequest(identity.IDENTITY_FORMAT, self.name, public_key, nonce)
        body = identity.line(request)
        with self._open_socket() as peer:
            if self._remote is not None:
                body = munge.encode(body, self._owner_uid)
            peer.sendall(body + b"\n")
            line = _line(peer)
        if self._remote is not None and line.startswith(munge.PREFIX):
            credential = munge.decode(line)
            self._check_sender(credential.uid)
            line = credential.payload
            is_sealed = True
        else:
            is_sealed = self._remote is None
        try:
            reply: UserCertificate | identity.Denial = identity.reply_of(line)
        except DECODE_ERRORS as error:
            text = f"{self.path} is not the address of a broker: {error}"
            raise NoServiceError(text, hint="use one version of simenv on both sides") from error
        if isinstance(reply, identity.Denial):
            raise by_code(reply.code)(reply.message, hint=reply.hint)
        if not is_sealed or (reply.nonce, reply.environment) != (nonce, self.name):
            raise NoServiceError(f"the answer of {self.path} is for another request: not believed")
        return reply

    def _open_socket(self) -> socket.socket:
        if self._remote is not None:
            try:
                return socket.create_connection(self._remote, TIMEOUT_S)
            except socket.gaierror as error:
                text = f"the host of {self.path} is not known here: {error.strerror}"
                raise NoServiceError(text) from error
        path = find_socket(self._owner_uid, self.name)
        if path is None:
            hint = f"{self._owner} sets use = 'local' in the table [identity] and starts it"
            text = f"{self._owner!r} has no environment {self.name!r} for other users on this host"
            raise NoServiceError(text, hint=hint)
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.settimeout(TIMEOUT_S)
            peer.connect(str(path))
            body = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self._check_sender(_CREDENTIALS.unpack(body)[1])
        except BaseException:
            peer.close()
            raise
        return peer

    def _check_sender(self, uid: int) -> None:
        if uid != self._owner_uid:
            text = (
                f"user {uid} answers at {self.path} in the place of {self._owner!r}: not believed"
            )
            raise NoServiceError(text, hint=f"ask {self._owner} for the address")


def find_socket(owner_uid: int, name: str) -> Path | None:
    """Return the socket of a broker; None if there is none. Folders that belong to another user, or
    that others can write, are passed over: anybody can take a name in a folder like /tmp."""
    folder = f"{config.BROKER_PREFIX}{owner_uid}"
    base = config.broker_base()
    for path in (base / folder, *base.glob(f"{folder}.*")):
        with suppress(OSError):
            info = path.lstat()
            is_owners = stat.S_ISDIR(info.st_mode) and info.st_uid == owner_uid
            socket_path = path / f"{name}.sock"
            if is_owners and not info.st_mode & 0o022 and socket_path.exists():
                return socket_path
    return None


def _uid_of(owner: str) -> int:
    """Return the user id of an owner, by name or number. Raises OptionError."""
    try:
        return int(owner) if owner.isdecimal() else pwd.getpwnam(owner).pw_uid
    except KeyError as error:
        hint = "the name or the user id of the owner of the environment"
        raise OptionError(f"there is no user {owner!r:.80} on this host", hint=hint) from error


def _line(peer: socket.socket) -> bytes:
    """Read one line. Raises OSError."""
    received = b""
    while not received.endswith(b"\n"):
        body = peer.recv(identity.MAX_REPLY_BYTES)
        received += body
        if not body or len(received) > identity.MAX_REPLY_BYTES:
            raise ConnectionResetError("it closed the connection")
    return received[:-1]


def _keep_renewing(
    address: weakref.ref[CertificateAddress], closed: threading.Event, period_s: float
) -> None:
    pause_s = period_s
    while not closed.wait(pause_s):
        target = address()
        if target is None:
            return
        pause_s = period_s if target.renew() else min(period_s, RETRY_S)
        del target
