"""A service, and one with two owners and credits; no faults are left to the next test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from reservation_harness import ReservationHarness
from service import ServiceHarness

from simenv.service import fault_injection


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    fault_injection.install("")


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> ServiceHarness:
    """With a module's OPTIONS, if it names some."""
    return ServiceHarness(tmp_path, **getattr(request.module, "OPTIONS", {}))


@pytest.fixture
def ready(bench: ServiceHarness) -> ServiceHarness:
    """With a worker that has joined."""
    bench.join()
    return bench


@pytest.fixture
def office(tmp_path: Path) -> ReservationHarness:
    return ReservationHarness(tmp_path)
