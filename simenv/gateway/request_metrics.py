"""Metrics of HTTP requests: those of routes, by method, path of the route and status.

Invariant: their number is bounded, since a path is that of a route, without values.
"""

from __future__ import annotations

from functools import cache
from time import perf_counter
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import Counter, Gauge, Histogram

_ROUTE = ("method", "path")
REQUESTS = Counter("simenv_http_requests", "Requests", (*_ROUTE, "status_code"))  # ..._total
DURATIONS = Histogram(
    "simenv_http_request_duration_seconds", "Request duration", (*_ROUTE, "status_code")
)
RUNNING = Gauge("simenv_http_requests_in_progress", "Requests under way", _ROUTE)

# Of each route: to find them by their labels would cost more than all the rest.
_running = cache(RUNNING.labels)


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
