"""Liveness of a service: time without messages, pings, and the decision that it is lost."""

from __future__ import annotations

from time import monotonic

from simenv.client.connection.address import Address
from simenv.errors import NoServiceError, ServiceLostError, SimenvError

QUIET_S = 1.0  # silence after which the service is pinged
POLL_S = 0.25  # interval in which a silent service's connection file is read again
LOST_S = 5.0
STOPPED_S = 2.0  # a longer gap between two readings of the clock: this process was stopped


class Liveness:
    """Times of messages and pings, monotonic. Guarded by the lock of the channel."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._last_message_s = self._pinged_s = self._looked_s = monotonic()
        self._unanswered_s: float | None = None  # time of the first Ping since the last message

    def end(self) -> None:
        """Record that a message has arrived."""
        self._last_message_s = monotonic()
        self._unanswered_s = None

    def lasts(self, now: float) -> bool:
        """Return whether no message has arrived for QUIET_S."""
        return now - self._last_message_s >= QUIET_S

    def is_final(self, now: float, start: float) -> bool:
        """Return whether a thread that waits since `start` must give up: no message for LOST_S, or
        the service certainly refuses this client."""
        is_silent = now - max(self._last_message_s, start) >= LOST_S
        return is_silent or self._address.refusal() is not None

    def has_moved(self, now: float) -> bool:
        """Return whether the service listens elsewhere now; checked every POLL_S, else False."""
        if now - self._looked_s < POLL_S:
            return False
        self._looked_s = now
        return self._address.moved()

    def is_ping_due(self, now: float) -> bool:
        """Return whether a Ping is due, one every QUIET_S, and record its time."""
        if now - self._pinged_s < QUIET_S:
            return False
        self._pinged_s = now
        if self._unanswered_s is None:
            self._unanswered_s = now
        return True

    def is_unanswered(self, now: float) -> bool:
        """Return whether a Ping has had no answer for LOST_S, or the service certainly refuses this
        client; for callers that poll and never wait."""
        requested_s = self._unanswered_s
        is_silent = requested_s is not None and now - requested_s >= LOST_S
        return is_silent or self._address.refusal() is not None

    def lost_error(self, name: str, was_connected: bool) -> SimenvError:
        """Return the error to raise for a lost service; `was_connected`: it has answered before."""
        refusal = self._address.refusal()
        if refusal is not None:
            return refusal
        reason, hint = self._address.diagnose()
        if not was_connected:
            return NoServiceError(f"no service answers for {name!r}: {reason}", hint=hint)
        silent_s = monotonic() - self._last_message_s
        return ServiceLostError(
            f"service {name!r} has not answered for {silent_s:.1f} s: {reason}",
            hint=hint,
            last_seen_s=silent_s,
        )
