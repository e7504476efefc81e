"""The wire inside one process: same promises as ZeroMQ's, for tests and for embedding."""

from __future__ import annotations

import threading
from collections import deque

from simenv.errors import LimitExceeded, NoService
from simenv.wire.connection import SEND_QUEUE_MESSAGES, Door
from simenv.wire.messages import MAX_MESSAGE_BYTES


class MemoryDoors:
    """The service's end; `connect` makes the others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inbox: tuple[deque[tuple[bytes, bytes]], ...] = (deque(), deque())
        self._peers: dict[tuple[Door, bytes], MemoryConnection] = {}
        self._next = 0
        self._open = True

    def connect(self, door: Door, identity: bytes) -> MemoryConnection:
        """A new peer behind one door; its messages carry `identity`."""
        connection = MemoryConnection(self, door, identity)
        with self._changed:
            self._peers[door, identity] = connection
        return connection

    def wait(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: any(self._inbox), timeout_s)

    def receive(self) -> tuple[Door, bytes, bytes] | None:
        with self._changed:
            for _ in range(2):
                turn = self._next
                self._next = 1 - turn
                if self._inbox[turn]:
                    return Door(turn), *self._inbox[turn].popleft()
        return None

    def send(self, door: Door, peer: bytes, body: bytes) -> bool:
        connection = self._peers.get((door, peer))
        return connection is not None and connection.deliver(body)

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._peers.clear()

    def accept(self, door: Door, identity: bytes, body: bytes) -> None:
        """Called by a connection: one message has arrived."""
        with self._changed:
            if not self._open:
                raise NoService("the service has closed its doors")
            self._inbox[door].append((identity, body))
            self._changed.notify_all()

    def forget(self, door: Door, identity: bytes) -> None:
        """Called by a connection that closes."""
        with self._changed:
            self._peers.pop((door, identity), None)


class MemoryConnection:
    """A client's or worker's end."""

    def __init__(self, doors: MemoryDoors, door: Door, identity: bytes) -> None:
        self._doors, self._door, self._identity = doors, door, identity
        self._arrived = threading.Condition()
        self._inbox: deque[bytes] = deque()
        self._woken = False

    def send(self, body: bytes) -> None:
        if len(body) > MAX_MESSAGE_BYTES:
            raise LimitExceeded(
                f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}"
            )
        self._doors.accept(self._door, self._identity, body)

    def receive(self, timeout_s: float) -> bytes | None:
        with self._arrived:
            self._arrived.wait_for(lambda: self._inbox or self._woken, timeout_s)
            if self._woken or not self._inbox:
                self._woken = False
                return None
            return self._inbox.popleft()

    def wake(self) -> None:
        with self._arrived:
            self._woken = True
            self._arrived.notify_all()

    def deliver(self, body: bytes) -> bool:
        """Called by the doors; False when this end reads too slowly."""
        with self._arrived:
            if len(self._inbox) >= SEND_QUEUE_MESSAGES:
                return False
            self._inbox.append(body)
            self._arrived.notify_all()
            return True

    def close(self) -> None:
        self._doors.forget(self._door, self._identity)
