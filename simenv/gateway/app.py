"""The application: the caller of each request, the routes of sessions, and what all routes share.

Invariants: a handler that takes `caller` runs only for a caller whose token the service has
confirmed, and with that caller's rights; the number of metrics of requests is bounded, since their
path is that of a route, without values.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.di import NamedDependency, Provide
from litestar.params import FromQuery
from litestar.response import Redirect
from litestar.types import ASGIApp, ControllerRouterHandler, Message, Receive, Scope, Send
from prometheus_client import Counter, Gauge, Histogram

from simenv._version import __version__
from simenv.client.client import Client
from simenv.config import GatewaySettings
from simenv.errors import DECODE_ERRORS, KeyRefusedError, NotAllowedError, OptionError
from simenv.gateway import security
from simenv.gateway.clients import ClientPool
from simenv.gateway.context import AccessToken, Caller
from simenv.gateway.json_bodies import encode_body
from simenv.gateway.limits import UNKNOWN_BYTES, CallerRates, HeldAnswers, exchange_of
from simenv.gateway.problems import EXCEPTION_HANDLERS
from simenv.sandbox.function_process import SandboxProcess
from simenv.wire.messages.base import A, ClientRequest, Role
from simenv.wire.messages.credentials import TokenCertificate, TokenCreated

P = ParamSpec("P")
T = TypeVar("T")
_ROUTE = ("method", "path")
REQUESTS = Counter("simenv_http_requests", "Requests", (*_ROUTE, "status_code"))  # ..._total
DURATIONS = Histogram(
    "simenv_http_request_duration_seconds", "Request duration", (*_ROUTE, "status_code")
)
RUNNING = Gauge("simenv_http_requests_in_progress", "Requests under way", _ROUTE)

# Of each route: to find them by their labels would cost more than all the rest.
_running = cache(RUNNING.labels)


class RunningGateway:
    """The gateway of one process: `simenv.gateway.context.Gateway`."""

    def __init__(
        self, environment: str, settings: GatewaySettings, folder: Path, url: str, pool: ClientPool
    ) -> None:
        self.environment = environment
        self.settings = settings
        self.folder = folder
        self.url = url
        self.pool = pool
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        self._signer = security.Signer(folder)
        self._rates = CallerRates(settings.requests_per_s)
        self._held = HeldAnswers()

    def client(self, caller: Caller) -> Client:
        return self.pool.entry(caller).client

    async def call(
        self, caller: Caller, function: Callable[Concatenate[Client, P], T],
        /, *args: P.args, **kwargs: P.kwargs,
    ) -> T:  # fmt: skip
        entry = self.pool.entry(caller)
        try:
            return await entry.call(partial(function, entry.client, *args, **kwargs))
        except KeyRefusedError:  # the service has ended the certificate
            self.pool.drop(caller.token)
            raise

    async def ask(self, caller: Caller, message: ClientRequest[A]) -> A:
        try:
            return await self.pool.entry(caller).ask(message)
        except KeyRefusedError:  # as above
            self.pool.drop(caller.token)
            raise

    def sandbox(self, caller: Caller) -> SandboxProcess:
        return self.pool.sandboxes.of(caller.user)

    def holding(self, caller: Caller) -> AbstractContextManager[None]:
        return self._held.hold(caller.user)

    async def caller(self, request: Request[Any, Any, Any], *, for_metrics: bool = False) -> Caller:
        secret = security.credential(request, self._cookie(request), self._signer)
        caller = await self.pool.caller(secret)
        state = request.scope["state"]
        state["caller"] = caller  # for the audit log, and the bounds of its user
        if (connection := state.get("connection")) is not None:
            connection.belongs_to(caller.user)
        self._rates.check(caller.user)
        if not for_metrics:
            _check_reads_all(caller)
        return caller

    async def certificate(self, caller: Caller, public_key: str) -> TokenCertificate:
        entry = self.pool.entry(caller)
        return await entry.call(partial(entry.endpoint.certificate_for, public_key))

    async def access_token(self, api_key: str) -> AccessToken:
        self._rates.check((await self.pool.caller(api_key)).user)
        return self._signer.access_token(api_key)

    def observer(self) -> Client:
        return self.pool.observer

    async def log_in(self, request: Request[Any, Any, Any], link: str) -> Cookie:
        """Return the cookie for a one-time token. Raises KeyRefusedError, SimenvError."""
        made = await self.pool.once(link, _browser_token)
        return self._browser_cookie(request, made.secret)

    async def log_in_by_token(self, request: Request[Any, Any, Any], secret: str) -> Cookie:
        """Return the cookie for a bearer token: a token of this browser alone, which ends with that
        one. Raises KeyRefusedError, NotAllowedError for one that reads metrics alone,
        SimenvError."""
        caller = await self.pool.caller(secret)
        self._rates.check(caller.user)
        _check_reads_all(caller)
        made = await self.call(caller, _browser_token, caller, parent=caller.token)
        return self._browser_cookie(request, made.secret)

    async def log_out(self, request: Request[Any, Any, Any], caller: Caller) -> Cookie:
        """Revoke the token of a browser; return the cookie that replaces it. Raises
        NotAllowedError for a request without the cookie, whose token is not a browser's alone."""
        if "authorization" in request.headers:
            text = "a request with Authorization is of no session of a browser"
            raise NotAllowedError(text, hint="simenv gateway tokens revoke NUMBER")
        with suppress(KeyRefusedError):  # the token ends before the answer
            await self.call(caller, lambda client: client.tokens.revoke(caller.token))
        self.pool.drop(caller.token)
        return self._browser_cookie(request, "", 0.0)

    def _browser_cookie(
        self, request: Request[Any, Any, Any], value: str, lifetime_s: float = security.BROWSER_S
    ) -> Cookie:
        return Cookie(
            self._cookie(request), value=value, max_age=int(lifetime_s), httponly=True,
            secure=request.base_url.scheme == "https", samesite="strict",
        )  # fmt: skip

    def _cookie(self, request: Request[Any, Any, Any]) -> str:
        return security.cookie_name(self.environment, request.scope["scheme"] == "https")


def _check_reads_all(caller: Caller) -> None:
    """Check that a caller may read more than metrics. Raises NotAllowedError."""
    if caller.role == Role.MONITOR:
        text = f"the role {caller.role} may read /metrics and nothing else"
        raise NotAllowedError(text, hint="a token with the role client")


def _browser_token(client: Client, caller: Caller, parent: str = "") -> TokenCreated:
    return client.tokens.add(
        account=caller.account, role=caller.role, purpose="browser", lifetime_s=security.BROWSER_S,
        reservation=caller.reservation, parent=parent,
    )  # fmt: skip


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bearer token that a user has typed into the page."""

    token: Annotated[str, msgspec.Meta(max_length=UNKNOWN_BYTES)]


class CallerSession(msgspec.Struct, frozen=True):
    """The caller, as the service knows it."""

    environment: str
    version: str
    user: str  # "": the environment's own user
    role: str  # client or admin
    account: str  # charged by default; "": the user's default
    token: str  # number of the token


def session_routes(gateway: RunningGateway) -> list[ControllerRouterHandler]:
    """Return the routes of sessions."""

    @get("/session", operation_id="session", tags=["session"])
    async def session(caller: NamedDependency[Caller]) -> CallerSession:
        """Return the caller."""
        fields = (caller.user, caller.role, caller.account, caller.token)
        return CallerSession(gateway.environment, __version__, *fields)

    @get("/login", include_in_schema=False)
    async def log_in(request: Request[Any, Any, Any], token: FromQuery[str] = "") -> Redirect:
        """Follow a one-time link of `simenv web`; without one the page asks for a token."""
        if not token:
            return Redirect("/ui/")
        try:
            cookie = await gateway.log_in(request, token)
        except KeyRefusedError as error:
            hint = (
                "a link signs in one browser, once, within ten minutes; simenv web prints another."
                f" A token of another kind is typed into the page: {gateway.url}/ui/"
            )
            raise KeyRefusedError(error.message, hint=hint) from error
        return Redirect("/ui/", cookies=[cookie])

    @post("/login", status_code=204, include_in_schema=False)
    async def log_in_by_token(request: Request[Any, Any, Any]) -> Response[None]:
        """Sign a browser in by a bearer token, from the page alone: another site's page must not
        sign a browser in as somebody else."""
        security.check_same_origin(request)
        exchange_of(request).max_bytes = UNKNOWN_BYTES  # also with a cookie, which nobody has read
        try:
            asked = msgspec.json.decode(await request.body(), type=SignIn)
        except DECODE_ERRORS as error:
            raise OptionError(f"the request: {error!s:.200}", hint='{"token": "..."}') from error
        cookie = await gateway.log_in_by_token(request, asked.token.strip())
        return Response(None, cookies=[cookie])

    @post("/logout", status_code=204, include_in_schema=False)
    async def log_out(
        request: Request[Any, Any, Any], caller: NamedDependency[Caller]
    ) -> Response[None]:
        """End the session of a browser. A token that its user has typed stays valid: it is not this
        browser's alone."""
        return Response(None, cookies=[await gateway.log_out(request, caller)])

    return [session, log_in, log_in_by_token, log_out]


@cache
def _ended(method: str, path: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, path, status), DURATIONS.labels(method, path, status)


def count_requests(app: ASGIApp) -> ASGIApp:
    """Return an application of the framework that counts its requests: a middleware."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        route: Any = scope["method"], scope["path_template"]  # type: ignore[typeddict-item]
        status, begun_s = 500, perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        running = _running(*route)
        running.inc()
        try:
            await app(scope, receive, sent)
        finally:
            running.dec()
            requests, durations = _ended(*route, status)
            requests.inc()
            durations.observe(perf_counter() - begun_s)

    return counted


def create_app(gateway: RunningGateway, *routes: ControllerRouterHandler) -> Litestar:
    """Return the application."""

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        idle = asyncio.create_task(gateway.pool.close_idle())
        try:
            yield
        finally:
            idle.cancel()
            for close in gateway.on_close:
                await close()
            gateway.pool.close()

    async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return await gateway.caller(request)

    return Litestar(
        [*session_routes(gateway), *routes],
        dependencies={"caller": Provide(provide_caller)},
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,  # `native` describes its routes itself
        lifespan=[lifespan],
        middleware=[count_requests],
        after_request=encode_body,
        request_max_body_size=None,  # `BoundedApplication` bounds bodies
        debug=False,
        logging_config=None,
    )
