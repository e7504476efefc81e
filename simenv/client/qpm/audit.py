"""What was asked of the control binding, and what a reconciliation found: the newest of each."""

from __future__ import annotations

from collections import deque
from time import time

import msgspec

KEPT = 256


class AuditEntry(msgspec.Struct, frozen=True):
    """One request to `control`."""

    operation: str
    reason: str | None
    timestamp_ns: int


class Fault(msgspec.Struct, frozen=True):
    """One thing that a reconciliation found wrong."""

    kind: str
    qtask_id: int
    timestamp_ns: int


class Audit:
    """Appending to a bounded deque is atomic: no lock."""

    def __init__(self) -> None:
        self._entries: deque[AuditEntry] = deque(maxlen=KEPT)
        self._faults: deque[Fault] = deque(maxlen=KEPT)

    def note(self, operation: str, reason: str | None) -> None:
        """`operation` was asked for."""
        self._entries.append(AuditEntry(operation, reason, round(time() * 1e9)))

    def fault(self, kind: str, qtask_id: int) -> None:
        """A reconciliation found this."""
        self._faults.append(Fault(kind, qtask_id, round(time() * 1e9)))

    def entries(self) -> list[AuditEntry]:
        return list(self._entries)

    def faults(self) -> list[Fault]:
        return list(self._faults)
