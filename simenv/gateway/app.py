"""The application: routes of all APIs, the caller of each request, and what every response has.

Invariant: a handler that takes `caller` runs only for a caller whose token the service has
confirmed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.config.compression import CompressionConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.plugins.prometheus import PrometheusConfig
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from simenv._version import __version__
from simenv.client.client import Client
from simenv.config import GatewaySettings
from simenv.gateway import security
from simenv.gateway.clients import ClientPool
from simenv.gateway.context import Caller
from simenv.gateway.problems import EXCEPTION_HANDLERS
from simenv.gateway.security import Signer

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("simenv.gateway")


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
        self.signer = Signer(folder)
        self.cookie = security.cookie_name(environment, bool(settings.tls_certificate))

    def client(self, caller: Caller) -> Client:
        return self.pool.entry(caller).client

    async def call(
        self, caller: Caller, function: Callable[Concatenate[Client, P], T],
        /, *args: P.args, **kwargs: P.kwargs,
    ) -> T:  # fmt: skip
        entry = self.pool.entry(caller)
        return await entry.call(partial(function, entry.client, *args, **kwargs))

    def observer(self) -> Client:
        return self.pool.observer

    async def caller(self, request: Request[Any, Any, Any]) -> Caller:
        """Return the caller of a request. Raises KeyRefusedError, NotAllowedError."""
        return await self.pool.caller(security.credential(request, self.cookie, self.signer))


class Session(msgspec.Struct, frozen=True):
    """The caller as the service knows it."""

    environment: str
    version: str
    user: str  # "": the environment's own user
    role: str
    account: str
    token: str  # number of the token


def session_routes(gateway: RunningGateway) -> list[ControllerRouterHandler]:
    """Return the routes about the caller's session."""

    @get("/session", operation_id="session", tags=["session"])
    async def session(caller: Caller) -> Session:
        """Return the caller."""
        await gateway.call(caller, Client.device_names)
        fields = (caller.user, caller.role, caller.account, caller.token)
        return Session(gateway.environment, __version__, *fields)

    return [session]


def create_app(gateway: RunningGateway, *routes: ControllerRouterHandler) -> Litestar:
    """Return the application."""

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        yield
        gateway.pool.close()

    async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
        return await gateway.caller(request)

    return Litestar(
        [*session_routes(gateway), *routes],
        dependencies={"caller": Provide(provide_caller)},
        exception_handlers=EXCEPTION_HANDLERS,
        compression_config=CompressionConfig("gzip", minimum_size=1_000),
        openapi_config=OpenAPIConfig("simenv", __version__, path="/api/v1/openapi"),
        lifespan=[lifespan],
        middleware=[PrometheusConfig("simenv", "simenv_http", group_path=True).middleware],
        request_max_body_size=gateway.settings.max_request_bytes,
        debug=False,
        logging_config=None,
    )
