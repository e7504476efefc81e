"""The native API of an environment, /api/v1: tasks, results, devices, events and accounts.

Layers: `routes` (here), `openapi`, `tasks` and `environment` and `events` (handlers),
`programs` and `results` (bodies), `schemas`.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get
from litestar.di import Provide

from simenv.gateway.context import Gateway
from simenv.gateway.limits import packed_response
from simenv.gateway.native import events, openapi
from simenv.gateway.native.programs import refuse_others
from simenv.gateway.native.tasks import TheCaller, TheGateway


@get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the description of this API."""
    body, packed = openapi.native_document(), openapi.packed_document()
    return packed_response(request, body, packed, "application/json")


_OF_PROGRAMS = ("/tasks", "/sweeps", "/explain")


async def check_query(request: Request[Any, Any, Any]) -> None:
    """Refuse a query with names that the route does not have: a misspelt filter lists too much.
    `read_request` checks those of programs. Raises OptionError."""
    path = request.scope["path_template"]
    is_program = request.method == "POST" and path.endswith(_OF_PROGRAMS)
    if is_program or not request.scope["query_string"]:
        return
    known = openapi.query_names(request.method, path)
    hint = f"there are: {', '.join(known) or 'none'}"
    refuse_others(request.query_params, known, "the query", hint)


class NativeRouter(Router):
    """The routes."""

    def __init__(self, gateway: Gateway) -> None:
        feeds = events.Feeds(events.EventFeed, gateway)

        def provide_gateway(caller: TheCaller) -> Gateway:  # noqa: ARG001
            return gateway

        def provide_feeds(gateway: TheGateway) -> events.Feeds[events.EventFeed]:  # noqa: ARG001
            return feeds

        super().__init__(
            openapi.PREFIX,
            route_handlers=[*openapi.HANDLERS, get_openapi],
            # In a chain: the framework starts tasks for those that do not depend on each other.
            dependencies={
                "gateway": Provide(provide_gateway, sync_to_thread=False),
                "feeds": Provide(provide_feeds, sync_to_thread=False),
            },
            before_request=check_query,
            request_max_body_size=gateway.settings.max_request_bytes,
        )


def routes(gateway: Gateway) -> list[NativeRouter]:
    """Return the router of the native API."""
    return [NativeRouter(gateway)]
