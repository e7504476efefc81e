"""The same suite for every engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simulators.compiler import warmup

# Where the environments under test keep their kernels, so that they are compiled once.
warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")


FAMILIES = ("statevector", "statevector-dense", "fault", "aer", "mps", "stabilizer")


def _runner(name: str) -> object:
    from engines import Runner, present  # after the kernels' place is known

    if not present(name):
        pytest.skip(f"what engine {name!r} needs is not installed")
    return Runner(name)


def _fixture(names: tuple[str, ...]) -> object:
    @pytest.fixture(params=names, scope="session")
    def runner(request: pytest.FixtureRequest) -> object:
        return _runner(request.param)

    return runner


any_run = _fixture((*FAMILIES, "hardware"))  # all, and a machine: its counts are its own
every_run = _fixture(FAMILIES)  # all simulators
run = _fixture(FAMILIES[:3])  # those that branch
dense_run = _fixture(FAMILIES[:4])  # those that hold all amplitudes
state_run = _fixture(FAMILIES[:5])  # those that run any gates
drawn_run = _fixture(FAMILIES[:5])  # those whose counts of static circuits are the contract's


@pytest.fixture(scope="session")
def runner_of() -> object:
    """An engine by its name; the test is skipped where what it needs is missing."""
    made: dict[str, object] = {}

    def of(name: str) -> object:
        if name not in made:
            made[name] = _runner(name)
        return made[name]

    return of
