"""Buckets of durations, of which metrics are made."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from simenv.wire.messages.metrics import BUCKETS, LEAST_EXPONENT, DurationHistogram

_BOUNDS_US = [int(1e6 * 2.0 ** (LEAST_EXPONENT + k)) for k in range(BUCKETS - 1)]


class DurationBuckets:
    """Histogram of durations in microseconds, with a bucket for each power of 2 as in
    `DurationHistogram`; a bucket contains the power of 2 that bounds it."""

    __slots__ = ("_counts", "_sum_us")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._sum_us = 0

    def add(self, us: int, count: int = 1) -> None:
        """Count a duration, `count` times."""
        self._counts[bisect_left(_BOUNDS_US, us)] += count
        self._sum_us += us * count

    def add_all(self, durations_us: Iterable[int]) -> None:
        """Count several durations."""
        ordered = sorted(durations_us)
        begin, counts = 0, self._counts
        index = bisect_left(_BOUNDS_US, ordered[0]) if ordered else BUCKETS
        while begin < len(ordered):
            is_last = index == BUCKETS - 1
            end = len(ordered) if is_last else bisect_right(ordered, _BOUNDS_US[index], begin)
            counts[index] += end - begin
            begin, index = end, index + 1
        self._sum_us += sum(ordered)

    def histogram(self) -> DurationHistogram:
        """Return the present counts."""
        return DurationHistogram(tuple(self._counts), self._sum_us / 1e6)
