"""Questions that wait for their answers, worked on a slice of the loop at a time.

Invariant: a pass spends its slice and one step on them, however much is asked; those who ask take
turns, so that nobody waits for another's long question; one's own are answered in their order.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

import msgspec

from simenv.errors import QueueFull, SimenvError
from simenv.service.inquiry import refusal
from simenv.service.records import DamagedRecord
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.wire.auth import Identity

MOST_OF_ONE = 1_024  # questions of one connection that wait
MOST_EARLY = 10_000  # that were asked before they could be answered
TURN_NS = 2_000_000
RETRY_AFTER_S = 1.0

Steps = Iterator[bytes | None]  # packed answers; None: nothing to send yet, look at the clock


class Asked(msgspec.Struct, eq=False):
    """A question, and how far its answer has come."""

    who: Identity
    question: m.FromClient
    steps: Steps | None = None


class Desk:
    """Used from the loop's thread. `answer` makes the steps of an answer; `broken` is told of a
    record that cannot be read, after which the question begins anew."""

    def __init__(
        self,
        answer: Callable[[bytes, Identity, m.FromClient], Steps],
        broken: Callable[[DamagedRecord], None],
        say: Callable[[bytes, bytes], object],
        ready: Callable[[m.FromClient], bool] = lambda _: True,
    ) -> None:
        """`ready`: can it be answered yet? Else it waits for `wake`."""
        self._ready = ready
        self._early: list[tuple[bytes, Identity, m.FromClient]] = []
        self._answer = answer
        self._broken = broken
        self._say = say
        self._waiting: OrderedDict[bytes, deque[Asked]] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Does anybody wait for an answer that could be given?"""
        return bool(self._waiting)

    def take(self, peer: bytes, who: Identity, question: m.FromClient) -> None:
        """`work` will come to it; QueueFull if too many wait already."""
        if not self._ready(question) and len(self._early) < MOST_EARLY:
            self._early.append((peer, who, question))
            return
        asked = self._waiting.setdefault(peer, deque())
        if len(asked) >= MOST_OF_ONE:
            raise QueueFull(
                f"{len(asked)} questions of this connection wait for an answer",
                hint="wait for the answers",
                retry_after_s=RETRY_AFTER_S,
            )
        asked.append(Asked(who, question))

    def wake(self) -> None:
        """What was asked too early can be answered now."""
        early, self._early = self._early, []
        for peer, who, question in early:
            self._waiting.setdefault(peer, deque()).append(Asked(who, question))

    def work(self, deadline_ns: int) -> None:
        """Answer until the deadline."""
        while self._waiting:
            peer, asked = next(iter(self._waiting.items()))
            turn_ns = min(deadline_ns, time.monotonic_ns() + TURN_NS)
            if self._go_on(peer, asked[0], turn_ns):
                asked.popleft()
            if asked:
                self._waiting.move_to_end(peer)
            else:
                del self._waiting[peer]
            if time.monotonic_ns() >= deadline_ns:
                return

    def _go_on(self, peer: bytes, asked: Asked, deadline_ns: int) -> bool:
        """Some steps of one answer; True when that was all."""
        try:
            try:
                if asked.steps is None:
                    asked.steps = self._answer(peer, asked.who, asked.question)
                for answer in asked.steps:
                    if answer is not None:
                        self._say(peer, answer)
                    if time.monotonic_ns() >= deadline_ns:
                        return False
            except DamagedRecord as error:
                asked.steps = None
                self._broken(error)
                return False
        except SimenvError as error:  # a journal that can't be read
            request = getattr(asked.question, "request", 0)
            self._say(peer, codec.encode(m.Refused(request, [refusal(error)])))
        return True
