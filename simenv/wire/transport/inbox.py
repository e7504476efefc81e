"""A queue of messages within this process, on which a thread can wait."""

from __future__ import annotations

import threading
from collections import deque


class Inbox:
    """Receiving half of a `zmq_transport.Connection`. Thread-safe."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._bodies: deque[bytes] = deque()
        self._woken = False

    def __len__(self) -> int:
        return len(self._bodies)

    def put(self, *bodies: bytes) -> None:
        """Append messages, in order."""
        with self._arrived:
            self._bodies.extend(bodies)
            self._arrived.notify_all()

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message; None after `timeout_s`, or when `wake` was called."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._bodies or self._woken, timeout_s)
            if self._woken or not self._bodies:
                self._woken = False
                return None
            return self._bodies.popleft()

    def wake(self) -> None:
        """Let the present `receive`, or else the next one, return None."""
        with self._arrived:
            self._woken = True
            self._arrived.notify_all()
