"""Service side of TCP with CurveZMQ: remote clients and workers, each with a key.

libzmq delivers no byte of a message before the handshake, in which it asks `_answer_zap` about the
client's public key. Each message then carries that key, which is looked up again, so that a revoked
key has no effect any more at once. The listener has its own I/O thread, so that unauthenticated
peers do not slow down local sockets. TCP keepalive replaces the heartbeats of ZeroMQ, at both ends:
libzmq 4.3.5 aborts the process if a heartbeat timer expires on a failed connection whose messages
are not read. Each connection that a client opens has a random routing id of its own: of two with
one id libzmq reads one alone, and of the other, once messages wait there, not even the end, so that
its descriptor stays for ever. An id comes twice only when libzmq connects again by itself, and then
the new connection takes over the id. Invariants: no message without a key; nothing blocks; the work
for unauthenticated peers in one pass is bounded, and so are the bytes that wait for a client
(`RouterSender`) and those that it sends (`ReadAhead`).
"""

from __future__ import annotations

import contextlib
import os
import socket as stdlib_socket
import time
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Any

import msgspec
import zmq
from zmq.utils import z85

from simenv.wire import codec
from simenv.wire.keyfiles import KeyPair
from simenv.wire.messages.client import FAR_MESSAGE_BYTES, Refusal, Refused
from simenv.wire.rights import Identity, Role
from simenv.wire.transport import sockets
from simenv.wire.transport.connection_limiter import (
    MAX_AUTHENTICATED,
    MAX_PER_KEY,
    MAX_UNAUTHENTICATED,
    ConnectionLimiter,
)
from simenv.wire.transport.read_ahead import ReadAhead

HANDSHAKE_MS = 3_000  # limit of a handshake; then the connection is closed
BACKLOG = 512
SEND_QUEUE_MESSAGES = 2_000
ZAP_A_PASS = 32
EVENTS_A_PASS = 256
LINGER_S = 1.0  # between the last message to a peer and the end of its connection
_DOMAIN = b"simenv"
_ZAP = "inproc://zeromq.zap.01"  # address of the authentication handler, RFC 27
_NOBLOCK = int(zmq.NOBLOCK)
_ACCEPTED, _DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)


class ListenerOptions(msgspec.Struct, frozen=True):
    """Options of one remote listener; the defaults are for clients."""

    prefix: bytes = b"far/"  # of the names of its peers
    max_authenticated: int = MAX_AUTHENTICATED  # connections
    max_per_key: int = MAX_PER_KEY
    max_unauthenticated: int = MAX_UNAUTHENTICATED  # above it the oldest is cut off
    message_bytes: int = FAR_MESSAGE_BYTES  # of one message; a peer that sends more is cut off
    queued_messages: int = 4  # read ahead for each; the rest waits in its TCP connection
    # Bytes to read from one connection before the next one's turn, so that no large message delays
    # the small ones of others. 0: chosen by the kernel.
    turn_bytes: int = 2**17
    # Of the bytes that wait for a peer; None: peers are trusted.
    bounds: sockets.SendBufferLimits | None = sockets.REMOTE_BOUNDS
    workers: bool = False  # accept keys of the role worker
    setting: str = "listen"  # where the configuration has the address
    keepalive: sockets.Keepalive = sockets.CLIENT_KEEPALIVE


CLIENTS = ListenerOptions()


class _Peer(msgspec.Struct, frozen=True, gc=False):
    """Last sender with a routing id: its key, owner and connection."""

    route: bytes
    key: str
    fd: int
    owner: str


class TcpListener:
    """One ROUTER socket on one address. Used from the loop's thread. `on_rejection` gets messages
    about unknown keys and closed connections."""

    def __init__(
        self,
        host: str,
        port: int,
        keys: KeyPair,
        on_rejection: Callable[[str], None] = lambda _: None,
        options: ListenerOptions = CLIENTS,
    ) -> None:
        # One I/O thread: of two, the end of a connection could be told after the begin of another
        # with the same descriptor.
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._options = options
        self._limiter = ConnectionLimiter(
            options.max_authenticated, options.max_per_key, options.max_unauthenticated
        )
        self._admitted: dict[str, Identity] = {}
        self._peers: dict[bytes, _Peer] = {}
        self._departed: list[bytes] = []  # peers that `take_departed` has not returned
        self._by_fd: dict[int, set[bytes]] = {}
        self._by_key: dict[str, set[bytes]] = {}
        self._rejected: set[int] = set()  # descriptors that got the refusal for too many
        # A heap: (time to cut, descriptor, its connection). A descriptor is used again, for another
        # connection, as soon as the peer has closed the one that was to be cut.
        self._leaving: list[tuple[float, int, int]] = []
        self._connections: dict[int, int] = {}  # number of the present one by descriptor
        self._on_rejection = on_rejection
        self._frame: zmq.Frame | None = None  # the last one received
        self._read_ahead = ReadAhead(self._cut, on_rejection) if options.bounds else None
        try:
            self._zap = context.socket(zmq.REP)
            self._zap.bind(_ZAP)
            self._router = self._bound(context, host, port, keys)
            self._outgoing = sockets.RouterSender(self._router, options.bounds)
            self.port = _port(self._router)
        except BaseException:
            context.destroy(linger=0)
            raise
        self.sockets: tuple[Any, ...] = (self._router, self._zap, self._monitor)
        self._receivers: list[Callable[[], None]] = []

    def _bound(
        self, context: zmq.Context[zmq.Socket[bytes]], host: str, port: int, keys: KeyPair
    ) -> zmq.Socket[bytes]:
        router = context.socket(zmq.ROUTER)
        router.set(zmq.CURVE_SERVER, 1)
        router.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        router.set(zmq.ZAP_DOMAIN, _DOMAIN)
        router.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        router.set(zmq.BACKLOG, BACKLOG)
        router.set(zmq.MAXMSGSIZE, self._options.message_bytes + sockets.SEALED_BYTES)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        router.set(zmq.RCVHWM, self._options.queued_messages)
        if self._options.turn_bytes:
            router.set(zmq.RCVBUF, self._options.turn_bytes)
        router.set(zmq.LINGER, 1_000)
        self._options.keepalive.set_on(router)
        router.set(zmq.IPV6, int(":" in host))
        router.set(zmq.ROUTER_HANDOVER, 1)
        router.monitor("inproc://monitor", _ACCEPTED | _DISCONNECTED)
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # a full queue would stop the I/O thread
        self._monitor.connect("inproc://monitor")
        url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
        try:
            router.bind(url.replace(f":{port}", ":*") if not port else url)
        except zmq.ZMQError as error:
            cause = OSError(error.errno, os.strerror(error.errno or 0))  # ZeroMQ's has the URL
            raise sockets.listen_error(self._options.setting, url, port, cause) from error
        return router

    @property
    def message_bytes(self) -> int:
        return self._options.message_bytes

    @property
    def has_pending_events(self) -> bool:
        return bool(self._leaving) or self._outgoing.waits

    def admit(self, keys: Mapping[str, Identity], revocation_notice: bytes) -> None:
        """Replace the table of accepted keys; see `Listener.admit`."""
        if not self._options.workers:
            keys = {
                key: identity for key, identity in keys.items() if identity.role is not Role.WORKER
            }
        before, self._admitted = self._admitted, dict(keys)
        for name, peer in list(self._peers.items()):
            if keys.get(peer.key) != before.get(peer.key):
                self._dismiss(name, peer, revocation_notice)

    def admit_key(self, key: str, identity: Identity) -> None:
        """Accept one more key; the others stay as they are."""
        self._admitted[key] = identity

    def is_admitted(self, key: str) -> bool:
        """Return whether a key is accepted."""
        return key in self._admitted

    def revoke_key(self, key: str, revocation_notice: bytes) -> None:
        """Revoke one key; its peers get `revocation_notice`, unless that is empty, and are cut
        off."""
        self._admitted.pop(key, None)
        for name in tuple(self._by_key.get(key, ())):
            self._dismiss(name, self._peers[name], revocation_notice)

    def _dismiss(self, name: bytes, peer: _Peer, revocation_notice: bytes) -> None:
        if revocation_notice:
            self._outgoing.send(peer.route, revocation_notice, peer.owner)
        self._forget(name, peer)
        self._leave(time.monotonic() + LINGER_S, peer.fd)

    def watch(self, fd: int, receive: Callable[[], None]) -> None:
        """Call `receive`, which must not block, whenever `fd` can be read. Called before the
        listener's sockets are polled."""
        self.sockets += (fd,)
        self._receivers.append(receive)

    def process_events(self) -> None:
        self._read_connection_events()
        for receive in self._receivers:
            receive()
        for _ in range(ZAP_A_PASS):
            if not sockets.readable(self._zap):
                break
            self._answer_zap(self._zap.recv_multipart(_NOBLOCK))
        for route in self._outgoing.stalled():
            self._drop_stalled_peer(route)
        self._cut_leaving()

    def _drop_stalled_peer(self, route: bytes) -> None:
        """Cut off a client that does not read its answers."""
        for peer in self._peers.values():
            if peer.route == route:
                self._leave(0.0, peer.fd)
                self._on_rejection(f"a connection of {peer.owner!r} was cut off: it reads nothing")

    def _answer_zap(self, frames: list[bytes]) -> None:
        """Answer one authentication request. Its frames are, by RFC 27: version, request, domain,
        address, identity, mechanism, credentials."""
        key = ""
        if len(frames) == 7 and frames[5] == b"CURVE" and len(frames[6]) == 32:
            key = z85.encode(frames[6]).decode()
        is_admitted = key in self._admitted
        if not is_admitted:
            sender = frames[3].decode(errors="replace") if len(frames) > 3 else "an unknown address"
            self._on_rejection(f"a key that is not known was refused, from {sender}")
        code, text, user = (b"200", b"", key) if is_admitted else (b"400", b"unknown key", "")
        request = frames[1] if len(frames) > 1 else b""
        self._zap.send_multipart((b"1.0", request, code, text, user.encode(), b""), _NOBLOCK)

    def _read_connection_events(self, limit: int = EVENTS_A_PASS) -> None:
        monitor = self._monitor
        for _ in range(limit):
            if not sockets.readable(monitor):
                return
            event = monitor.recv_multipart(_NOBLOCK)[0]
            kind = int.from_bytes(event[:2], "little")
            fd = int.from_bytes(event[2:6], "little", signed=True)
            if kind == _ACCEPTED:
                self._forget_descriptor(fd)
                if self._read_ahead is not None:
                    self._read_ahead.accepted(fd)
                too_many = self._limiter.accepted(fd)
                if too_many is not None:
                    self._cut(too_many)
            elif kind == _DISCONNECTED:
                self._forget_descriptor(fd)
                self._limiter.remove(fd)
                if self._read_ahead is not None:
                    self._read_ahead.remove(fd)

    def _forget_descriptor(self, fd: int) -> None:
        """Forget the peers of a descriptor, whose connection has ended."""
        self._connections[fd] = self._connections.get(fd, 0) + 1
        self._rejected.discard(fd)
        for name in self._by_fd.pop(fd, ()):
            peer = self._peers.pop(name, None)
            if peer is not None:
                self._departed.append(name)
                self._outgoing.drop(peer.route)
                self._drop_key(name, peer)

    def take_departed(self) -> list[bytes]:
        """Return the peers whose connections have ended since the last call."""
        departed, self._departed = self._departed, []
        return departed

    def _leave(self, when_s: float, fd: int) -> None:
        heappush(self._leaving, (when_s, fd, self._connections.get(fd, 0)))

    def _cut_leaving(self) -> None:
        leaving, now_s = self._leaving, time.monotonic()
        if leaving and leaving[0][0] <= now_s:
            self._read_connection_events(limit=1_000_000)
            while leaving and leaving[0][0] <= now_s:
                _, fd, connection = heappop(leaving)
                if self._connections.get(fd, 0) == connection:
                    self._cut(fd)

    def _cut(self, fd: int) -> None:
        """Shut down a TCP connection of this listener, so that libzmq closes it. A descriptor that
        no longer belongs to such a connection is left alone."""
        with contextlib.suppress(OSError):
            copy = os.dup(fd)
            try:
                with stdlib_socket.socket(fileno=copy) as result:
                    copy = -1
                    inet = result.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6)
                    if inet and result.getsockname()[1] == self.port:
                        result.shutdown(stdlib_socket.SHUT_RDWR)
            finally:
                if copy >= 0:
                    os.close(copy)

    def receive(self) -> tuple[sockets.PeerKind, bytes, bytes, Identity] | None:
        """Return the next message; None if the key of its sender is no longer accepted, or if the
        connection is one too many."""
        self._cut_leaving()
        router = self._router
        route = router.recv(_NOBLOCK)
        frame = router.recv(_NOBLOCK, copy=False)
        self._frame = frame
        body = frame.bytes
        size = len(body)
        if frame.more:
            size += sum(map(len, router.recv_multipart()))
            body = b""  # not of the protocol: refused by every decoder
        key = str(frame.get("User-Id"))
        fd = int(frame.get("__fd"))
        if self._read_ahead is not None:
            self._read_ahead.count_read(fd, size)
        identity = self._admitted.get(key)
        if identity is None:
            self._leave(0.0, fd)
            return None
        prefix = self._options.prefix
        name = b"%b%b/%b" % (prefix, key.encode(), route)  # routes are the client's choice
        peer = self._peers.get(name)
        if (peer is None or peer.fd != fd or peer.key != key) and not self._register_peer(
            name, _Peer(route, key, fd, identity.owner)
        ):
            return None
        return (
            (sockets.PeerKind.WORKER if identity.role is Role.WORKER else sockets.PeerKind.CLIENT),
            name,
            body,
            identity,
        )

    def origin(self) -> str:
        """Return the address of the machine that sent the last message."""
        return "nowhere" if self._frame is None else str(self._frame.get("Peer-Address"))

    def _register_peer(self, name: bytes, peer: _Peer) -> bool:
        """Register the sender of the first message of a connection, after all earlier events of its
        descriptor. Returns False if the connection is one too many."""
        self._read_connection_events(limit=1_000_000)
        counted = peer.owner or peer.key  # a user may have many keys, as certificates
        if not self._limiter.authenticate(peer.fd, counted):
            if peer.fd not in self._rejected:
                self._rejected.add(peer.fd)
                self._outgoing.send(peer.route, limit_refusal(self._limiter.exceeded(counted)))
                self._outgoing.drop(peer.route)
                self._leave(time.monotonic() + LINGER_S, peer.fd)
            return False
        if self._read_ahead is not None:
            self._read_ahead.set_key(peer.fd, counted)
        old = self._peers.get(name)
        if old is not None:
            self._forget(name, old)
        self._peers[name] = peer
        self._by_fd.setdefault(peer.fd, set()).add(name)
        self._by_key.setdefault(peer.key, set()).add(name)
        return True

    def _forget(self, name: bytes, peer: _Peer) -> None:
        del self._peers[name]
        self._outgoing.drop(peer.route)
        names = self._by_fd.get(peer.fd)
        if names is not None:
            names.discard(name)
            if not names:
                del self._by_fd[peer.fd]
        self._drop_key(name, peer)

    def _drop_key(self, name: bytes, peer: _Peer) -> None:
        names = self._by_key.get(peer.key)
        if names is not None:
            names.discard(name)
            if not names:
                del self._by_key[peer.key]

    def holds(self, peer: bytes) -> bool:
        return peer.startswith(self._options.prefix)

    def send(self, peer: bytes, body: bytes) -> bool:
        """Send to the last sender with that name, if its key is still accepted. Returns False if
        there is none, or if too much waits for it."""
        entry = self._peers.get(peer)
        return entry is not None and self._outgoing.send(entry.route, body, entry.owner)

    def can_send(self, peer: bytes) -> bool:
        """Return whether another answer can be sent to the peer now."""
        entry = self._peers.get(peer)
        return entry is None or self._outgoing.can_send(entry.route, entry.owner)

    def close(self) -> None:
        if self._read_ahead is not None:
            self._read_ahead.close()
        context = self._router.context
        self._router.disable_monitor()
        for socket in (self._zap, self._monitor, self._router):
            socket.close()
        context.term()


def limit_refusal(exceeded: str) -> bytes:
    """Refusal for a connection above a limit, sent before it is cut off."""
    message = f"{exceeded} are the limit"
    hint = "close some, or share one connection between threads"
    return codec.encode(Refused(0, [Refusal("limit", message, hint, -1, 1.0)]))


def _port(socket: zmq.Socket[bytes]) -> int:
    endpoint: Any = socket.get(zmq.LAST_ENDPOINT)
    return int(endpoint.rstrip(b"\0").rpartition(b":")[2])
