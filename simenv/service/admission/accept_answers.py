"""Answers to accepted Submits, which are sent after the commit that stores their tasks.

The answer to a client that waits for the result anyway is held until that result is sent, at most
about HOLD_S: the client is woken once. Its tasks are on disk like all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from simenv.scheduler.core.types import SENT
from simenv.scheduler.state.state import SchedulerState
from simenv.service.admission.submissions import PendingSubmit
from simenv.service.support import fault_injection
from simenv.wire import codec
from simenv.wire.messages.client import Accepted

HOLD_S = 0.005
_HOLD_NS = round(HOLD_S * 1e9)


class AcceptAnswers:
    """Answers to accepted Submits. Used from the loop's thread."""

    def __init__(self, state: SchedulerState, send: Callable[[bytes, bytes], object]) -> None:
        """`send`: sends a message to a client."""
        self._state = state
        self._send = send
        self._new: list[tuple[PendingSubmit, Accepted]] = []
        self._held: dict[bytes, list[tuple[int, bytes]]] = {}  # by peer: (time of holding, answer)

    @property
    def is_holding(self) -> bool:
        """True if answers are held, so that `send_stored` must be called within HOLD_S."""
        return bool(self._held)

    def add(self, pending: PendingSubmit, accepted: Accepted) -> None:
        """Add an answer, to be sent after the next commit."""
        self._new.append((pending, accepted))

    def take_unstored(self) -> Iterator[tuple[PendingSubmit, Accepted]]:
        """Remove and return the answers whose tasks could not be stored."""
        while self._new:
            yield self._new.pop(0)

    def send_stored(self) -> None:
        """Send or hold the answers whose tasks are stored, and send those that were held long
        enough."""
        for pending, accepted in self._new:
            body = codec.encode(accepted)
            if pending.message.awaits_result and self._ends_soon(accepted):
                self._held.setdefault(pending.peer, []).append((time.monotonic_ns(), body))
            else:
                self._send(pending.peer, body)
            fault_injection.hit("accepted.sent")
        self._new.clear()
        if self._held:
            oldest_ns = time.monotonic_ns() - _HOLD_NS
            for peer in [peer for peer, held in self._held.items() if held[0][0] <= oldest_ns]:
                self._send_held(peer)

    def send_results(self, results: Sequence[tuple[bytes, bytes]]) -> None:
        """Send results, (client, message), each after the held answers of its client."""
        for peer, body in results:
            if self._held:
                self._send_held(peer)
            self._send(peer, body)

    def close(self) -> None:
        """Send all held answers."""
        for peer in list(self._held):
            self._send_held(peer)

    def _send_held(self, peer: bytes) -> None:
        for _, body in self._held.pop(peer, ()):
            self._send(peer, body)

    def _ends_soon(self, accepted: Accepted) -> bool:
        """Return whether a worker has the single task of a Submit and will end it soon."""
        if accepted.repeated or accepted.count != 1:
            return False
        record = self._state.tasks.get(accepted.first)
        return record is not None and record.phase == SENT and not record.announced
