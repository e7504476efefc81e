"""A service, and one with two owners and credits; no faults are left to the next test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_journal import new_place
from reservation_harness import ReservationHarness
from service import ServiceHarness

from simenv.service import fault_injection


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    fault_injection.install("")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of a module that names JOURNALS run with each of these."""
    journals = getattr(metafunc.module, "JOURNALS", ())
    if journals and "bench" in metafunc.fixturenames:
        metafunc.parametrize("bench", journals, indirect=True)


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ServiceHarness]:
    """With a module's OPTIONS, if it names some."""
    options = getattr(request.module, "OPTIONS", {})
    if getattr(request, "param", "sqlite") == "sqlite":
        yield ServiceHarness(tmp_path, **options)
        return
    with new_place() as place:
        yield ServiceHarness(tmp_path, place=place, **options)


@pytest.fixture
def ready(bench: ServiceHarness) -> ServiceHarness:
    """With a worker that has joined."""
    bench.join()
    return bench


@pytest.fixture
def office(tmp_path: Path) -> ReservationHarness:
    return ReservationHarness(tmp_path)
