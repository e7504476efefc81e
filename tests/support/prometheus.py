"""Debian's Prometheus: its programs, brought once into a folder of their own, on nobody's PATH.

Where it cannot be had, the test skips and says why, but not in CI.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest
from packages import bring

FOLDER = Path(sys.prefix) / "var" / "simenv-prometheus"


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    found = shutil.which(name)
    if found is not None:
        return found
    why = bring("unpacked.sh", FOLDER, "prometheus")
    if why and os.environ.get("CI") == "true":
        pytest.fail(why)
    if why:
        pytest.skip(why)
    return str(FOLDER / "usr" / "bin" / name)
