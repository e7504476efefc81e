"""Routes of the metrics, of the stored series, and of health probes.

Invariants: the service is asked for its health at most once in READY_S, however many probes there
are, and a probe learns nothing but that. `/metrics` is read by a token with the role monitor or
admin, or without one over a connection of this host that no proxy forwards. It names pools, nodes,
devices and accounts; never tasks or users.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
from time import monotonic
from typing import Annotated, Any

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter, SkipValidation
from litestar.types import ControllerRouterHandler
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from simenv.client.client import Client
from simenv.errors import NotAllowedError, SimenvError
from simenv.gateway.context import Caller, Gateway
from simenv.gateway.limits import packed_response
from simenv.gateway.metrics.collector import CACHE_S, ClassicCollector, SimenvCollector
from simenv.gateway.problems import EXCEPTION_HANDLERS
from simenv.wire.messages.base import MAX_TIME_S, Role

READY_S = 1.0  # for which an answer about the service is used again
ANSWER_S = 5.0  # in which the service has to answer
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


Moment = Annotated[float, QueryParameter(ge=0.0, le=MAX_TIME_S)]


class SeriesColumns(msgspec.Struct, frozen=True):
    """A stored series in columns: the begin of each step in seconds since 1970, with mean, least
    and largest sample. `names`: all series, if none was named."""

    name: str
    unit: str
    at_s: list[float]
    mean: list[float]
    least: list[float]
    most: list[float]
    names: list[str]


def routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the routes `/metrics` and `/api/v1/series`."""

    @get("/api/v1/series", operation_id="series", tags=["series"])
    async def series(
        caller: NamedDependency[SkipValidation[Caller]],
        name: FromQuery[str] = "",
        since: Moment = 0.0,
        until: Moment = 0.0,
        step: Moment = 0.0,
    ) -> SeriesColumns:
        """Return a stored series, such as `queue`; without `name` the names of all. Times in
        seconds since 1970, 0: no bound; `step` in seconds, 0: chosen by the service."""
        return await gateway.call(caller, _series, name, since, until, step)

    return [_metrics(gateway), series, *_health(gateway)]


def application(gateway: Gateway) -> Litestar:
    """Return an application with `/metrics` and health probes alone, for an environment without a
    gateway."""
    return Litestar(
        [_metrics(gateway), *_health(gateway)],
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None,
        debug=False,
        logging_config=None,
    )


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of a health probe."""

    status: str  # ok, or unavailable
    reason: str = ""


def _health(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the routes of the probes of Kubernetes, systemd and load balancers."""
    asking = asyncio.Lock()
    known: list[tuple[float, str]] = []  # time and reason of the last answer

    @get("/health/live", include_in_schema=False)
    async def live() -> Health:
        """Return that this process answers: it need not be started again."""
        return Health("ok")

    @get("/health/ready", include_in_schema=False)
    async def ready() -> Response[Health]:
        """Return whether tasks can be submitted and run; 503 if not."""
        async with asking:
            if not known or monotonic() - known[0][0] > READY_S:
                reason = await asyncio.to_thread(_unready_reason, gateway)
                known[:] = [(monotonic(), reason)]
        reason = known[0][1]
        if reason:
            return Response(Health("unavailable", reason), status_code=503)
        return Response(Health("ok"))

    return [live, ready]


def _unready_reason(gateway: Gateway) -> str:
    """Return why no task can run; "" if tasks can. Blocks for ANSWER_S at most."""
    try:
        pools = gateway.observer().pools(timeout_s=ANSWER_S).values()
    except SimenvError:
        return "the service does not answer"
    if any(pool.workers or not pool.target for pool in pools):
        return ""
    return "no pool has a worker"


def _metrics(gateway: Gateway) -> ControllerRouterHandler:
    registry = CollectorRegistry()
    registry.register(SimenvCollector(gateway.observer().metrics))
    registry.register(REGISTRY)  # this process, and its requests
    classic = ClassicCollector(registry)
    # By media type: the text and the same by gzip, for CACHE_S, whoever asks.
    written: dict[str, tuple[float, bytes, bytes]] = {}
    writing = asyncio.Lock()

    @get("/metrics", include_in_schema=False)
    async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        if not _is_local(request) or gateway.settings.proxies:
            caller = await gateway.caller(request, for_metrics=True)
            if caller.role == Role.CLIENT:
                text = f"the role {caller.role} may not read the metrics of all accounts"
                raise NotAllowedError(text, hint="a token with the role monitor")
        encode, media_type = choose_encoder(request.headers.get("accept", ""))
        source: Collector = registry
        if media_type.startswith("text/"):
            source = classic  # its encoder would write native histograms as series that are 0
            media_type = media_type.removesuffix("; charset=utf-8")  # which the framework adds

        def write() -> tuple[float, bytes, bytes]:
            body = encode(source)
            return monotonic(), body, gzip.compress(body, 1, mtime=0)

        async with writing:
            made_s, body, packed = written.get(media_type, (-CACHE_S, b"", b""))
            if monotonic() - made_s >= CACHE_S:
                written[media_type] = await asyncio.to_thread(write)
                _, body, packed = written[media_type]
        return packed_response(request, body, packed, media_type)

    return metrics


def _is_local(request: Request[Any, Any, Any]) -> bool:
    """Return whether a program of this host asks, and no page of another site that a browser here
    shows: its requests have the other site's name in Host."""
    if any(name in request.headers for name in _FORWARDED):
        return False
    hosts = ("" if request.client is None else request.client.host, request.base_url.hostname or "")
    return all(map(_is_loopback, hosts))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _series(client: Client, name: str, since: float, until: float, step: float) -> SeriesColumns:
    if not name:
        return SeriesColumns("", "", [], [], [], [], client.history.series_names())
    found = client.history.series(name, since, until, step)
    return SeriesColumns(
        found.name, found.unit, found.at_s, found.mean, found.least, found.most, []
    )
