"""Devices of the shared environment, beside PennyLane's own."""

from collections.abc import Callable
from typing import Any

import pytest

from simenv.client.client import Client

qml = pytest.importorskip("pennylane")

Device = Callable[..., Any]


@pytest.fixture(scope="module")
def client(env: Client) -> Client:
    return env


@pytest.fixture
def device(client: Client) -> Device:
    """Makes `qml.device("simenv")`, with seed 7 where none is given."""
    return lambda *args, **more: qml.device("simenv", *args, **{"env": client, "seed": 7, **more})
