"""Results that arrived damaged: detected by their checksum, and fetched again.

The service checks its stored copy. If that is intact, it is sent again; else the task runs again,
which gives the same bits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from simenv.errors import NotFoundError, StoreError
from simenv.model import task_name

if TYPE_CHECKING:
    from simenv.wire.messages.client import Completion


class ResultChecker(Protocol):
    """The connection through which the service checks results; `ServiceSession` implements it."""

    def verify(self, number: int) -> str: ...


def is_intact(completion: Completion) -> bool:
    """Return whether a result has the checksum that its worker recorded."""
    return zlib.crc32(completion.payload) == completion.checksum


def fetch_again(
    service: ResultChecker, number: int, receive: Callable[[], Completion | None], reason: str
) -> Completion:
    """Have the service check a task's result; return the intact or the new one.

    `receive`: waits for the next completion of the task. `reason`: text about the damage. Raises
    NotFoundError if the service has removed the result, StoreError if it is still damaged.
    """
    name = task_name(number)
    if service.verify(number) in ("unknown", "removed"):
        raise NotFoundError(
            f"the result of task {name} is no longer kept",
            hint="submit it again with its seed; results.keep_gib limits the stored results",
        )
    completion = receive()
    if completion is None or not is_intact(completion):
        raise damaged(name, reason)
    return completion


def damaged(name: str, reason: str) -> StoreError:
    """Return the error for a result that is still damaged after its task has run again."""
    return StoreError(
        f"the result of task {name} is damaged: {reason}",
        hint="submit it again with its seed; if that happens again, look at disk and memory",
    )
