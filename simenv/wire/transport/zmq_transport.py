"""Both ends of the transport: `Listener` for the service, `Connection` for clients and workers.

The service has one socket for clients and one for workers, so that a client cannot act as a
worker. The transport is ZeroMQ with CURVE, over `ipc://` in a folder of mode 0700, and over TCP
where the environment listens (`tcp_listener`). TCP keepalive detects a dead peer; a live but silent
one is detected by the heartbeats and leases of our protocol. Invariants: every message comes with
the authenticated identity of its sender; a `ZmqConnection` sends and reads nothing before its peer
has proved the service's key, also after libzmq has reconnected by itself; receiving and sending
never block, the bytes that wait for a client are bounded (`RouterSender`), and no frame above
MAX_MESSAGE_BYTES is read.
"""

from __future__ import annotations

import enum
import math
import os
import select
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import zmq
from zmq.backend import zmq_poll

from simenv import files
from simenv.errors import LimitExceededError, NoServiceError, ProtocolError
from simenv.wire import keyfiles
from simenv.wire.keyfiles import KeyPair
from simenv.wire.messages.client import MAX_MESSAGE_BYTES
from simenv.wire.rights import LOCAL, LOCAL_WORKER, Identity
from simenv.wire.transport import sockets
from simenv.wire.transport.unix_streams import (
    PAUSE_S,
    SEND_QUEUE_MESSAGES,
    UnixConnection,
    UnixListener,
    check_size,
    unread_error,
)

if TYPE_CHECKING:
    from simenv.wire.transport.tcp_listener import TcpListener

SOCKET_PATH_BYTES = 107  # sun_path less its NUL
HANDSHAKE_MS = 5_000
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
CLIENT_SOCKET = "curve.sock"
CLIENT_STREAM, WORKER_STREAM = "direct.sock", "worker.sock"
_STREAMS = ((CLIENT_STREAM, sockets.PeerKind.CLIENT), (WORKER_STREAM, sockets.PeerKind.WORKER))
_NOBLOCK = int(zmq.NOBLOCK)
_STREAMS_TURN, _FIRST_REMOTE = 1, 2  # turns, after that of the local router


class Listener(Protocol):
    """The service's end of all connections. Used from one thread."""

    def wait(self, timeout_s: float) -> bool:
        """Wait until a message can be received or `timeout_s` has passed. Returns whether a message
        can be received."""

    def receive(self) -> tuple[sockets.PeerKind, bytes, bytes, Identity] | None:
        """Return the next (kind, peer, body, sender); endpoints take turns. None: no message."""

    def origin(self) -> str:
        """Return the origin of the last received message, as text for the audit log."""

    def sender_pid(self) -> int:
        """Return the process of this machine that connected the stream of the last received
        message, as the kernel knows it; 0: not known."""

    def send(self, peer_kind: sockets.PeerKind, peer: bytes, body: bytes) -> bool:
        """Send one message; False if the peer is gone or its queue is full. Never blocks."""

    def can_send(self, peer: bytes) -> bool:
        """Return whether an answer can be sent to this client now; True if it is gone."""

    def take_departed(self) -> list[bytes]:
        """Return the peers whose connections have ended since the last call. The end of a local
        client that speaks ZeroMQ is not noticed."""

    def message_bytes(self, peer: bytes) -> int:
        """Return the size limit of one message of this client, in bytes; the transport cuts off a
        client that sends more."""

    def admit(self, keys: Mapping[str, Identity], revocation_notice: bytes) -> None:
        """Replace the table of accepted public keys. Peers with other keys get `revocation_notice`
        and are cut off."""

    def admit_key(self, key: str, identity: Identity) -> None:
        """Accept one more public key."""

    def revoke_key(self, key: str, revocation_notice: bytes) -> None:
        """Accept a public key no longer. Its peers get `revocation_notice`, if it is not empty, and
        are cut off."""

    def close(self) -> None: ...


class Connection(Protocol):
    """A client's or worker's end of a connection. Used by one thread at a time."""

    message_bytes: int  # size limit of one message to the service

    def send(self, body: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message, or None after `timeout_s` (0: without waiting)."""

    def wake(self) -> None:
        """Let the present `receive`, or else the next one, return None; thread-safe."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when `receive` may have a message; not again
        before all of them were received, and sending may take the signal away. Raises OSError if
        there is none."""

    def close(self) -> None: ...


def endpoint(path: Path, *, must_exist: bool = False) -> str:
    """Return the ZeroMQ address of a socket file. Raises LimitExceededError if the path is too long
    for one; with `must_exist`, NoServiceError if there is no such file."""
    if len(str(path).encode()) > SOCKET_PATH_BYTES:
        text = f"the socket path {path} is longer than {SOCKET_PATH_BYTES} bytes"
        raise LimitExceededError(text, hint="set XDG_RUNTIME_DIR to a shorter folder")
    if must_exist and not path.exists():
        raise NoServiceError(f"no service at {path} (there is no such socket)")
    return f"ipc://{path}"


class ZmqListener:
    """Streams in one folder, for clients and for workers, a ROUTER socket there for clients that
    speak ZeroMQ, and optional remote listeners: one for clients on other machines, one for workers
    on other nodes. `keys` prove the service to the peers of ZeroMQ. Any peer that can open a local
    socket is accepted: the mode of the folder decides who can."""

    def __init__(
        self,
        folder: Path,
        keys: KeyPair,
        remote: TcpListener | None = None,
        workers: TcpListener | None = None,
    ) -> None:
        self._context = zmq.Context(io_threads=1)
        self._folder = folder
        self._clients = remote
        self._remote = tuple(listener for listener in (remote, workers) if listener is not None)
        self._router, self._streams = self._open_router(keys), UnixListener()
        self._bind()
        for name, kind in _STREAMS:
            self._streams.bind(folder / name, kind)
        routers = [listener.sockets[0] for listener in self._remote]
        self._receiving_turns = _FIRST_REMOTE + len(routers)  # turns below it receive messages
        monitors = [socket for listener in self._remote for socket in listener.sockets[1:]]
        watched = (self._router, self._streams.fileno(), *routers, *monitors)
        self._watched = [(socket, sockets.POLLIN) for socket in watched]
        self._turn: dict[Any, int] = {socket: turn for turn, socket in enumerate(watched)}
        # A socket of ZeroMQ without messages makes its descriptor readable when one may have come;
        # until it is used, to wait for descriptors is enough, and takes half the time.
        self._descriptors = select.poll()
        for descriptor in (int(self._router.get(zmq.FD)), self._streams.fileno()):
            self._descriptors.register(descriptor, sockets.POLLIN)
        self._is_settled = False  # no socket of ZeroMQ was used since it had no messages
        self._ready: list[int] = []
        self._last = 0
        self._frame: zmq.Frame | None = None  # the last one from the local router
        self._sender = sockets.RouterSender(self._router, sockets.LOCAL_BOUNDS)

    def _open_router(self, keys: KeyPair) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + sockets.SEALED_BYTES)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 1)  # as in `tcp_listener`
        socket.set(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        socket.set(zmq.RCVHWM, SEND_QUEUE_MESSAGES)
        socket.set(zmq.LINGER, 1_000)
        return socket

    def _bind(self) -> None:
        path = self._folder / CLIENT_SOCKET
        self._is_settled = False
        self._router.bind(endpoint(path))
        path.chmod(0o600)

    def keep_sockets(self) -> None:
        """Set the times of the socket files to now, so that no cleaner of temporary folders removes
        them; bind those again that were removed. Raises OSError, ConfigError, zmq.ZMQError."""
        if not self._is_kept(CLIENT_SOCKET):
            self._bind()
        for name, kind in _STREAMS:
            if not self._is_kept(name):
                self._streams.bind(self._folder / name, kind)

    def _is_kept(self, name: str) -> bool:
        """Renew the times of a socket's file. Returns False if it was removed."""
        try:
            os.utime(self._folder / name)
        except FileNotFoundError:
            files.private_folder(self._folder)
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        streams, end_s = self._streams, time.monotonic() + timeout_s
        while True:
            if streams.paused_until_s:
                streams.resume()
                timeout_s = min(timeout_s, PAUSE_S)
            timeout_ms = 0 if streams.has_messages else max(0, math.ceil(timeout_s * 1000))
            ready = self._poll(timeout_ms)
            if _STREAMS_TURN in ready:
                streams.process_events()
                ready.remove(_STREAMS_TURN)
            if streams.has_messages:
                ready.append(_STREAMS_TURN)
            timeout_s = end_s - time.monotonic()
            if ready or timeout_s <= 0.0:  # else a connection, or a part of a message, has come
                break
        if len(ready) > 1:
            last = self._last
            ready.sort(key=lambda turn: turn <= last)  # those after the last one first
        if self._remote:
            receiving_turns = self._receiving_turns
            if (ready and max(ready) >= receiving_turns) or any(
                listener.has_pending_events for listener in self._remote
            ):
                for listener in self._remote:
                    listener.process_events()
                ready = [turn for turn in ready if turn < receiving_turns]
        self._ready = ready
        return bool(ready)

    def _poll(self, timeout_ms: int) -> list[int]:
        """Wait for messages, or what streams have to do. Returns the turns of those ready."""
        if self._is_settled:
            found = self._descriptors.poll(timeout_ms)
            if not found:
                return []
            if len(found) == 1 and found[0][0] == self._streams.fileno():
                return [_STREAMS_TURN]
            timeout_ms = 0
        ready = [self._turn[socket] for socket, _ in zmq_poll(self._watched, timeout_ms)]
        self._is_settled = not self._remote and all(turn == _STREAMS_TURN for turn in ready)
        return ready

    def receive(self) -> tuple[sockets.PeerKind, bytes, bytes, Identity] | None:
        # Poll, then read: an exception in each pass without messages would cost more than the rest.
        while self._ready or self.wait(0.0):
            turn = self._last = self._ready.pop(0)
            if turn == _STREAMS_TURN:
                if (found := self._streams.receive()) is not None:
                    return *found, LOCAL_WORKER if found[0] else LOCAL
                continue
            if turn < _STREAMS_TURN:
                received = self._receive()
            else:
                received = self._remote[turn - _FIRST_REMOTE].receive()
            if received is not None:
                return received
        return None

    def sender_pid(self) -> int:
        return self._streams.sender_pid if self._last == _STREAMS_TURN else 0

    def origin(self) -> str:
        if self._last >= _FIRST_REMOTE:
            return self._remote[self._last - _FIRST_REMOTE].origin()
        if self._last == _STREAMS_TURN:
            return self._streams.origin()
        if self._frame is None:
            return "this process"
        # For a Unix socket libzmq reports ":UID:GID:PID" of the process at the other end.
        message = str(self._frame.get("Peer-Address")).split(":")
        return f"process {message[-1]} of uid {message[1]}" if len(message) == 4 else "this machine"

    def _receive(self) -> tuple[sockets.PeerKind, bytes, bytes, Identity] | None:
        socket, self._is_settled = self._router, False
        peer = socket.recv(_NOBLOCK)
        frame = socket.recv(_NOBLOCK, copy=False)  # a frame knows whether it is the last
        self._frame = frame
        body = frame.bytes
        if frame.more:
            socket.recv_multipart()
            body = b""  # not of the protocol: refused by every decoder
        # Names with a slash are those of remote peers; one that libzmq made begins with NUL.
        if b"/" in peer and peer[0]:
            return None
        return sockets.PeerKind.CLIENT, peer, body, LOCAL

    def send(self, peer_kind: sockets.PeerKind, peer: bytes, body: bytes) -> bool:
        if self._streams.holds(peer_kind, peer):
            return self._streams.send(peer_kind, peer, body)
        for remote in self._remote:
            if remote.holds(peer):
                return remote.send(peer, body)
        self._is_settled = False
        return peer_kind is sockets.PeerKind.CLIENT and self._sender.send(peer, body)

    def can_send(self, peer: bytes) -> bool:
        if self._streams.holds(sockets.PeerKind.CLIENT, peer):
            return self._streams.can_send(peer)
        for remote in self._remote:
            if remote.holds(peer):
                return remote.can_send(peer)
        return self._sender.can_send(peer)

    def take_departed(self) -> list[bytes]:
        departed = self._streams.take_departed()
        for remote in self._remote:
            departed += remote.take_departed()
        return departed

    def message_bytes(self, peer: bytes) -> int:
        return next(
            (remote.message_bytes for remote in self._remote if remote.holds(peer)),
            MAX_MESSAGE_BYTES,
        )

    def admit(self, keys: Mapping[str, Identity], revocation_notice: bytes) -> None:
        if self._clients is not None:
            self._clients.admit(keys, revocation_notice)

    def admit_key(self, key: str, identity: Identity) -> None:
        if self._clients is not None:
            self._clients.admit_key(key, identity)

    def revoke_key(self, key: str, revocation_notice: bytes) -> None:
        if self._clients is not None:
            self._clients.revoke_key(key, revocation_notice)

    def close(self) -> None:
        self._streams.close()
        self._router.close()
        self._context.term()
        for remote in self._remote:
            remote.close()


class ZmqConnection:
    """DEALER socket connected to one endpoint of the service, which must prove `server_key`."""

    message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, address: str, server_key: str, keys: KeyPair, identity: bytes) -> None:
        """`address`: of ZeroMQ; `server_key`: public key of the service; `keys`: of this peer."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.CURVE_SERVERKEY, server_key.encode())
        socket.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
        socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.set(zmq.IPV6, 1)
        self._prepare(socket)
        socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + sockets.SEALED_BYTES)
        socket.set(zmq.IDENTITY, identity)
        socket.set(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        socket.set(zmq.RCVHWM, 0)  # no limit: the sender's bound is enough
        socket.set(zmq.LINGER, 200)
        socket.set(zmq.RECONNECT_IVL, 100)
        socket.set(zmq.RECONNECT_IVL_MAX, 1_000)
        socket.connect(address)
        self._socket = socket
        self._send: Callable[[bytes, int], object] = super(zmq.Socket, socket).send
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._watched: list[tuple[Any, int]] = [
            (socket, sockets.POLLIN),
            (self._woken, sockets.POLLIN),
        ]

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        """Set the options of a subclass; called before the socket connects."""

    def send(self, body: bytes) -> None:
        check_size(body, self.message_bytes)
        try:
            self._send(body, _NOBLOCK)
        except zmq.Again as error:
            raise unread_error() from error

    def receive(self, timeout_s: float) -> bytes | None:
        results: list[tuple[Any, int]] = zmq_poll(
            self._watched, max(0, math.ceil(timeout_s * 1000))
        )
        if not results:
            return None
        for ready, _ in results:
            if ready is not self._socket:
                os.eventfd_read(self._woken)
                return None
        frame = self._socket.recv(_NOBLOCK, copy=False)  # a frame knows whether it is the last
        body = frame.bytes
        if frame.more:
            frames = 1 + len(self._socket.recv_multipart())
            raise ProtocolError(f"the service sent {frames} frames where one is due")
        return body

    def wake(self) -> None:
        os.eventfd_write(self._woken, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection. Idempotent. A forked child does not touch the parent's socket."""
        if self._socket.closed:
            return
        self._socket.close()
        self._context.term()
        os.close(self._woken)


class HandshakeState(enum.Enum):
    """Progress of the last attempt to connect."""

    UNKNOWN = enum.auto()  # no answer to the first packet yet
    NOBODY = enum.auto()  # nothing listens at the address
    CONNECTED = enum.auto()  # the handshake has not ended
    ABORTED = enum.auto()  # the handshake broke off, timed out, or was not that of ZeroMQ
    REFUSED = enum.auto()  # the service does not accept our key: the only final outcome
    OPEN = enum.auto()


_STATE_OF_EVENT = {
    int(zmq.EVENT_CLOSED): HandshakeState.NOBODY,
    int(zmq.EVENT_CONNECTED): HandshakeState.CONNECTED,
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED): HandshakeState.OPEN,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): HandshakeState.REFUSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): HandshakeState.ABORTED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): HandshakeState.ABORTED,
}


class CurveConnection(ZmqConnection):
    """A client's connection, which watches its handshakes: they show why a service is silent.

    A handshake that fails without a refusal says nothing about the key: the service may be busy or
    starting, and a forwarder accepts and closes connections for a service that is away.
    """

    def __init__(self, address: str, server_key: str, keys: KeyPair, identity: bytes) -> None:
        self.address = address
        self._handshake_state = HandshakeState.UNKNOWN
        self.was_open = False  # by the last `handshake_state`: service and key are the right ones
        super().__init__(address, server_key, keys, identity)

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        socket.monitor("inproc://way", int(_EVENTS))
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # a full queue would stop the I/O thread
        self._monitor.connect("inproc://way")

    def handshake_state(self) -> HandshakeState:
        """Return the state of the last attempt. Called by the thread that receives."""
        while not self._socket.closed and sockets.readable(self._monitor):
            event = self._monitor.recv_multipart(int(zmq.NOBLOCK))[0]
            result = _STATE_OF_EVENT[int.from_bytes(event[:2], "little")]
            self.was_open = self.was_open or result is HandshakeState.OPEN
            # After a refusal or a broken handshake the next attempt begins with CONNECTED, which
            # must not hide that outcome: it stays until the new attempt ends.
            if result is not HandshakeState.CONNECTED or self._handshake_state in (
                HandshakeState.UNKNOWN,
                HandshakeState.NOBODY,
                HandshakeState.OPEN,
            ):
                self._handshake_state = result
        return self._handshake_state

    def send(self, body: bytes) -> None:
        try:
            super().send(body)
        except NoServiceError:
            if self.handshake_state() is HandshakeState.OPEN:
                raise
            # As if it had been lost on its way: libzmq connects no more after a refusal, or after
            # an answer of something else, such as the error page of a proxy.

    def close(self) -> None:
        if not self._socket.closed:
            self._monitor.close()
        super().close()


def connect_worker(service: keyfiles.WorkerBootstrap, identity: bytes) -> Connection:
    """Connect to the service's endpoint for workers: through the stream on the service's node, else
    over TCP. Raises NoServiceError if there is no such way."""
    path = Path(service.sockets) / WORKER_STREAM
    node = os.uname().nodename
    if node == service.node and path.exists() and files.weakness(path.parent) is None:
        return UnixConnection(path, identity)
    if not service.address:
        raise NoServiceError(
            f"{node} cannot reach the service on {service.node}, which does not listen for others",
            hint="it was started for one node; start it again inside the allocation",
        )
    if not service.secret_key:
        text = f"{node} cannot reach the service on {service.node}: this worker has no key"
        hint = "was it started by that service? its keys are in worker-keys next to worker.json"
        raise NoServiceError(text, hint=hint)
    return WorkerTcpConnection(service.address, service.server_key, service.keys, identity)


class WorkerTcpConnection(ZmqConnection):
    """A worker's DEALER over TCP with CurveZMQ; a dead connection is detected and reopened."""

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        sockets.WORKER_KEEPALIVE.set_on(socket)
