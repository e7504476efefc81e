"""Let the tests of this folder import its helper modules; a scheduler with credits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from claimant import Claimant


@pytest.fixture
def host() -> Claimant:
    """A pool with 10 credits and two workers."""
    claimant = Claimant()
    claimant.policy("credit", total_credits=10)
    return claimant
