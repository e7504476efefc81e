"""The task streams of several pages: one request a user, filters and period."""

import asyncio
from typing import Any, cast

from simenv.gateway.context import Caller, Gateway
from simenv.gateway.page import views

FILTERS: dict[str, Any] = {"states": ()}


def test_pages_of_one_period_share_one_request() -> None:
    asked: list[object] = []

    class Asked:
        async def call(self, caller: object, question: object, filters: object) -> list[object]:
            asked.append((caller, filters))
            await asyncio.sleep(0)
            return [question]

    async def ask() -> None:
        streams = views.TaskStreams(cast(Gateway, Asked()))
        ana, ben = (Caller(name, "", "client", name) for name in ("ana", "ben"))
        pages = [(ana, FILTERS)] * 5 + [(ben, FILTERS), (ana, {**FILTERS, "pool": "a"})]
        await asyncio.gather(*(streams.of(*page) for page in pages))
        await streams.of(ana, FILTERS)

    asyncio.run(ask())
    assert len(asked) == 3
