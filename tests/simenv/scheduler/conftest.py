"""Let the tests of this folder import its helper modules; schedulers that most of them use."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checked_scheduler import CheckedScheduler
from claimant import Claimant


@pytest.fixture
def machine() -> CheckedScheduler:
    """A pool of one worker."""
    return CheckedScheduler(workers=1)


@pytest.fixture
def pair() -> CheckedScheduler:
    """A pool of two workers."""
    return CheckedScheduler()


@pytest.fixture
def host() -> Claimant:
    """A pool with 10 credits and two workers."""
    claimant = Claimant()
    claimant.policy("credit", total_credits=10)
    return claimant


@pytest.fixture
def number(host: Claimant) -> int:
    """Of a reservation for six credits."""
    return host.reserve(6).reservation
