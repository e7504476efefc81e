"""Clients' queues of events: where a completion is put, by the one thread that a QPM sends with.

Invariant: the same queue of the same client is one object, however often it is registered, so that
it is one registration and no event comes twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from simenv.frontends.qfw import host
from simenv.qpm.envelopes import Event
from simenv.qpm.errors import ExecutionError

KEPT = 4_096
_PARTS = ("addr", "address", "listen_port", "pid", "name", "node_name", "hostname", "remote_uuid")
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, set)


class Ear:
    """One client's queue; `put` returns when the client has it, and raises when it cannot."""

    def __init__(self, endpoint: Any, class_id: str) -> None:
        self._queue = host.event_queue(endpoint, class_id)

    def put(self, event: Event) -> None:
        self._queue.put(host.event(event.evtype, event.payload))


class Ears:
    """Thread-safe. Those registered, the last of them first to be found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], Ear] = OrderedDict()

    def of(self, endpoint: Any, class_id: Any) -> Ear:
        """ExecutionError where this is no endpoint, or no name of a queue."""
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
            found = self._known.get(name)
        made = Ear(endpoint, class_id) if found is None else found  # it may reach for the client
        with self._lock:
            found = self._known.setdefault(name, made)
            self._known.move_to_end(name)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
            return found
