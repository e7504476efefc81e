"""Metrics of requests: each is counted once, by its route and its status."""

from typing import Any

import httpx
import pytest
from gateway_stand_in import served
from litestar import Litestar, get
from litestar.params import FromPath
from prometheus_client import REGISTRY

from simenv.errors import NotFoundError
from simenv.gateway.app import count_requests
from simenv.gateway.problems import EXCEPTION_HANDLERS

pytestmark = pytest.mark.filterwarnings("ignore:.*Inferred")  # of Litestar 3
PATH = "/counted/{name}"
PREFIX = "simenv_http_request"


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(PREFIX + name, {"method": "GET", "path": PATH, **labels})


def test_requests_are_counted_by_route_and_status() -> None:
    running: list[Any] = []

    @get("/counted/{name:str}")
    async def route(name: FromPath[str]) -> str:
        running.append(value("s_in_progress"))
        if name == "missing":
            raise NotFoundError("nothing here")
        if name == "broken":
            raise ValueError
        return name

    app = Litestar(
        [route], middleware=[count_requests], exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None, logging_config=None,
    )  # fmt: skip
    with served(app) as url:
        for name in ("a", "b", "missing", "broken"):
            httpx.get(f"{url}/counted/{name}")
        httpx.get(f"{url}/elsewhere")
    assert running == [1.0] * 4
    assert value("s_in_progress") == 0.0
    counts = {code: value("s_total", status_code=code) for code in ("200", "404", "500")}
    assert counts == {"200": 2.0, "404": 1.0, "500": 1.0}
    assert value("_duration_seconds_count", status_code="200") == 2.0
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples]
    assert not [each for each in samples if each.labels.get("path") == "/elsewhere"]
