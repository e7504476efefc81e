"""GPUs of a node, by NVML and by what an environment allows."""

from pathlib import Path

import pytest
from failing import fails
from nvidia_site import build_libraries, require_gcc

from launcher.allocation.this_node import NvmlError, granted, local_gpus, nvml_gpus
from launcher.base import Gpu, Node

FIRST = "GPU-1a2b3c4d-0000-1111-2222-333344445555"
NO_NVML = "libnvidia-ml-of-nobody.so.1"
SECOND = "GPU-99887766-0000-1111-2222-333344445555"
INFORMATION = """\
Model: \t\t NVIDIA H200
IRQ:   \t\t 120
GPU UUID: \t {}
Video BIOS: \t 96.00.bc.00.01
Device Minor: \t 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for bus, uuid in (("0000:8d:00.0", SECOND), ("0000:1b:00.0", FIRST)):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(INFORMATION.format(uuid))
    return tmp_path


def test_gpus_are_listed_by_uuid_in_order_of_bus_addresses(folder: Path) -> None:
    assert local_gpus({}, folder, NO_NVML) == (Gpu(FIRST), Gpu(SECOND))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", ()), ("-1", ()), ("0", (FIRST,)), ("1,0", (SECOND, FIRST)), ("1,7,0", (SECOND,)),
        ("0,0", (FIRST,)), ("GPU-9988", (SECOND,)), (f"{SECOND},{FIRST}", (SECOND, FIRST)),
        ("GPU-", ()), ("MIG-1a2b", ()),
    ],
)  # fmt: skip
def test_variable_restricts_gpus(folder: Path, visible: str, expected: tuple[str, ...]) -> None:
    result = local_gpus({"CUDA_VISIBLE_DEVICES": visible}, folder, NO_NVML)
    assert tuple(gpu.uuid for gpu in result) == expected
    assert granted([FIRST, SECOND], visible) == expected


def test_machine_without_kernel_module_has_no_gpus(tmp_path: Path) -> None:
    assert local_gpus({}, tmp_path / "absent", NO_NVML) == ()


def test_gpus_of_a_node_are_named_by_uuid_or_number() -> None:
    assert Node("a", 1, 1, 2).gpu_names == ("0", "1")
    assert Node("a", 1, 1, 2, gpu_details=(Gpu(FIRST), Gpu(SECOND))).gpu_names == (FIRST, SECOND)


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
    fails(NvmlError, "", nvml_gpus, "libnvidia-ml-of-nobody.so.1")
    monkeypatch.setenv("NVIDIA_FAILS", "nvmlInit_v2")
    fails(NvmlError, "nvmlInit_v2: status 999", nvml_gpus, library)
    assert local_gpus({}, tmp_path, library) == (Gpu(SECOND),)
