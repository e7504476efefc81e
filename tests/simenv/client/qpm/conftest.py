"""An environment of one worker for each module, and a QPM of its own for each test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import held_up
from live import Live, environment

import simenv
from simenv.client.qpm.provider import QPM


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment(pools=[{"name": "main", "min": 1, "max": 1}], durability="process") as result:
        yield result


@pytest.fixture
def env(live: Live) -> Iterator[simenv.Client]:
    with live.client() as client:
        yield client


@pytest.fixture
def qpm(env: simenv.Client) -> QPM:
    """Nobody else's completions are in its queue."""
    return env.qpm


@pytest.fixture
def busy(live: Live) -> Iterator[None]:
    """The one worker is held up while this test runs: what is sent waits."""
    with held_up(live):
        yield
