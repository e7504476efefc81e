"""A Submit on its way through admission, and how it is refused.

Invariant: importing this loads neither numpy nor kernels, so a start need not wait for them.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import msgspec

from simenv.errors import SimenvError
from simenv.model import Workload
from simenv.scheduler.values import Route
from simenv.wire.messages import Refusal, Submit

MAX_TIMEOUT_S = 10**8  # three years; in nanoseconds far within 64 bits


class Inquiry(msgspec.Struct):
    """A Submit on its way through admission."""

    peer: bytes
    owner: str
    message: Submit
    body: bytes
    received_ns: int
    routes: list[Route] = msgspec.field(default_factory=list)
    works: list[Workload] = msgspec.field(default_factory=list)  # only under a reservation
    refusals: list[Refusal] = msgspec.field(default_factory=list)
    next: int = 0
    mark: bytes = b""  # of its terms, once they are found sound
    wrong: dict[bytes, SimenvError] = msgspec.field(default_factory=dict)  # programs, by digest
    beside: Future[Any] | None = None  # the look at its next program, where that is large


def refusal(error: SimenvError, index: int = -1) -> Refusal:
    """An error as it travels."""
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return Refusal(error.code, error.message, error.hint, index, retry_after_s)
