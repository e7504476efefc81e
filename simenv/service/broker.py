"""Credential broker: the process that tells the service which user of the site asks for a
certificate.

A client connects to a Unix socket, where the kernel names its user (SO_PEERCRED, unix(7)), or over
TCP with a credential of MUNGE, sends one public key and gets the answer of the service. The broker
has no secret key and decides nothing. The service starts it, and it ends with the service, which it
reaches through an inherited socket pair. Invariants: a connection has one request, of
MAX_REQUEST_BYTES and PATIENCE_S at most; the connections and requests of a user, and what is
remembered of users, are bounded; nothing but the lookup of an account and munged can block.

    python -P -m simenv.service.broker NAME CHANNEL_FD UNIX_FD TCP_FD
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
import selectors
import socket
import struct
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from simenv.errors import KeyRefusedError, OptionError, QueueFullError, SimenvError
from simenv.wire import munge
from simenv.wire.messages import identity
from simenv.wire.messages.identity import MAX_REQUEST_BYTES, UserAccount

PATIENCE_S = 3.0  # from the acceptance of a connection to its end
MAX_CONNECTIONS = 256  # of one listener; then the oldest is closed
MAX_OF_ONE = 64  # of one user; of one address over TCP, then the oldest is closed
REQUESTS_PER_S, BURST = 50.0, 200.0  # of one user
MAX_REMEMBERED = 4_096  # users, accounts
MAX_NONCES = 100_000  # of credentials that were used
LOOKUP_S = 5.0  # in which a looked-up account is not looked up again for another request
MAX_GROUPS = 1_000  # of one user
A_PASS = 16  # connections accepted, accounts looked up
CHANNEL_BYTES = 2**16  # of a message of the service
NICE = 5
MEMORY_BYTES = 2**30  # of address space
NAME_CHARS = 64
_CREDENTIALS = struct.Struct("iII")  # ucred: pid, uid, gid
V = TypeVar("V")


class Remembered(Generic[V]):
    """The newest values by key, at most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        return self._values.get(key)

    def put(self, key: Hashable, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)


class RequestRates:
    """A token bucket for each user. Pure: times in seconds come in."""

    def __init__(self) -> None:
        self._buckets: Remembered[tuple[float, float]] = Remembered(MAX_REMEMBERED)

    def take(self, uid: int, now_s: float) -> bool:
        """Count one request of a user. Returns False above the user's rate."""
        tokens, before_s = self._buckets.get(uid) or (BURST, now_s)
        tokens = min(BURST, tokens + (now_s - before_s) * REQUESTS_PER_S)
        self._buckets.put(uid, (max(0.0, tokens - 1.0), now_s))
        return tokens >= 1.0


class AccountLookup:
    """AccountLookup and groups of users, from the name service of this host."""

    def __init__(self) -> None:
        self._looked_up: Remembered[tuple[float, UserAccount]] = Remembered(MAX_REMEMBERED)
        # The number of all users that this user namespace does not map.
        self._unmapped_uid = int(Path("/proc/sys/kernel/overflowuid").read_text())

    def of(self, uid: int) -> UserAccount:
        """Return the account of a user, looked up at most LOOKUP_S ago."""
        now_s = time.monotonic()
        result = self._looked_up.get(uid)
        if result is None or now_s - result[0] > LOOKUP_S:
            result = now_s, self.look_up(uid)
            self._looked_up.put(uid, result)
        return result[1]

    def look_up(self, uid: int) -> UserAccount:
        """Look up the account of a user; its name is "" if there is none."""
        try:
            account = pwd.getpwuid(uid)
        except KeyError:
            return UserAccount(uid, "")
        name = account.pw_name
        if uid == self._unmapped_uid or len(name) > NAME_CHARS or not name.isprintable():
            return UserAccount(uid, "")
        groups = []
        for gid in os.getgrouplist(name, account.pw_gid)[:MAX_GROUPS]:
            with suppress(KeyError):
                groups.append(grp.getgrgid(gid).gr_name)
        return UserAccount(uid, name, tuple(filter(str.isprintable, groups)))


@dataclass(eq=False, slots=True)
class Connection:
    """One connection of a client. `source`: its user, or its address over TCP."""

    socket: socket.socket
    pool: dict[Connection, None]  # the connections of its listener, in order of arrival
    source: int | str
    origin: str
    is_local: bool
    uid: int = -1  # -1: not known yet
    end_s: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)
    received: bytearray = field(default_factory=bytearray)


class Broker:
    """The event loop of the broker. One thread."""

    def __init__(self, environment: str, channel: socket.socket) -> None:
        """`channel`: to the service."""
        self._environment = environment
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._accounts = AccountLookup()
        self._rates = RequestRates()
        self._nonces: Remembered[bool] = Remembered(MAX_NONCES)
        self._of_source: Counter[int | str] = Counter()
        self._pools: list[dict[Connection, None]] = []
        self._waiting: dict[int, Connection] = {}  # by number of the request to the service
        self._number = 0
        self._checks: dict[int, None] = {}  # users to look up for the service
        self._is_over = False
        channel.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ, self._receive_from_service)

    def listen(self, listener: socket.socket) -> None:
        """Accept the connections of a listener, of local users or over TCP."""
        listener.setblocking(False)
        pool: dict[Connection, None] = {}
        self._pools.append(pool)
        self._selector.register(
            listener, selectors.EVENT_READ, partial(self._accept, listener, pool)
        )

    def run(self) -> None:
        """Run until the service has ended."""
        while not self._is_over:
            is_idle = not any(self._pools)
            timeout_s = 0.0 if self._checks else None if is_idle else PATIENCE_S / 10
            for key, _ in self._selector.select(timeout_s):
                key.data()
            self._close_late()
            for uid in list(self._checks)[:A_PASS]:
                del self._checks[uid]
                self._send_to_service(self._accounts.look_up(uid))

    def _accept(self, listener: socket.socket, pool: dict[Connection, None]) -> None:
        for _ in range(A_PASS):
            try:
                peer, address = listener.accept()
            except OSError:  # none is left, or it has gone
                return
            peer.setblocking(False)
            connection = self._connection(peer, pool, address)
            if connection is None:
                peer.close()
                continue
            if len(pool) >= MAX_CONNECTIONS:
                self._close(next(iter(pool)))
            pool[connection] = None
            self._of_source[connection.source] += 1
            read = partial(self._read, connection)
            self._selector.register(peer, selectors.EVENT_READ, read)

    def _connection(
        self, peer: socket.socket, pool: dict[Connection, None], address: object
    ) -> Connection | None:
        """Return a new connection; None if its user has too many of them, or too many requests."""
        if peer.family != socket.AF_UNIX:
            source = str(address[0]) if isinstance(address, tuple) else ""
            connection = Connection(peer, pool, source, source, False)
        else:
            body = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(body)
            connection = Connection(peer, pool, uid, f"process {pid} of uid {uid}", True, uid)
            if not self._rates.take(uid, time.monotonic()):
                return None
        if self._of_source[connection.source] >= MAX_OF_ONE:
            # Of a host whose users are not known yet, the oldest makes room: one user who keeps
            # connections open must not shut out the others.
            silent = (each for each in pool if each.source == connection.source and each.uid < 0)
            oldest = next(silent, None)
            if oldest is None:
                return None
            self._close(oldest)
        return connection

    def _close(self, connection: Connection) -> None:
        if connection.pool.pop(connection, False) is False:
            return
        with suppress(KeyError):  # it waits for the service
            self._selector.unregister(connection.socket)
        connection.socket.close()
        self._of_source[connection.source] -= 1
        if not self._of_source[connection.source]:
            del self._of_source[connection.source]

    def _close_late(self) -> None:
        now_s = time.monotonic()
        for pool in self._pools:
            while pool and next(iter(pool)).end_s < now_s:
                self._close(next(iter(pool)))
        for number in [n for n, each in self._waiting.items() if each not in each.pool]:
            del self._waiting[number]

    def _read(self, connection: Connection) -> None:
        """Read a part of the request; a connection that ends before its line is closed."""
        received = connection.received
        try:
            body = connection.socket.recv(MAX_REQUEST_BYTES + 1 - len(received))
        except BlockingIOError:
            return
        except OSError:
            body = b""
        received += body
        if not body or len(received) > MAX_REQUEST_BYTES:
            self._close(connection)
        elif received.endswith(b"\n"):
            self._selector.unregister(connection.socket)
            try:
                self._request(connection, bytes(received[:-1]))
            except msgspec.MsgspecError as error:
                refused = OptionError(f"this is no request for a certificate: {error}")
                self._deny(connection, refused)
            except SimenvError as error:
                self._deny(connection, error)

    def _request(self, connection: Connection, line: bytes) -> None:
        """Pass a request on to the service. Raises SimenvError, MsgspecError."""
        if not connection.is_local:
            credential = munge.decode(line)
            line, uid = credential.payload, credential.uid
            if not self._rates.take(uid, time.monotonic()):
                raise QueueFullError("too many requests for certificates", retry_after_s=1.0)
            connection.uid = uid
        request = identity.request_of(line)
        if request.format != identity.IDENTITY_FORMAT:
            text = f"format {request.format}, this broker reads {identity.IDENTITY_FORMAT}"
            raise OptionError(text, hint="use one version of simenv on both sides")
        if request.environment != self._environment:
            raise KeyRefusedError(f"this broker is that of {self._environment!r}")
        if not connection.is_local:
            used = connection.uid, request.nonce
            if self._nonces.get(used):  # MUNGE refuses it too, until munged starts again
                raise KeyRefusedError("this credential was used before", hint="ask for a new one")
            self._nonces.put(used, True)
        account = self._accounts.of(connection.uid)
        if not account.user:
            text = f"the uid {connection.uid} has no account on the host of the service"
            raise KeyRefusedError(text, hint="ask the site's administrators")
        self._number += 1
        self._waiting[self._number] = connection
        fields = (account.uid, account.user, account.groups)
        self._send_to_service(
            identity.UserRequest(self._number, *fields, connection.origin, request)
        )

    def _send_to_service(self, message: identity.UserRequest | UserAccount) -> None:
        """Send a message to the service, unless it has not read many: clients ask again."""
        with suppress(OSError):
            self._channel.send(identity.encode(message))

    def _receive_from_service(self) -> None:
        """Handle messages of the service."""
        for _ in range(A_PASS):
            try:
                body = self._channel.recv(CHANNEL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                body = b""
            if not body:
                self._is_over = True
                return
            message = identity.from_service(body)
            if isinstance(message, identity.CheckUsers):
                self._checks |= dict.fromkeys(message.uids)
                continue
            connection = self._waiting.pop(message.number, None)
            if connection is not None:
                self._answer(connection, message.reply)

    def _deny(self, connection: Connection, error: SimenvError) -> None:
        self._answer(connection, identity.Denial(error.code, error.message, error.hint))

    def _answer(
        self, connection: Connection, reply: identity.UserCertificate | identity.Denial
    ) -> None:
        """Send the answer and close the connection. Over TCP it is a credential of the service's
        user, as soon as the client's user is known."""
        body = identity.line(reply)
        with suppress(OSError, SimenvError):
            if not connection.is_local and connection.uid >= 0:
                body = munge.encode(body, connection.uid)
            connection.socket.send(body + b"\n")  # an empty buffer takes it all
        self._close(connection)


def main(argv: list[str]) -> None:
    """Run the broker with inherited sockets; -1 for a listener that there is not."""
    name, *numbers = argv
    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel, *listeners = (int(number) for number in numbers)
    broker = Broker(name, socket.socket(fileno=channel))
    for listener in listeners:
        if listener >= 0:
            broker.listen(socket.socket(fileno=listener))
    broker.run()


if __name__ == "__main__":
    main(sys.argv[1:])
