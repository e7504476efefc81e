"""Requests of a session, the types of their answers, and timings of the client.

The timings are sent with the next submission, for `simenv profile`. They are updated without a
lock: a value that is lost between two threads changes a statistic only.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from simenv.client.connection.task_handle import Submission, TaskHandle
from simenv.wire.messages.common import Reply
from simenv.wire.messages.queries import Spent

REPEAT_S = 5.0  # a request without answer is repeated after this time


class PendingRequest(msgspec.Struct, eq=False):
    """A request and its answer; of a Submit also the submission and the number of its tasks."""

    number: int
    body: bytes = b""
    requested_s: float = 0.0
    answer: Reply | None = None
    submission: Submission | None = None
    count: int = 0
    handles: Sequence[TaskHandle] = ()
    repeated: bool = False  # the service knew its idempotency key: no task is new

    def is_answered(self) -> bool:
        return self.answer is not None


class ClientTimings:
    """Times of the client since its last submission, in seconds."""

    __slots__ = ("accepted_s", "late_s", "packed_s", "results")

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.packed_s = 0.0  # packing of circuits and parameter values
        self.accepted_s = 0.0  # waiting for acceptance
        self.late_s = 0.0  # from the end of a task to the reading of its result, summed
        self.results = 0  # number of results that were read

    def take(self) -> Spent:
        """Return the timings as a message, and reset them."""
        spent = Spent(
            int(1e6 * self.packed_s),
            int(1e6 * self.accepted_s),
            max(0, int(1e6 * self.late_s)),
            self.results,
        )
        self._reset()
        return spent
