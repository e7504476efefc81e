"""Kinds of peers, and options of the ZeroMQ sockets of all transports."""

from __future__ import annotations

import enum
from typing import Any

import msgspec
import zmq

SEALED_BYTES = 64  # most bytes that encryption adds to a message
# A plain number: an operation on the library's enumerations takes longer than the system calls.
POLLIN = int(zmq.POLLIN)


class PeerKind(enum.IntEnum):
    """Kind of endpoint of the service that received a message."""

    CLIENT = 0
    WORKER = 1


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Return whether a message can be received from a socket."""
    events: Any = socket.get(zmq.EVENTS)
    return bool(events & POLLIN)


class Keepalive(msgspec.Struct, frozen=True):
    """TCP keepalive: a silent connection is probed after `idle_s`, then every `interval_s`, and
    closed after `count` probes without an answer. Unacknowledged data closes it after the same
    time."""

    idle_s: int
    interval_s: int
    count: int

    def set_on(self, socket: zmq.Socket[bytes]) -> None:
        """Set these options on a socket, before it binds or connects."""
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, self.idle_s)
        socket.set(zmq.TCP_KEEPALIVE_INTVL, self.interval_s)
        socket.set(zmq.TCP_KEEPALIVE_CNT, self.count)
        socket.set(zmq.TCP_MAXRT, 1000 * (self.idle_s + self.interval_s * self.count))


CLIENT_KEEPALIVE = Keepalive(60, 10, 3)
WORKER_KEEPALIVE = Keepalive(
    3, 2, 3
)  # together a little less than a worker's lease, and than `silent_s` of the service
