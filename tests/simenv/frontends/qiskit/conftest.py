"""The backend of the shared environment."""

import pytest

from simenv.client.client import Client
from simenv.frontends.qiskit import SimenvBackend


@pytest.fixture(scope="module")
def ideal(env: Client) -> SimenvBackend:
    return SimenvBackend(env=env)
