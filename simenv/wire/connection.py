"""The two ends of the wire: `Doors` for the service, `Connection` for clients and workers.

The service has two doors, one for clients and one for workers, so that a client can never pass for
a worker. Transport is ZeroMQ over `ipc://` in a 0700 folder; `wire.memory` holds the twin that runs
inside one process. Invariants: receiving never blocks the loop, sending never blocks anyone, and
no frame above MAX_MESSAGE_BYTES is read.
"""

from __future__ import annotations

import contextlib
import enum
import math
import os
from pathlib import Path
from typing import Any, Protocol

import zmq
from zmq.backend import zmq_poll

from simenv.errors import LimitExceeded, NoService, ProtocolError
from simenv.wire.messages import MAX_MESSAGE_BYTES

SEND_QUEUE_MESSAGES = 2_000  # a peer that reads nothing loses what comes after; it asks again
SOCKET_PATH_BYTES = 107  # sun_path less its NUL
# Plain numbers: an operation on the library's enumerations costs more than a hop's system calls.
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)


class Door(enum.IntEnum):
    """Which door of the service a message came through."""

    CLIENT = 0
    WORKER = 1


class Doors(Protocol):
    """The service's end. Used from one thread."""

    def wait(self, timeout_s: float) -> bool:
        """Block until something can be received, or the time is up."""

    def receive(self) -> tuple[Door, bytes, bytes] | None:
        """The next (door, peer, body), alternating between doors; None when there is none."""

    def send(self, door: Door, peer: bytes, body: bytes) -> bool:
        """False when the peer is gone or its queue is full; never blocks."""

    def close(self) -> None: ...


class Connection(Protocol):
    """A client's or worker's end. One thread at a time."""

    def send(self, body: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, or None after `timeout_s` (0: only what is here already)."""

    def wake(self) -> None:
        """From any thread: a `receive` that waits now, or else the next one, returns None."""

    def close(self) -> None: ...


def endpoint(path: Path) -> str:
    """The ZeroMQ address of a socket file; LimitExceeded when the path is too long for one."""
    if len(str(path).encode()) > SOCKET_PATH_BYTES:
        raise LimitExceeded(
            f"the socket path {path} is longer than {SOCKET_PATH_BYTES} bytes",
            hint="set XDG_RUNTIME_DIR to a shorter folder",
        )
    return f"ipc://{path}"


class ZmqDoors:
    """Two ROUTER sockets in one folder: `client.sock` and `worker.sock`."""

    def __init__(self, folder: Path) -> None:
        self._context = zmq.Context(io_threads=1)
        self._sockets = tuple(self._bind(folder / name) for name in ("client.sock", "worker.sock"))
        self._watched = [(socket, _POLLIN) for socket in self._sockets]
        self._ready: list[Door] = []
        self._last = Door.WORKER

    def _bind(self, path: Path) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        socket.set(zmq.RCVHWM, SEND_QUEUE_MESSAGES)
        socket.set(zmq.LINGER, 1_000)
        socket.bind(endpoint(path))
        path.chmod(0o600)
        return socket

    def wait(self, timeout_s: float) -> bool:
        found = zmq_poll(self._watched, max(0, math.ceil(timeout_s * 1000)))
        clients = self._sockets[Door.CLIENT]
        self._ready = [Door.CLIENT if s is clients else Door.WORKER for s, _ in found]
        return bool(found)

    def receive(self) -> tuple[Door, bytes, bytes] | None:
        # Asked first and then read: an exception a pass for "nothing there" costs more than all.
        if not self._ready and not self.wait(0.0):
            return None
        door = self._ready.pop(-1 if self._last is self._ready[0] else 0)
        self._last = door
        socket = self._sockets[door]
        peer = socket.recv(_NOBLOCK)
        body = socket.recv(_NOBLOCK)
        if socket.get(zmq.RCVMORE):
            socket.recv_multipart()
            body = b""  # not of the protocol: refused by every decoder
        return door, peer, body

    def send(self, door: Door, peer: bytes, body: bytes) -> bool:
        socket = self._sockets[door]
        try:
            socket.send(peer, _NOBLOCK_MORE)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        socket.send(body, _NOBLOCK)
        return True

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        self._context.term()


class ZmqConnection:
    """A DEALER connected to one door."""

    def __init__(
        self,
        path: Path,
        identity: bytes,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        address = endpoint(path)
        if not path.exists():
            raise NoService(f"no service at {path} (there is no such socket)")
        self._own = context is None
        self._context = context if context is not None else zmq.Context(io_threads=1)
        socket = self._context.socket(zmq.DEALER)
        socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        socket.set(zmq.IDENTITY, identity)
        socket.set(zmq.SNDHWM, SEND_QUEUE_MESSAGES)
        socket.set(zmq.RCVHWM, 0)  # what was sent to us is ours; the sender's bound is enough
        socket.set(zmq.LINGER, 200)
        socket.set(zmq.RECONNECT_IVL, 100)
        socket.set(zmq.RECONNECT_IVL_MAX, 1_000)
        socket.connect(address)
        self._socket = socket
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._watched: list[tuple[Any, int]] = [(socket, _POLLIN), (self._woken, _POLLIN)]

    def send(self, body: bytes) -> None:
        if len(body) > MAX_MESSAGE_BYTES:
            raise LimitExceeded(
                f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}"
            )
        try:
            self._socket.send(body, _NOBLOCK)
        except zmq.Again as error:
            raise NoService(
                f"the service has not read {SEND_QUEUE_MESSAGES} messages; it may be gone",
                hint="see `simenv status` and `simenv logs`",
            ) from error

    def receive(self, timeout_s: float) -> bytes | None:
        found: list[tuple[Any, int]] = zmq_poll(self._watched, max(0, math.ceil(timeout_s * 1000)))
        if not found:
            return None
        if any(one == self._woken for one, _ in found):
            os.read(self._woken, 4096)
            return None
        body = self._socket.recv(_NOBLOCK)
        if self._socket.get(zmq.RCVMORE):
            frames = 1 + len(self._socket.recv_multipart())
            raise ProtocolError(f"the service sent {frames} frames where one is due")
        return body

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it is as awake as can be
            os.write(self._waker, b"w")

    def close(self) -> None:
        """Idempotent. In a forked child it lets go of the parent's socket without touching it."""
        if self._socket.closed:
            return
        self._socket.close()
        if self._own:
            self._context.term()
        os.close(self._woken)
        os.close(self._waker)
