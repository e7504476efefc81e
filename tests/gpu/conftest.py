"""Tests that need a GPU; without one they are skipped, with the reason."""

import sys
from pathlib import Path

import pytest

from simulators.compiler import warmup
from simulators.gpu.devices.detect import find_gpu, refusal
from simulators.gpu.devices.device import Device

warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")


@pytest.fixture(scope="session")
def device() -> Device:
    """The first GPU."""
    reason = refusal(find_gpu())
    if reason is not None:
        pytest.skip(reason[0])
    from simulators.gpu.devices.cupy_device import CupyDevice

    return CupyDevice()
