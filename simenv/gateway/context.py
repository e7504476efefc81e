"""What every route of the gateway is given: the caller, and the client with the caller's rights.

Invariant: the gateway acts for a user only by a certificate that the service issued for a token
which that user has presented; what the user may not do, the gateway cannot do for the user.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec
from litestar import Request

from simenv.client.client import Client
from simenv.client.submission.options import is_traceparent
from simenv.config import GatewaySettings
from simenv.errors import NotAllowedError
from simenv.sandbox.function_process import SandboxProcess
from simenv.wire.messages.base import A, ClientRequest
from simenv.wire.messages.credentials import TokenCertificate

P = ParamSpec("P")
T = TypeVar("T")


class Caller(msgspec.Struct, frozen=True):
    """Who sends a request. `user` "": the environment's own user; `account`: the one that is
    charged if a request names none, "" for the user's default; `role`: client, admin or monitor;
    `token`: number of the token in the service's list, which the audit names; `reservation`: the
    one under which work on `pool` runs, 0 for none."""

    user: str
    account: str
    role: str
    token: str
    reservation: int = 0
    pool: str = ""

    def reservation_of(self, pool: str) -> int:
        """Return the number of the reservation under which work for a pool runs; 0 if the token has
        none. Raises NotAllowedError if it has one of another pool."""
        if self.reservation and self.pool not in ("", pool):  # "": of all pools
            text = f"this token is for work under reservation {self.reservation} of {self.pool!r}"
            hint = "use a token without a reservation: simenv gateway tokens add"
            raise NotAllowedError(f"{text}, and this is for {pool!r:.80}", hint=hint)
        return self.reservation

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


class AccessToken(msgspec.Struct, frozen=True):
    """A JWT of this gateway, and its times in seconds since 1970."""

    text: str
    issued_s: int
    expires_s: int


def trace_of(request: Request[Any, Any, Any]) -> str:
    """Return the traceparent of a request; "" without a valid one, as the standard demands."""
    trace = request.headers.get("traceparent", "")
    return trace if is_traceparent(trace) else ""


class Gateway(Protocol):
    """The running gateway."""

    environment: str  # name
    settings: GatewaySettings
    folder: Path  # mode 0700, for files of the gateway
    url: str  # "http://127.0.0.1:8080", without a slash at its end
    on_close: list[Callable[[], Awaitable[None]]]  # called before its clients are closed

    def client(self, caller: Caller) -> Client:
        """Return the caller's client, whose methods block: call them through `call`. Raises
        SimenvError."""

    async def call(
        self, caller: Caller, function: Callable[Concatenate[Client, P], T],
        /, *args: P.args, **kwargs: P.kwargs,
    ) -> T:  # fmt: skip
        """Run `function(client, ...)` in one of the caller's threads, which are bounded, so that
        one caller does not stop the others. Raises what it raises; QueueFullError if too many of
        the caller's calls wait."""

    async def ask(self, caller: Caller, message: ClientRequest[A]) -> A:
        """Return the answer to one message of the caller, as `client.session.request` does; it
        takes no thread while the service answers. Raises the error of a refusal, and as `call`."""

    def sandbox(self, caller: Caller) -> SandboxProcess:
        """Return the process of the caller for `simenv.gateway.request_process.call`."""

    def holding(self, caller: Caller) -> AbstractContextManager[None]:
        """Return the context in which an answer waits for a task or job. Raises QueueFullError on
        entry if too many of the caller's wait."""

    async def caller(self, request: Request[Any, Any, Any], *, for_metrics: bool = False) -> Caller:
        """Return the caller of a request, for routes that need no credential from everybody. The
        role monitor is refused unless `for_metrics`. Raises KeyRefusedError, NotAllowedError."""

    async def certificate(self, caller: Caller, public_key: str) -> TokenCertificate:
        """Return a certificate with the caller's rights for a process that has the secret key.
        Raises SimenvError."""

    async def access_token(self, api_key: str) -> AccessToken:
        """Return a JWT for a bearer token. Raises KeyRefusedError."""

    def observer(self) -> Client:
        """Return the gateway's own client, which may only read what has no owner: pools, nodes,
        devices, metrics. For `metrics` and the telemetry store."""
