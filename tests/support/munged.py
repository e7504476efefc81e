"""A munged of a test's own, see `testbed.munged`; brings its package."""

import os

import pytest
from packages import bring

from testbed.munged import munged, program

__all__ = ["munged", "skip_without_munge"]


def skip_without_munge() -> None:
    """CI must not skip this."""
    if program() is None:
        why = bring("system_packages.sh", "munge")
        if why and os.environ.get("CI") == "true":
            pytest.fail(why)
        if why:
            pytest.skip(why)
