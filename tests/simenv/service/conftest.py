"""A service with two owners and credits; no faults are left to the next test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from reservation_harness import ReservationHarness

from simenv.service import fault_injection


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    fault_injection.install("")


@pytest.fixture
def office(tmp_path: Path) -> ReservationHarness:
    return ReservationHarness(tmp_path)
