"""The same suite for every engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simulators import warm

# Where the environments under test keep their kernels, so that they are compiled once.
warm.prepare(Path(sys.prefix) / "var" / "simenv-kernels")


@pytest.fixture(params=["statevector", "statevector-dense", "fault"], scope="session")
def run(request: pytest.FixtureRequest) -> object:
    """One engine of each kind."""
    from engines import ENGINES, Runner  # after the kernels' place is known

    return Runner(ENGINES[request.param]())
