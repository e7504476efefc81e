"""Tasks whose acceptance nobody waits for yet.

Invariant: at most UNANSWERED are on their way at once; the next one waits for the oldest's answer,
so a flood is held back at its source.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from simenv.client import refusals
from simenv.client.entry import Entry
from simenv.client.task import Task
from simenv.wire.messages import Refusal

if TYPE_CHECKING:
    from simenv.client.link import Link
    from simenv.client.requests import Request
    from simenv.errors import SimenvError

UNANSWERED = 512


class PostedTask(Task):
    """A Task that is perhaps not accepted yet.

    Whatever needs the acceptance (its id, its state, its result) waits for it, and raises the
    refusal if that is what came. In a forked child, and after the service was lost, it is asked for
    again under the same key.
    """

    __slots__ = ("_link", "_refusal", "_request")

    def __init__(self, link: Link, request: Request) -> None:
        super().__init__(None)
        self._link = link
        self._request = request
        self._refusal: SimenvError | None = None

    @property
    def link(self) -> Link:
        return self._link

    @property
    def entry(self) -> Entry:
        entry = self.settled()
        if entry is None:
            assert self._refusal is not None
            raise self._refusal
        return entry

    def done(self) -> bool:
        """True once the end, or the refusal, has been heard; never waits."""
        if self._entry is None and self._refusal is None and not self._request.is_answered():
            self._link.look(self._request)
            if not self._request.is_answered():
                return False
        return self.settled() is None or super().done()

    def exception(self, timeout: float | None = None) -> SimenvError | None:
        """What `result` would raise of the task's own end; its refusal, if it was refused."""
        begun = monotonic()
        if self.settled(timeout) is None:
            return self._refusal
        return super().exception(_left(timeout, begun))

    def _ended(self, timeout: float | None) -> Entry:
        begun = monotonic()
        if self.settled(timeout) is None and self._refusal is not None:
            raise self._refusal
        return super()._ended(_left(timeout, begun))

    def settled(self, timeout: float | None = None) -> Entry | None:
        """Wait for the answer; None: it was refused. TimedOut after `timeout` seconds."""
        if self._entry is None and self._refusal is None:
            found = self._link.claim(self._request, timeout)[0]
            if isinstance(found, Refusal):
                refusal = refusals.one(found, 0)
                refusal.index = -1
                self._refusal = refusal
            else:
                self._entry = found
        return self._entry

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Task) or self.settled() is None or other.settled() is None:
            return False
        return super().__eq__(other)

    def __hash__(self) -> int:
        return object.__hash__(self) if self.settled() is None else super().__hash__()

    def __repr__(self) -> str:
        if self._request.is_answered():
            self.settled()  # which waits for nothing then
        if self._entry is None:
            return f"<Task {'refused' if self._refusal is not None else 'not accepted yet'}>"
        return super().__repr__()


def _left(timeout: float | None, begun: float) -> float | None:
    return None if timeout is None else max(0.0, timeout - (monotonic() - begun))


class Window:
    """The posted tasks of a client that were not answered when last looked at. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: deque[PostedTask] = deque()

    def add(self, task: PostedTask) -> None:
        """Returns when there is room for another."""
        oldest = None
        with self._lock:
            self._open.append(task)
            if len(self._open) > UNANSWERED:
                oldest = self._open.popleft()
        if oldest is not None:
            oldest.settled()
