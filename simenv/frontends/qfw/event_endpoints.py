"""Event queues of clients, to which completions are put.

Invariant: the same queue of the same client is one object while it is registered, so that repeated
registrations are one and no event comes twice.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakValueDictionary

from simenv.frontends.qfw import defw
from simenv.qpm.envelopes import EventEnvelope
from simenv.qpm.errors import ExecutionError

MISSED = 3  # checks in a row that find the client disconnected: then it has gone
_PARTS = ("addr", "address", "listen_port", "pid", "name", "node_name", "hostname", "remote_uuid")
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, set)


class ClientEventQueue:
    """Event queue of one client; `put` returns when the client has the event, and raises if it
    cannot be delivered."""

    def __init__(self, endpoint: Any, class_id: str) -> None:
        self._queue = defw.event_queue(endpoint, class_id)
        self.peer = defw.peer(endpoint)
        self._missed = 0

    def put(self, event: EventEnvelope) -> None:
        self._queue.put(defw.event(event.evtype, event.payload))

    def is_gone(self, peers: set[str]) -> bool:
        """Return whether the client was missing in MISSED checks in a row: DEFw's list may be
        incomplete at times."""
        if not self.peer or not peers or self.peer in peers:
            self._missed = 0
        else:
            self._missed += 1
        return self._missed >= MISSED

    def forsake(self) -> None:
        """Make a waiting `put` raise if its client has gone."""
        if self.peer and self.is_gone(defw.peers()):
            defw.give_up(self.peer)


class ClientEventQueues:
    """Event queues that are referenced elsewhere. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[tuple[str, ...], ClientEventQueue] = WeakValueDictionary()

    def of(self, endpoint: Any, class_id: Any) -> ClientEventQueue:
        """Return the queue's object. Raises ExecutionError if the arguments are no endpoint or no
        queue name."""
        if endpoint is None or isinstance(endpoint, _PLAIN):
            raise ExecutionError(
                f"ep is of type {type(endpoint).__name__}", hint="the endpoint of a client"
            )
        if not isinstance(class_id, str) or not class_id:
            raise ExecutionError(
                f"class_id is of type {type(class_id).__name__}", hint="the name of a queue"
            )
        name = (class_id, *(str(getattr(endpoint, part, "")) for part in _PARTS))
        with self._lock:
            result = self._known.get(name)
        built = (
            ClientEventQueue(endpoint, class_id) if result is None else result
        )  # may connect to the client
        with self._lock:
            return self._known.setdefault(name, built)
