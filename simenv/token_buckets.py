"""Token buckets: bounds of how often something may be done (RFC 3290, section 8). Pure: times come
in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

MAX_BUCKETS = 10_000


class Rate(NamedTuple):
    """Rate of a bucket, and the tokens that a full one holds."""

    per_s: float
    burst: float


class TokenBuckets:
    """Buckets by key, of which the newest are kept. A new bucket is full."""

    def __init__(self, most: int = MAX_BUCKETS) -> None:
        self._most = most
        # Tokens left, and the time in seconds at which they were.
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable, rate: Rate, now_s: float) -> float:
        """Return the seconds until a token can be taken; 0: now."""
        left = self._left(key, rate, now_s)
        return 0.0 if left >= 1.0 else (1.0 - left) / rate.per_s

    def take(self, key: Hashable, rate: Rate, now_s: float) -> float:
        """Take one token, if there is one. Returns the seconds until there is one; 0: it was
        taken."""
        wait_s, left = self.wait_s(key, rate, now_s), self._left(key, rate, now_s)
        self._buckets[key] = left - (not wait_s), now_s
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return wait_s

    def take_more(self, key: Hashable, count: float) -> None:
        """Take more tokens after one was taken, also those to come."""
        if key in self._buckets:
            left, before_s = self._buckets[key]
            self._buckets[key] = left - count, before_s

    def _left(self, key: Hashable, rate: Rate, now_s: float) -> float:
        left, before_s = self._buckets.get(key, (rate.burst, now_s))
        return min(rate.burst, left + (now_s - before_s) * rate.per_s)
