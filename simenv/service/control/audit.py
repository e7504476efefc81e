"""Audit log: the user, time and origin of each change of the environment.

An entry is an event whose kind begins with `audit.`; only administrators can read it. Invariant:
the entry is in the same commit as the change, and the change is acknowledged after that commit. On
a full disk two changes do not wait for it: revocation of a key and an immediate stop. Their
entries are in the first commit that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable

from simenv.service.journal.reader import AUDIT
from simenv.service.workers.action_executor import ActionExecutor
from simenv.wire.auth import Identity

OWN_USER = "the environment's own user"


class AuditLog:
    """Writer of audit entries. Used from the loop's thread. `origin` returns the origin of the
    present message."""

    def __init__(self, executor: ActionExecutor, origin: Callable[[], str]) -> None:
        self._executor = executor
        self._origin = origin

    def write(self, identity: Identity, kind: str, subject: str, detail: str) -> None:
        """Add an entry of the kind `audit.KIND`."""
        name = f"{identity.owner} ({identity.role})" if identity.owner else OWN_USER
        self._executor.record_event(
            f"audit.{kind}", subject, f"{detail}; by {name} from {self._origin()}", AUDIT
        )
