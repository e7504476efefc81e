"""GPUs by NVML's C interface: a library that gcc compiles stands in for NVIDIA's."""

from __future__ import annotations

from pathlib import Path

import pytest
from nvidia_site import build_libraries, require_gcc

from launcher.allocation.gpus import local_gpus
from launcher.allocation.nvml import NvmlError, nvml_gpus
from launcher.base import Gpu

FIRST = "GPU-1a2b3c4d-0000-1111-2222-333344445555"
SECOND = "GPU-99887766-0000-1111-2222-333344445555"
H200 = Gpu(FIRST, "NVIDIA H200", 143771 * 2**20, (9, 0), 2 * 3201e6 * 6144 / 8)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    require_gcc()
    monkeypatch.setenv(
        "NVIDIA_GPUS", f"{FIRST},NVIDIA H200,143771,90;{SECOND},NVIDIA A100,40960,80"
    )
    return str(build_libraries(tmp_path)["libnvidia-ml.so.1"])


def test_gpus_are_listed_with_memory_capability_and_bandwidth(library: str) -> None:
    first, second = nvml_gpus(library)
    assert first == H200
    assert (second.uuid, second.model, second.capability) == (SECOND, "NVIDIA A100", (8, 0))
    assert second.memory_bytes == 40960 * 2**20


def test_variable_restricts_what_nvml_lists(library: str, tmp_path: Path) -> None:
    for visible, uuids in (("", []), ("1", [SECOND]), (f"{SECOND},{FIRST}", [SECOND, FIRST])):
        result = local_gpus({"CUDA_VISIBLE_DEVICES": visible}, tmp_path, library)
        assert [gpu.uuid for gpu in result] == uuids
    assert local_gpus({}, tmp_path, library)[0] == H200


def test_partitioned_gpu_is_listed_by_its_instances(
    library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(
        "NVIDIA_GPUS", f"{FIRST},NVIDIA H200,143771,90,71885,35942;{SECOND},NVIDIA A100,40960,80"
    )
    one, two, result = nvml_gpus(library)
    assert [one.uuid, two.uuid, result.uuid] == ["MIG-01", "MIG-02", SECOND]
    assert [one.memory_bytes, two.memory_bytes] == [71885 * 2**20, 35942 * 2**20]
    assert one.bandwidth == pytest.approx(H200.bandwidth / 2, rel=1e-3)
    (value,) = local_gpus({"CUDA_VISIBLE_DEVICES": "MIG-02"}, tmp_path, library)
    assert value == two


@pytest.mark.parametrize(
    ("function", "changed"),
    [("nvmlDeviceGetMemoryInfo", "memory_bytes"), ("nvmlDeviceGetMemoryBusWidth", "bandwidth")],
)
def test_figure_that_nvml_does_not_tell_is_zero(
    library: str, monkeypatch: pytest.MonkeyPatch, function: str, changed: str
) -> None:
    monkeypatch.setenv("NVIDIA_FAILS", function)
    first, _ = nvml_gpus(library)
    assert getattr(first, changed) == 0
    assert (first.uuid, first.capability) == (FIRST, (9, 0))


def test_nvml_that_fails_or_is_missing_leaves_the_list_of_the_kernel_module(
    library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "0000:1b:00.0").mkdir()
    (tmp_path / "0000:1b:00.0" / "information").write_text(f"GPU UUID: \t {SECOND}\n")
    with pytest.raises(NvmlError):
        nvml_gpus("libnvidia-ml-of-nobody.so.1")
    monkeypatch.setenv("NVIDIA_FAILS", "nvmlInit_v2")
    with pytest.raises(NvmlError, match="nvmlInit_v2: status 999"):
        nvml_gpus(library)
    assert local_gpus({}, tmp_path, library) == (Gpu(SECOND),)
