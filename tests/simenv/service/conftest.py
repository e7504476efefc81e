"""No faults are left to the next test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simenv.service.support import fault_injection


@pytest.fixture(autouse=True)
def _no_faults() -> Iterator[None]:
    yield
    fault_injection.install("")
