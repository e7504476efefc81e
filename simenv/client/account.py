"""Where a client's own time goes, told with its next submission, so that `simenv perf` can say it.

Invariant: adding to it costs a clock's look; what is lost when two threads add at once is a figure.
"""

from __future__ import annotations

from simenv.wire.history import Spent


class Account:
    """Seconds since the last submission."""

    __slots__ = ("accepted_s", "late_s", "packed_s", "results")

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.packed_s = 0.0  # circuits and angles to bytes
        self.accepted_s = 0.0  # waiting for acceptance
        self.late_s = 0.0  # results ready and not read yet, all together
        self.results = 0  # that were read

    def take(self) -> Spent:
        """What has gathered, and begin anew."""
        spent = Spent(
            int(1e6 * self.packed_s),
            int(1e6 * self.accepted_s),
            max(0, int(1e6 * self.late_s)),
            self.results,
        )
        self._reset()
        return spent
