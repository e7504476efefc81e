"""Detection of GPUs: each reason why none can be used, and the way out."""

from __future__ import annotations

import ctypes
from typing import Any

import msgspec
import pytest

from simulators import registry
from simulators.errors import UnknownEngine
from simulators.gpu.devices import detect
from simulators.gpu.devices.detect import GpuEvidence, find_gpu, refusal

USABLE = GpuEvidence(True, "580.159", 13000, 1, None, ("cupy-cuda13x",))


def changed(**fields: object) -> GpuEvidence:
    return msgspec.structs.replace(USABLE, **fields)


def test_gpu_with_driver_and_matching_cupy_is_accepted() -> None:
    assert refusal(USABLE) is None
    assert refusal(changed(wheels=("cupy-cuda12x",))) is None
    assert refusal(changed(wheels=("cupy-cuda12x",), cuda_version=12000)) is None


@pytest.mark.parametrize(
    ("evidence", "message", "way_out"),
    [
        (GpuEvidence(), "no GPU: libcuda.so.1 is not here", "srun --gpus=1"),
        (
            changed(devices=0, visible=""),
            "no GPU granted: driver 580.159 is here, but CUDA_VISIBLE_DEVICES is ''",
            "--gpus-per-node=1",
        ),
        (
            changed(devices=0),
            "driver 580.159 is here, but it shows no device",
            "--gpus-per-node=1",
        ),
        (
            changed(release="535.104", cuda_version=12020),
            r"driver 535.104 has CUDA 12.2; simenv\[gpu-cu13\] needs driver 580 or newer",
            "pip install 'simenv[gpu-cu12]', or update the driver",
        ),
        (
            changed(wheels=()),
            r"cupy is not installed \(driver 580.159 found\)",
            "pip install 'simenv[gpu-cu13]'",
        ),
        (
            changed(wheels=(), cuda_version=12040),
            "cupy is not installed",
            "pip install 'simenv[gpu-cu12]'",
        ),
        (
            changed(wheels=("cupy-cuda12x", "cupy-cuda13x")),
            "cupy-cuda12x and cupy-cuda13x are both installed",
            "pip uninstall cupy-cuda12x",
        ),
    ],
)
def test_unusable_gpu_is_refused_with_reason_and_way_out(
    monkeypatch: pytest.MonkeyPatch, evidence: GpuEvidence, message: str, way_out: str
) -> None:
    monkeypatch.setattr(detect, "find_gpu", lambda: evidence)
    with pytest.raises(UnknownEngine, match=message) as caught:
        registry.create("gpu")
    assert way_out in caught.value.hint


class _Driver:
    """Functions of libcuda.so.1 of a machine with GPUs."""

    def __init__(self, version: int, devices: int, init: int = 0) -> None:
        self._version, self._devices, self._init = version, devices, init

    def cuDriverGetVersion(self, into: Any) -> int:  # noqa: N802  # CUDA's name
        into._obj.value = self._version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802  # CUDA's name
        return self._init

    def cuDeviceGetCount(self, into: Any) -> int:  # noqa: N802  # CUDA's name
        into._obj.value = self._devices
        return 0


def test_driver_is_asked_for_its_version_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a2b")
    opened = []

    def load(name: str) -> Any:
        opened.append(name)
        return _Driver(13000, 2)

    result = find_gpu(load)
    assert opened == ["libcuda.so.1"]
    assert (result.has_driver, result.cuda_version, result.devices) == (True, 13000, 2)
    assert result.visible == "GPU-1a2b"
    without = find_gpu(lambda _name: _Driver(13000, 2, init=100))  # CUDA_ERROR_NO_DEVICE
    assert without.has_driver
    assert without.devices == 0


def test_machine_without_driver_has_no_gpu() -> None:
    def load(name: str) -> Any:
        raise OSError(name)

    assert not find_gpu(load).has_driver
    try:
        ctypes.CDLL(detect.DRIVER_LIBRARY)
    except OSError:
        with pytest.raises(UnknownEngine, match="no NVIDIA driver"):
            registry.create("gpu")
