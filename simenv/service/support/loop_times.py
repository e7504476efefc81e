"""Durations of the event loop's passes, during which no client is answered.

A pass lasts from the arrival of a message, or a due time, until the loop waits again; work between
two passes belongs to the first. Passes without messages count only for the longest pass, so that
an idle service does not hide the others.
"""

from __future__ import annotations

import time
from collections import deque

SAMPLES = 4_096  # passes with messages


class PassTimes:
    """Durations of passes, in nanoseconds. Used from the loop's thread."""

    def __init__(self) -> None:
        self._samples_ns: deque[int] = deque(maxlen=SAMPLES)
        self._begin_ns = 0
        self.had_messages = False  # whether the present pass handles messages
        self.longest_ns = 0

    def wait_begins(self) -> None:
        """End the present pass; called before the loop waits."""
        if not self._begin_ns:
            return
        took_ns = time.monotonic_ns() - self._begin_ns
        if took_ns > self.longest_ns:
            self.longest_ns = took_ns
        if self.had_messages:
            self._samples_ns.append(took_ns)
        self._begin_ns = 0

    def wait_ends(self) -> int:
        """Begin a pass. Returns the present monotonic time in ns."""
        self._begin_ns = time.monotonic_ns()
        return self._begin_ns

    def restart(self) -> None:
        """Forget the longest pass and the present one: start-up is over."""
        self._begin_ns = self.longest_ns = 0

    def p99_ms(self) -> float:
        """99th percentile of the durations of the last SAMPLES passes with messages, in ms."""
        ordered = sorted(self._samples_ns)
        return ordered[len(ordered) * 99 // 100] / 1e6 if ordered else 0.0

    def longest_ms(self) -> float:
        """Duration of the longest pass since `restart`, in ms."""
        return self.longest_ns / 1e6
