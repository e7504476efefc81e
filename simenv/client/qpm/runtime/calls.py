"""Access check of calls, requests with the contract's errors, and the audit of `control`.

A QPM with a token refuses calls without it. A QPM without a token ignores the argument: it has the
rights of its client, and no more.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import time
from typing import Any

import msgspec

from simenv.client.connection.session import A, ServiceSession
from simenv.client.qpm.requests import arguments
from simenv.errors import (
    ConfigError,
    InsufficientError,
    NoServiceError,
    NotAllowedError,
    NotFoundError,
    NotReservedError,
    SimenvError,
)
from simenv.qpm.errors import (
    ExecutionError,
    NotReadyError,
    OutOfResourcesError,
    QPMError,
    UnknownObjectError,
)
from simenv.qpm.states import Reason
from simenv.wire.messages import client as m


class TokenGuard:
    """Check of the token of calls. Thread-safe."""

    def __init__(self, token: str | None = None) -> None:
        self._token = None if token is None else token.encode("utf-8", "surrogatepass")

    def check(self, token: Any) -> None:
        """Raises ExecutionError if the token is missing, wrong or no text."""
        values = arguments.optional_text("token", token)
        if self._token is None:
            return
        shown = b"" if values is None else values.encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(shown, self._token):
            raise ExecutionError(
                "this call carries no token" if values is None else "this call's token is wrong",
                hint="token=: what the QPM's token file holds",
                reason=Reason.CREDENTIAL,
            )


def read_token(path: Path) -> str:
    """Read the first line of a file that no other user may read. Raises ConfigError."""
    try:
        with path.open(encoding="utf-8") as file:
            result = os.fstat(file.fileno())
            text = file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path}: {error}", hint="a file with a token") from error
    if result.st_uid != os.geteuid() or stat.S_IMODE(result.st_mode) & 0o077:
        raise ConfigError(
            f"token file {path} can be read by others",
            hint=f"chmod 600 {path}, and it must be yours",
        )
    if not 0 < len(text) <= arguments.MAX_TEXT_CHARS:
        raise ConfigError(
            f"token file {path} holds no token",
            hint=f"1 to {arguments.MAX_TEXT_CHARS} characters in its first line",
        )
    return text


def asked(session: ServiceSession, kind: type[A], make: Callable[[int], m.FromClient]) -> A:
    """Send a request as `ServiceSession.request`. Raises only QPMError."""
    try:
        return session.request(kind, make)
    except SimenvError as error:
        raise as_qpm_error(error) from error


def changed(
    session: ServiceSession, method: str, kind: type[A], make: Callable[[int], m.FromClient]
) -> A:
    """Send a change that needs the role admin. The error of another role names the contract's
    `method`."""
    try:
        return session.request(kind, make)
    except NotAllowedError as error:
        message = f"{method} needs the role admin; this QPM has the role client"
        raise ExecutionError(message, hint=error.hint, reason=error.code) from error
    except SimenvError as error:
        raise as_qpm_error(error) from error


def as_qpm_error(error: SimenvError) -> QPMError:
    """Convert an error of the service into an error of the contract."""
    match error:
        case QPMError():
            return error
        case NoServiceError():
            return NotReadyError(error.message, hint=error.hint)
        case InsufficientError():
            return OutOfResourcesError(error.message, hint=error.hint)
        case NotFoundError():
            return UnknownObjectError(error.message, hint=error.hint)
        case NotReservedError():
            reason: str = Reason.RESERVATION_NOT_FOUND
        case _:
            reason = error.code
    return ExecutionError(error.message, hint=error.hint, reason=reason)


KEPT = 256


class AuditEntry(msgspec.Struct, frozen=True):
    """One request to `control`."""

    operation: str
    reason: str | None
    timestamp_ns: int


class Fault(msgspec.Struct, frozen=True):
    """One fault that a reconciliation found."""

    kind: str
    qtask_id: int
    timestamp_ns: int


class Audit:
    """Newest audit entries and faults. Appending to a bounded deque is atomic, so there is no
    lock."""

    def __init__(self) -> None:
        self._entries: deque[AuditEntry] = deque(maxlen=KEPT)
        self._faults: deque[Fault] = deque(maxlen=KEPT)

    def note(self, operation: str, reason: str | None) -> None:
        """Record a request of `operation`."""
        self._entries.append(AuditEntry(operation, reason, round(time() * 1e9)))

    def fault(self, kind: str, qtask_id: int) -> None:
        """Record a fault of a reconciliation."""
        self._faults.append(Fault(kind, qtask_id, round(time() * 1e9)))

    def entries(self) -> list[AuditEntry]:
        return list(self._entries)

    def faults(self) -> list[Fault]:
        return list(self._faults)
