"""Credential broker: the process that tells the service which user of the site asks for a
certificate.

A client connects to a Unix socket, where the kernel names its user (SO_PEERCRED, unix(7)), or over
TCP with a credential of MUNGE, sends one public key and gets the answer of the service. The broker
has no secret key and decides nothing. The service starts it, and it ends with the service, which it
reaches through an inherited socket pair. Invariants: a connection has one request, of
MAX_REQUEST_BYTES and PATIENCE_S at most; the connections and requests of a user, and what is
remembered of users, are bounded; nothing but the lookup of an account can block its event loop:
munged, which may not answer, is called in threads.

    python -P -m simenv.service.broker NAME CHANNEL_FD UNIX_FD TCP_FD
"""

from __future__ import annotations

import grp
import os
import pwd
import selectors
import socket
import struct
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from simenv.errors import (
    DECODE_ERRORS,
    KeyRefusedError,
    NoServiceError,
    OptionError,
    QueueFullError,
    SimenvError,
)
from simenv.sandbox.limits import limit_process
from simenv.token_buckets import Rate, TokenBuckets
from simenv.wire import munge
from simenv.wire.messages import identity
from simenv.wire.messages.identity import MAX_REQUEST_BYTES, UserAccount

PATIENCE_S = 3.0  # from the acceptance of a connection to its end
MUNGE_S = 2.0  # from a request to its refusal because munged does not answer; clients wait longer
MUNGE_CALLS = 4  # at once; the others wait
MAX_CONNECTIONS = 256  # of one listener; then the oldest without a request is closed
MAX_OF_ONE = 64  # of one user; of one address over TCP, then the oldest of it is closed
REQUESTS = Rate(50.0, 200.0)  # of one user
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
_ANSWERS = ""  # key of the calls of munged that encode answers
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
    is_complete: bool = False  # its request has been read
    munge_end_s: float = 0.0  # of all calls of munged for it


@dataclass(eq=False, slots=True)
class MungeCall:
    """A call of munged; `then` gets its result in the thread of the event loop."""

    connection: Connection
    source: int | str  # with which it takes turns
    call: Callable[[], Any]
    then: Callable[[Connection, Any], None]


class Broker:
    """The event loop of the broker, and the threads that call munged."""

    def __init__(self, environment: str, channel: socket.socket) -> None:
        """`channel`: to the service."""
        self._environment = environment
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._accounts = AccountLookup()
        self._rates = TokenBuckets(MAX_REMEMBERED)
        self._nonces: Remembered[bool] = Remembered(MAX_NONCES)
        self._of_source: Counter[int | str] = Counter()
        self._pools: list[dict[Connection, None]] = []
        self._waiting: dict[int, Connection] = {}  # by number of the request to the service
        self._number = 0
        self._checks: dict[int | str, None] = {}  # users to look up for the service
        self._is_over = False
        self._munge_threads = ThreadPoolExecutor(MUNGE_CALLS, "munge")
        self._munge_calls: dict[Connection, MungeCall] = {}  # that have not ended
        self._munge_queue: dict[int | str, list[MungeCall]] = {}  # by source
        self._munge_running = 0  # in threads, also of connections that were closed
        self._munge_results: SimpleQueue[tuple[MungeCall, Future[Any]]] = SimpleQueue()
        self._wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wakeup_fd, selectors.EVENT_READ, self._receive_munge_results)
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
            for user in list(self._checks)[:A_PASS]:
                del self._checks[user]
                with suppress(KeyError):  # no account has this name
                    uid = user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
                    self._send_to_service(self._accounts.look_up(uid))

    def _accept(self, listener: socket.socket, pool: dict[Connection, None]) -> None:
        for _ in range(A_PASS):
            try:
                peer, address = listener.accept()
            except OSError:  # none is left, or it has gone
                return
            peer.setblocking(False)
            connection = self._connection(peer, pool, address)
            if connection is None or not self._make_room(connection):
                peer.close()
                continue
            pool[connection] = None
            self._of_source[connection.source] += 1
            read = partial(self._read, connection)
            self._selector.register(peer, selectors.EVENT_READ, read)

    def _connection(
        self, peer: socket.socket, pool: dict[Connection, None], address: object
    ) -> Connection | None:
        """Return a new connection; None if its user has sent too many requests."""
        if peer.family != socket.AF_UNIX:
            source = str(address[0]) if isinstance(address, tuple) else ""
            connection = Connection(peer, pool, source, source, False)
        else:
            body = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(body)
            connection = Connection(peer, pool, uid, f"process {pid} of uid {uid}", True, uid)
            if self._rates.take(uid, REQUESTS, time.monotonic()):
                return None
        return connection

    def _make_room(self, connection: Connection) -> bool:
        """Return whether a new connection may stay. The oldest without a request makes room, else
        the oldest whose user is not known yet: one user who keeps connections open must not shut
        out others, of its host or of all. A user whom the kernel names shuts out itself alone."""
        others = (each for each in connection.pool if each.uid < 0 or not each.is_complete)
        if self._of_source[connection.source] >= MAX_OF_ONE:
            if connection.is_local:
                return False
            others = (each for each in others if each.source == connection.source)
        elif len(connection.pool) < MAX_CONNECTIONS:
            return True
        oldest = min(others, key=lambda each: each.is_complete, default=None)
        if oldest is not None:
            self._close(oldest)
        return oldest is not None

    def _close(self, connection: Connection) -> None:
        if connection.pool.pop(connection, False) is False:
            return
        with suppress(KeyError):  # it waits for the service
            self._selector.unregister(connection.socket)
        connection.socket.close()
        call = self._munge_calls.pop(connection, None)
        if call is not None and call in (waiting := self._munge_queue.get(call.source, [])):
            waiting.remove(call)
            if not waiting:
                del self._munge_queue[call.source]
        self._of_source[connection.source] -= 1
        if not self._of_source[connection.source]:
            del self._of_source[connection.source]

    def _close_late(self) -> None:
        now_s = time.monotonic()
        for connection in [each for each in self._munge_calls if each.munge_end_s < now_s]:
            text = f"munged of the service's host does not answer within {MUNGE_S:g} s"
            hint = "ask the site's administrators: is munged of that host running?"
            self._refuse_unsealed(connection, NoServiceError(text, hint=hint))
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
            connection.is_complete, line = True, bytes(received[:-1])
            if connection.is_local:
                self._request(connection, line)
            else:
                connection.munge_end_s = min(time.monotonic() + MUNGE_S, connection.end_s)
                self._call_munge(connection, self._request_of_credential, munge.decode, line)

    def _call_munge(
        self,
        connection: Connection,
        then: Callable[[Connection, V], None],
        call: Callable[..., V],
        *arguments: object,
    ) -> None:
        """Call munged in a thread; `then` gets the result in the thread of the event loop."""
        source = _ANSWERS if connection.uid >= 0 else connection.source
        bound = MungeCall(connection, source, partial(call, *arguments), then)
        self._munge_calls[connection] = bound
        self._munge_queue.setdefault(source, []).append(bound)
        self._start_munge_calls()

    def _start_munge_calls(self) -> None:
        """Start calls while threads are free: answers first, then one of each address in turn, the
        newest first (adaptive LIFO): in a flood a client from the same address has its turn before
        it gives up."""
        queue = self._munge_queue
        while queue and self._munge_running < MUNGE_CALLS:
            source = _ANSWERS if _ANSWERS in queue else next(iter(queue))
            calls = queue.pop(source)
            call = calls.pop()
            if calls:
                queue[source] = calls
            self._munge_running += 1
            future = self._munge_threads.submit(call.call)
            future.add_done_callback(partial(self._wake_up, call))

    def _wake_up(self, call: MungeCall, future: Future[Any]) -> None:
        """Pass a result on to the event loop. Called in a thread of munged."""
        self._munge_results.put((call, future))
        os.eventfd_write(self._wakeup_fd, 1)

    def _receive_munge_results(self) -> None:
        os.eventfd_read(self._wakeup_fd)
        while not self._munge_results.empty():
            call, future = self._munge_results.get()
            self._munge_running -= 1
            if self._munge_calls.get(call.connection) is not call:
                continue  # the connection was closed
            del self._munge_calls[call.connection]
            try:
                result = future.result()
            except SimenvError as error:
                self._refuse_unsealed(call.connection, error)
            else:
                call.then(call.connection, result)
        self._start_munge_calls()

    def _request_of_credential(self, connection: Connection, credential: munge.Credential) -> None:
        uid = credential.uid
        if self._rates.take(uid, REQUESTS, time.monotonic()):
            error = QueueFullError("too many requests for certificates", retry_after_s=1.0)
            self._refuse_unsealed(connection, error)
        else:
            connection.uid = uid
            self._request(connection, credential.payload)

    def _request(self, connection: Connection, line: bytes) -> None:
        """Pass a request on to the service, or refuse it."""
        try:
            self._pass_on(connection, line)
        except DECODE_ERRORS as error:
            refused = OptionError(f"this is no request for a certificate: {error}")
            self._deny(connection, refused)
        except SimenvError as error:
            self._deny(connection, error)

    def _pass_on(self, connection: Connection, line: bytes) -> None:
        """Pass a request on to the service. Raises SimenvError, DECODE_ERRORS."""
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
                self._checks |= dict.fromkeys(message.users)
                continue
            connection = self._waiting.pop(message.number, None)
            if connection is not None:
                self._answer(connection, message.reply)

    def _deny(self, connection: Connection, error: SimenvError) -> None:
        self._answer(connection, identity.Denial(error.code, error.message, error.hint))

    def _refuse_unsealed(self, connection: Connection, error: SimenvError) -> None:
        """Refuse a request without a credential: munged does not answer, or the client's user is
        not known."""
        denial = identity.Denial(error.code, error.message, error.hint)
        self._send(connection, identity.line(denial))

    def _answer(
        self, connection: Connection, reply: identity.UserCertificate | identity.Denial
    ) -> None:
        """Answer a request. Over TCP the answer is a credential of the service's user."""
        body = identity.line(reply)
        if connection.is_local:
            self._send(connection, body)
        elif connection in connection.pool:
            self._call_munge(connection, self._send, munge.encode, body, connection.uid)

    def _send(self, connection: Connection, body: bytes) -> None:
        """Send the answer and close the connection."""
        with suppress(OSError):
            connection.socket.send(body + b"\n")  # an empty buffer takes it all
        self._close(connection)


def main(argv: list[str]) -> None:
    """Run the broker with inherited sockets; -1 for a listener that there is not."""
    name, *numbers = argv
    os.nice(NICE)
    limit_process(address_bytes=MEMORY_BYTES)
    channel, *listeners = (int(number) for number in numbers)
    broker = Broker(name, socket.socket(fileno=channel))
    for listener in listeners:
        if listener >= 0:
            broker.listen(socket.socket(fileno=listener))
    broker.run()
    os._exit(0)  # a thread that waits for munged must not hold back the end


if __name__ == "__main__":
    main(sys.argv[1:])
