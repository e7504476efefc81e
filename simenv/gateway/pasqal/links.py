"""Results that a client fetches by a link, without its token.

pasqal-cloud asks for a link with its token, and follows it without one. A link has 256 random bits,
stands for bytes that were read with the rights of its caller, and ends after HELD_S. Invariant: the
bytes of all links are bounded, and those of one user to half of that; the oldest ones go first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from simenv.errors import LimitExceededError

HELD_S = 60.0
MAX_BYTES = 64 * 2**20


class _Held(NamedTuple):
    user: str
    until_s: float
    data: bytes


class ResultLinks:
    """Links of one gateway. Not thread-safe: of the event loop. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}  # by secret, the oldest first

    def add(self, user: str, data: bytes) -> str:
        """Hold data; return the secret of its link. Raises LimitExceededError."""
        if len(data) > MAX_BYTES // 2:
            text = f"a result of {len(data)} bytes; the limit of a link is {MAX_BYTES // 2}"
            raise LimitExceededError(text, hint="fewer runs, or observables at fewer times")
        self._drop(lambda held: held.until_s < self._clock())
        while self._bytes(user) + len(data) > MAX_BYTES // 2:
            self._drop_oldest(user)
        while self._bytes() + len(data) > MAX_BYTES:
            self._drop_oldest()
        secret = secrets.token_urlsafe(32)
        self._held[secret] = _Held(user, self._clock() + HELD_S, data)
        return secret

    def get(self, secret: str) -> bytes | None:
        """Return the data of a link; None: there is none, or it has ended."""
        held = self._held.get(secret)
        return None if held is None or held.until_s < self._clock() else held.data

    def _bytes(self, user: str | None = None) -> int:
        return sum(len(each.data) for each in self._held.values() if user in (None, each.user))

    def _drop_oldest(self, user: str | None = None) -> None:
        del self._held[next(key for key, held in self._held.items() if user in (None, held.user))]

    def _drop(self, is_over: Callable[[_Held], bool]) -> None:
        self._held = {key: held for key, held in self._held.items() if not is_over(held)}
