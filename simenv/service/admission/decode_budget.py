"""Bound the time that large messages of one owner take: their decoding in the event loop, and the
checks of their content in the other thread, which shares the interpreter with the loop.

A message can be refused only after it was decoded. Invariant: decoding and checks of large messages
for the owner of one key take at most SHARE of the time, after a first BURST_NS. Checks of small
ones, such as the trial of engines for a wide program, are not counted: owners take turns in that
thread. Decoding time above that of any valid message is charged at a higher rate.
"""

from __future__ import annotations

import time

from simenv.errors import QueueFullError
from simenv.service.support.fair_thread import FairThread
from simenv.wire import codec
from simenv.wire.messages import client as m

LARGE_BYTES = 2**14  # smaller messages take less time than the accounting
SHARE = 0.25
BURST_NS = 100_000_000
SOUND_NS = 10_000_000  # 8 MiB of one program take less
COSTLY = 40  # factor by which time above SOUND_NS is charged


class Decoding:
    """Time of each owner's large messages, reduced by the owner's share of the time since then.
    Used from the loop's thread."""

    def __init__(self, checks: FairThread) -> None:
        """`checks`: the thread in which the content of messages is checked."""
        self._checks = checks
        self._debts: dict[str, tuple[float, int]] = {}  # nanoseconds, and the time of that count

    def of(self, owner: str, body: bytes) -> m.FromClient:
        """Decode a message. Raises QueueFullError for an owner without time left, ProtocolError for
        other bytes. Small messages, and those of the environment's own user, are not counted."""
        if len(body) <= LARGE_BYTES or not owner:
            return codec.from_client(body)
        begin_ns, busy_ns = time.monotonic_ns(), time.thread_time_ns()
        debt_ns, then_ns = self._debts.get(owner, (0.0, begin_ns))
        debt_ns += self._checks.take_spent_ns(owner)  # some time since then
        debt_ns = max(0.0, debt_ns - SHARE * (begin_ns - then_ns))
        if debt_ns > BURST_NS:
            self._debts[owner] = debt_ns, begin_ns
            raise QueueFullError(
                f"large messages with the key {owner!r} took more than {SHARE:.0%} of the service's"
                " time",
                hint="send them more slowly",
                retry_after_s=(debt_ns - BURST_NS) / SHARE / 1e9,
            )
        try:
            return codec.from_client(body)
        finally:
            spent_ns = time.thread_time_ns() - busy_ns
            spent_ns += COSTLY * max(0, spent_ns - SOUND_NS)
            self._debts[owner] = (debt_ns + spent_ns, begin_ns)
