"""Each parameter of each query and path, with values that no client of ours sends: a typed refusal
or an answer, never a failure of the gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from gateway_stand_in import GatewayStandIn, gateway_of

from simenv.client.client import Client
from simenv.gateway.__main__ import all_routes
from simenv.gateway.native import openapi

VALUES = [
    *("nan", "-nan", "inf", "-inf", "-1", "-0.0", "0", "1e20", "1e400", "1e-320"),
    *(str(2**31), str(2**53 + 1), str(2**63 - 1), str(2**63), str(2**64), "9" * 5_000),
    *("", " ", "\x00", "\x1b[2J", "\n", "\ud800", "t-1", "é" * 300, "x" * 3_000, "%", "[]", "{}"),
    *("0001-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31", "true"),
]  # fmt: skip
# Names that handlers read from the query itself, or of routes outside the description of the API;
# the description tells those of the native routes.
_IBM, _PASQAL = "/experimental/api/v1", "/pasqal/core-fast/api"
_JOBS = (
    *("limit", "offset", "created_after", "created_before", "sort", "pending", "tags", "backend"),
    *("program", "session_id", "next", "previous"),
)  # fmt: skip
_TASKS = ("state", "owner", "pool", "run_name", "since_s", "until_s")
_PAGE = ("offset", "limit", "order_by", "order_by_direction", "status", "id", "start_date")
NAMES: dict[str, tuple[str, ...]] = {
    "/api/v1/series": ("name", "since", "until", "step"),
    "/api/v1/events/range": ("since_s", "until_s", "kind", "limit"),
    "/api/v1/stream": _TASKS,
    "/api/v1/tasks/{task:str}/operations": ("limit", "first"),
    f"{_IBM}/jobs": _JOBS,
    f"{_IBM}/workloads": _JOBS,
    f"{_IBM}/tags": ("search",),
    f"{_IBM}/jobs/{{number:str}}": ("exclude_params",),
    f"{_IBM}/backends/{{name:str}}/configuration": ("calibration_id",),
    f"{_IBM}/backends/{{name:str}}/properties": ("calibration_id", "updated_before"),
    "/api/v1/jobs/{number:str}": ("timeout_seconds", "wait_until_terminal"),
    f"{_PASQAL}/v1/batches": _PAGE,
    f"{_PASQAL}/v2/jobs": _PAGE,
    f"{_PASQAL}/v1/devices": ("device_type",),
    "/pasqal/account/api/v1/projects": _PAGE,
}
PLACES = {"name": "fez", "task": "t-1", "task_id": "t-1", "device": "fez"}
ENDLESS = "/api/v1/events/stream"  # an answer that goes on until the caller leaves


@pytest.fixture(scope="module")
def gateway(env: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStandIn]:
    with gateway_of(env, tmp_path_factory.mktemp("gateway"), all_routes) as served:
        yield served


def names_of(path: str) -> tuple[str, ...]:
    """Return the names of a route's query."""
    described = re.sub(r":\w+", "", path).removeprefix("/api/v1")
    native = openapi.query_names("GET", f"{openapi.PREFIX}{described}")
    return (*native, *NAMES.get(path, ()))


def paths_of(gateway: GatewayStandIn) -> list[str]:
    """Return the paths of all routes that are read, with their parameters in braces."""
    return sorted({path for path, methods in gateway.paths if "GET" in methods})


def filled(path: str, name: str = "", value: str = "") -> str:
    """Return a path whose parameters have usual values, but that of this name."""

    def value_of(match: re.Match[str]) -> str:
        found = match[1].partition(":")[0]
        return (
            quote(value, safe="", errors="surrogatepass")
            if found == name
            else PLACES.get(found, "1")
        )

    return re.sub(r"\{([^}]+)\}", value_of, path)


def test_no_value_of_a_parameter_makes_the_gateway_fail(gateway: GatewayStandIn) -> None:
    failed, asked = list[tuple[str, int, str]](), 0
    paths = paths_of(gateway)
    assert len(paths) > 40, paths
    with httpx.Client(base_url=gateway.url, timeout=60.0) as client:
        for path in paths:
            if path == ENDLESS:
                continue
            requests = [
                filled(path) + f"?{name}={quote(value, safe='', errors='surrogatepass')}"
                for name in names_of(path)
                for value in VALUES
            ]
            for name in re.findall(r"\{([^}:]+)", path):
                requests += [filled(path, name, value) for value in VALUES if value]
            for request in requests:
                answer = client.get(request)
                asked += 1
                if answer.status_code >= 500:
                    failed.append((request[:200], answer.status_code, answer.text[:200]))
    assert asked > 2_000
    assert not failed, failed[:20]


@pytest.mark.parametrize(
    ("request_path", "field", "limit"),
    [
        ("/api/v1/series?name=queue&step=nan", "step", ""),
        ("/api/v1/series?name=queue&step=-1", "step", "0"),
        ("/api/v1/series?name=queue&step=1e20", "step", "100000000000"),
    ],
)
def test_refusal_names_the_field_and_the_limit(
    gateway: GatewayStandIn, request_path: str, field: str, limit: str
) -> None:
    answer = httpx.get(gateway.url + request_path, timeout=60.0)
    assert answer.status_code in (400, 422)
    assert field in answer.json()["detail"]
    assert limit in answer.json()["detail"]
