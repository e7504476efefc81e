"""The native API over the shared environment."""

from collections.abc import Iterator

import httpx
import pytest
from gateway_stand_in import GatewayStandIn, gateway_of

from simenv.client.client import Client
from simenv.gateway.native import routes


@pytest.fixture(scope="module")
def gateway(env: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStandIn]:
    folder = tmp_path_factory.mktemp("gateway")
    with gateway_of(env, folder, routes, max_request_bytes=20 * 2**20) as served:
        yield served


@pytest.fixture(scope="module")
def api(gateway: GatewayStandIn) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{gateway.url}/api/v1", timeout=60) as client:
        yield client
