"""Devices of one private environment, beside PennyLane's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import simenv
from simenv.client.client import Client

qml = pytest.importorskip("pennylane")

Device = Callable[..., Any]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with simenv.local(workers=1) as result:
        yield result


@pytest.fixture
def device(client: Client) -> Device:
    """Makes `qml.device("simenv")`, with seed 7 where none is given."""
    return lambda *args, **options: qml.device(
        "simenv", *args, **{"env": client, "seed": 7, **options}
    )
