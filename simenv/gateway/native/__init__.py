"""The native API of an environment, /api/v1: tasks, results, devices, events and accounts.

Layers: `routes` (here), `openapi`, `tasks` and `environment` and `events` (handlers),
`programs` and `results` (bodies), `schemas`.
"""

from __future__ import annotations

from litestar import Response, Router, get
from litestar.di import Provide

from simenv.gateway.context import Gateway
from simenv.gateway.native import events, openapi
from simenv.gateway.native.programs import ProgramParsers
from simenv.gateway.native.tasks import TheCaller, TheGateway


@get("/openapi.json", include_in_schema=False)
async def get_openapi() -> Response[bytes]:
    """Return the description of this API."""
    return Response(openapi.native_document(), media_type="application/json")


class NativeRouter(Router):
    """The routes, and the processes that parse programs for them."""

    def __init__(self, gateway: Gateway) -> None:
        parsers = ProgramParsers(gateway.settings.max_processes)
        feeds = events.Feeds(events.EventFeed, gateway)

        def provide_gateway(caller: TheCaller) -> Gateway:  # noqa: ARG001
            return gateway

        def provide_parsers(gateway: TheGateway) -> ProgramParsers:  # noqa: ARG001
            return parsers

        def provide_feeds(gateway: TheGateway) -> events.Feeds[events.EventFeed]:  # noqa: ARG001
            return feeds

        super().__init__(
            openapi.PREFIX,
            route_handlers=[*openapi.HANDLERS, get_openapi],
            # In a chain: the framework starts tasks for those that do not depend on each other.
            dependencies={
                "gateway": Provide(provide_gateway, sync_to_thread=False),
                "parsers": Provide(provide_parsers, sync_to_thread=False),
                "feeds": Provide(provide_feeds, sync_to_thread=False),
            },
            request_max_body_size=gateway.settings.max_request_bytes,
        )
        # A function, since Litestar copies routers. The processes also end with this one.
        self.close = lambda: parsers.close()


def routes(gateway: Gateway) -> list[NativeRouter]:
    """Return the router of the native API."""
    return [NativeRouter(gateway)]
