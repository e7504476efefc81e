"""Requests that are malformed, large or early are answered in the form of the vendor's API."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest
from gateway_stand_in import app_of
from litestar.testing import TestClient

from simenv.config import GatewaySettings
from simenv.gateway.context import AccessToken
from simenv.gateway.ibm import endpoints
from simenv.gateway.ibm.service import ComputeService
from simenv.gateway.ibm.store import Job, SessionRecord
from simenv.gateway.iqm import endpoints as iqm

pytestmark = pytest.mark.filterwarnings("ignore:.*Inferred")  # of Litestar 3
PREFIX = endpoints.PREFIX


class NoEnvironment:
    """A gateway without an environment, for requests that do not reach one."""

    environment, url, settings = "none", "", GatewaySettings()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def call(self, _caller: object, function: Any) -> Any:
        return await asyncio.to_thread(function, self)

    async def access_token(self, api_key: str) -> AccessToken:
        return AccessToken(api_key, 0, 1)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ComputeService]:
    made = ComputeService(NoEnvironment(tmp_path))  # type: ignore[arg-type]
    yield made
    made.store.close()


@pytest.fixture
def client(service: ComputeService) -> Iterator[TestClient[Any]]:
    routes = [*endpoints.routes(service.gateway, service), *iqm.routes(service)]
    with TestClient(app_of(routes)) as made:
        made.headers["Authorization"] = "Bearer ana"
        yield made


def add(service: ComputeService, **fields: Any) -> None:
    service.store.add(Job("a", "ana", "", "sampler", "main", time(), **fields), b"{}")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"tags": "\xff"}'])
def test_a_body_that_is_no_object_is_refused(
    client: TestClient[Any], service: ComputeService, body: bytes
) -> None:
    add(service)
    service.store.put_session(SessionRecord("s", "ana", "", "main", "batch", time(), 60))
    tags = client.put(f"{PREFIX}/jobs/a/tags", content=body)
    session = client.patch(f"{PREFIX}/sessions/s", content=body)
    for answer in (tags, session):
        assert answer.status_code == 400
        assert "no JSON object" in answer.json()["error"]["message"]


def test_a_digit_that_is_no_number_is_refused(client: TestClient[Any]) -> None:
    answer = client.get(f"{iqm.PREFIX}/jobs/a", params={"timeout_seconds": "\u00b2"})
    assert answer.status_code == 400


def test_the_tags_of_a_listing_are_bounded(
    client: TestClient[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ComputeService, "arrived", lambda *_: None)
    for count, status in ((100, 200), (1_001, 400)):
        answer = client.get(f"{PREFIX}/jobs", params={"tags": ["x"] * count})
        assert answer.status_code == status


def test_the_cursor_of_the_workloads_leads_through_all_of_them(
    client: TestClient[Any], service: ComputeService
) -> None:
    for number in range(5):
        service.store.add(Job(str(number), "ana", "", "sampler", "main", float(number)), b"{}")
    seen, cursor = [], {}
    while len(seen) < 5:
        page = client.get(f"{PREFIX}/workloads", params={"limit": 2, **cursor}).json()
        assert page["total_count"] == 5
        seen.append([each["id"] for each in page["workloads"]])
        if "next" not in page:
            break
        cursor = {"next": page["next"]}
    assert seen == [["4", "3"], ["2", "1"], ["0"]]
    page = client.get(f"{PREFIX}/workloads", params={"limit": 2, "previous": page["previous"]})
    assert [each["id"] for each in page.json()["workloads"]] == ["2", "1"]
    answer = client.get(f"{PREFIX}/workloads", params={"next": "x"})
    assert answer.status_code == 400
