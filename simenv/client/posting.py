"""Tasks whose acceptance nobody waits for yet.

Invariant: at most UNANSWERED are on their way at once; the next one waits for the oldest's answer,
so a flood is held back at its source.
"""

from __future__ import annotations

import threading
from collections import deque
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
    refusal if that is what came.
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
            self._link.channel.glance()
            if not self._request.is_answered():
                return False
        return self.settled() is None or super().done()

    def settled(self) -> Entry | None:
        """Wait for the answer; None: it was refused."""
        if self._entry is None and self._refusal is None:
            found = self._link.claim(self._request)[0]
            if isinstance(found, Refusal):
                self._refusal = refusals.one(found, 0)
                self._refusal.index = -1
            else:
                self._entry = found
        return self._entry


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
