"""How soon TCP gives up a connection whose other end is gone.

ZeroMQ's own heartbeats stay off, at both ends. libzmq 4.3.5 aborts the process where a timer of
theirs, or a ping that was read ahead, meets a connection that has failed and whose messages nobody
takes any more, as those of one whose routing id was taken over. Who is there and says nothing is
noticed by the beats and leases of our protocol.
"""

from __future__ import annotations

import msgspec
import zmq


class Keepalive(msgspec.Struct, frozen=True):
    """A silent connection is tried after `idle_s`, and closed after `count` tries without answer;
    what was sent and is not acknowledged closes it after the same time."""

    idle_s: int
    interval_s: int
    count: int

    def set_on(self, socket: zmq.Socket[bytes]) -> None:
        """Before it binds or connects."""
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, self.idle_s)
        socket.set(zmq.TCP_KEEPALIVE_INTVL, self.interval_s)
        socket.set(zmq.TCP_KEEPALIVE_CNT, self.count)
        socket.set(zmq.TCP_MAXRT, 1000 * (self.idle_s + self.interval_s * self.count))


CLIENTS = Keepalive(60, 10, 3)
WORKERS = Keepalive(3, 2, 3)  # a little less than a worker's lease, or the service's patience
