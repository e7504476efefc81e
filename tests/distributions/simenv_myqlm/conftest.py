"""The distribution simenv-myqlm, which is not installed, and an environment with a gateway."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from live import Live, environment, trusted_gateway

DISTRIBUTION = Path(__file__).parents[3] / "distributions" / "simenv-myqlm"
sys.path.insert(0, str(DISTRIBUTION))
if TYPE_CHECKING:
    from simenv_myqlm import GatewayConnection

POOLS = [{"name": "main", "min": 1, "max": 1}, {"name": "fez", "min": 1, "max": 1, "device": "fez"}]


@pytest.fixture(scope="module")
def up() -> Iterator[Live]:
    with environment(gateway={"listen": "127.0.0.1:0"}, pools=POOLS) as live:
        yield live


@pytest.fixture(scope="module")
def connection(up: Live) -> "Iterator[GatewayConnection]":
    from simenv_myqlm import GatewayConnection

    with (
        trusted_gateway(up) as gateway,
        up.client() as client,
        closing(GatewayConnection(gateway.url, client.tokens.add("ana").secret)) as made,
    ):
        yield made
