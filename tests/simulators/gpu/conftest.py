"""The engine `gpu` on a device that g++ compiles."""

import os
import shutil
from pathlib import Path

import pytest

from testbed.host_device import HostDevice, build_library


@pytest.fixture(scope="session")
def library() -> Path:
    """The kernels; a machine without g++ may leave these tests out, CI may not."""
    if shutil.which("g++") is None and "CI" not in os.environ:
        pytest.skip("g++ is not installed")
    return build_library()


@pytest.fixture
def device(library: Path) -> HostDevice:
    return HostDevice(library)
