"""Sessions of client connections of revision 1, each with its own queue, registration and circuits.

Invariant: a session starts no thread. It ends with the object that DEFw made for the connection,
when its client says that it leaves, or when its client's process is found to have gone: DEFw itself
keeps the object of a process that simply ended. The end of a client without an event queue cannot
be detected: its session ends once it is idle and empty.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from simenv.frontends.qfw import defw

if TYPE_CHECKING:
    from simenv.client.qpm.bindings.revision1 import SingleQPM
    from simenv.frontends.qfw.environment import EnvironmentConnection
    from simenv.frontends.qfw.event_endpoints import ClientEventQueue

SWEEP_S = 5.0
IDLE_S = 3_600.0  # without a call; the retention time of unread completions


class QfwSession:
    """Session of one client connection. Thread-safe."""

    def __init__(self, hub: EnvironmentConnection) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._qpm: SingleQPM | None = None
        self._used_s = monotonic()
        self.ear: ClientEventQueue | None = None  # queue of its events

    def qpm(self, timeout_s: float = 0.0) -> SingleQPM:
        """QPM of this session. Raises NotReadyError without a connection after `timeout_s`."""
        result = self._hub.wait(timeout_s)
        with self._lock:
            self._used_s = monotonic()
            if self._qpm is None:
                self._qpm = result.connection()
            return self._qpm

    def register(self, ear: ClientEventQueue, evtype: Any, class_id: str, timeout_s: float) -> None:
        """Register the client's event queue."""
        self.qpm(timeout_s).register_event_notification(ear, evtype, class_id)
        self.ear = ear

    def close(self) -> None:
        """End the session's queue and registration; a later call starts a new one."""
        with self._lock:
            qpm, self._qpm, self.ear = self._qpm, None, None
        if qpm is not None:
            qpm.shutdown()

    def expire(self) -> None:
        """End the session if it has no event queue, was not used for IDLE_S, and keeps no
        completion and no record of an eviction that its client could still read. A later call
        starts a new one."""
        with self._lock:
            idle = self.ear is None and monotonic() - self._used_s >= IDLE_S
            if self._qpm is None or not idle or not self._qpm.expire():
                return
            qpm, self._qpm = self._qpm, None
        qpm.shutdown()


class Sessions:
    """Sessions of this process. Thread-safe."""

    def __init__(self, hub: EnvironmentConnection) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._known: WeakSet[QfwSession] = WeakSet()
        self._swept_s = -SWEEP_S

    def open(self) -> QfwSession:
        """Open a session for a further client."""
        self.sweep()
        built = QfwSession(self._hub)
        with self._lock:
            self._known.add(built)
        return built

    def sweep(self) -> None:
        """Close sessions of clients that have gone, and sessions that have long been idle; runs
        every SWEEP_S at most."""
        with self._lock:
            if monotonic() - self._swept_s < SWEEP_S:
                return
            self._swept_s = monotonic()
            sessions = list(self._known)
        peers = defw.peers()
        for session in sessions:
            if session.ear is not None and session.ear.is_gone(peers):
                session.close()
            else:
                session.expire()
