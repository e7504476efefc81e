"""A gateway without tokens, for tests of routes: a `Gateway` over any client, served on loopback.

The bearer token is the name of the caller: `ana` is a client, `admin` an admin, none the
environment's own user. All use the one client. Limits, TLS and cookies are those of the real
gateway, and not here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import uvicorn
from litestar import Litestar, Request
from litestar.di import Provide

from simenv.client.client import Client
from simenv.config import GatewaySettings
from simenv.errors import QueueFullError
from simenv.gateway.clients import UserSandboxes
from simenv.gateway.context import Caller
from simenv.gateway.json_bodies import encode_body
from simenv.gateway.limits import BoundedApplication
from simenv.gateway.problems import EXCEPTION_HANDLERS
from simenv.gateway.request_process import request_sandbox
from simenv.sandbox.function_process import SandboxProcess
from simenv.wire.messages.base import A, ClientRequest

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 4
WAITING = 64  # calls of one caller that may wait


class GatewayStandIn:
    """See the module. `close` ends its threads; the client stays open."""

    def __init__(
        self, client: Client, folder: Path, settings: GatewaySettings | None = None
    ) -> None:
        self.environment = client.name
        self.settings = settings or GatewaySettings()
        self.folder = folder
        self.url = ""
        self.on_close: list[Any] = []
        self.paths: list[tuple[str, frozenset[str]]] = []  # of all routes, with their methods
        self._client = client
        self._threads = ThreadPoolExecutor(THREADS, "gateway")
        self._waiting: dict[str, int] = {}
        self._sandboxes = UserSandboxes(2, request_sandbox)

    def client(self, caller: Caller) -> Client:
        return self._client

    def observer(self) -> Client:
        return self._client

    def sandbox(self, caller: Caller) -> SandboxProcess:
        return self._sandboxes.of(caller.user)

    def holding(self, caller: Caller) -> AbstractContextManager[None]:
        return nullcontext()

    async def call(
        self, caller: Caller, function: Callable[Concatenate[Client, P], T],
        /, *args: P.args, **kwargs: P.kwargs,
    ) -> T:  # fmt: skip
        waiting = self._waiting.get(caller.user, 0)
        if waiting >= WAITING:
            raise QueueFullError(f"{waiting} calls of {caller.user!r} wait; the limit is {WAITING}")
        self._waiting[caller.user] = waiting + 1
        try:
            call = lambda: function(self._client, *args, **kwargs)  # noqa: E731
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._waiting[caller.user] -= 1

    async def ask(self, caller: Caller, message: ClientRequest[A]) -> A:
        return await self.call(caller, lambda client: client.session.request(message))

    def close(self) -> None:
        self._threads.shutdown()
        self._sandboxes.close()


def caller_of(request: Request[Any, Any, Any]) -> Caller:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    role = "admin" if token in ("", "admin") else "client"
    return Caller(user=token, account="", role=role, token="")


def app_of(routes: Sequence[Any], **settings: Any) -> Litestar:
    return Litestar(
        list(routes), dependencies={"caller": Provide(caller_of, sync_to_thread=False)},
        exception_handlers=EXCEPTION_HANDLERS, after_request=encode_body, openapi_config=None,
        logging_config=None, **settings,
    )  # fmt: skip


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI application from a thread; yield its base URL."""
    server = uvicorn.Server(
        uvicorn.Config(app, "127.0.0.1", 0, log_level="warning", timeout_graceful_shutdown=5)
    )
    started = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announced  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, name="gateway-stand-in")
    thread.start()
    try:
        if not started.wait(30):
            raise RuntimeError("the stand-in did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def gateway_of(
    client: Client, folder: Path, routes: Callable[[Any], Sequence[Any]], **settings: Any
) -> Iterator[GatewayStandIn]:
    """Serve routes over a client; the stand-in's `url` is where. `settings`: of GatewaySettings."""
    gateway = GatewayStandIn(client, folder, GatewaySettings(**settings))
    made = routes(gateway)
    try:
        app = app_of(made)
        gateway.paths = [
            (route.path, frozenset(map(str, getattr(route, "methods", ())))) for route in app.routes
        ]
        bounded = BoundedApplication(app, gateway.settings)

        async def known(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":  # whoever sends no token is the environment's own user
                scope["headers"] = [*scope["headers"], (b"cookie", b"known=1")]
            await bounded(scope, receive, send)

        with served(known) as gateway.url:
            yield gateway
    finally:
        for router in made:
            if hasattr(router, "close"):
                router.close()
        gateway.close()
