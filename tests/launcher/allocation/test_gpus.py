"""GPUs of this machine, as the kernel module lists them and CUDA_VISIBLE_DEVICES grants them."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.allocation.gpus import granted, local_gpus
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
        ("", ()),
        ("-1", ()),
        ("0", (FIRST,)),
        ("1,0", (SECOND, FIRST)),
        ("1,7,0", (SECOND,)),
        ("0,0", (FIRST,)),
        ("GPU-9988", (SECOND,)),
        (f"{SECOND},{FIRST}", (SECOND, FIRST)),
        ("GPU-", ()),
        ("MIG-1a2b", ()),
    ],
)
def test_variable_restricts_gpus_as_cuda_does(
    folder: Path, visible: str, expected: tuple[str, ...]
) -> None:
    result = local_gpus({"CUDA_VISIBLE_DEVICES": visible}, folder, NO_NVML)
    assert tuple(gpu.uuid for gpu in result) == expected
    assert granted([FIRST, SECOND], visible) == expected


def test_machine_without_kernel_module_has_no_gpus(tmp_path: Path) -> None:
    assert local_gpus({}, tmp_path / "absent", NO_NVML) == ()


def test_gpus_of_a_node_are_named_by_uuid_or_number() -> None:
    assert Node("a", 1, 1, 2).gpu_names == ("0", "1")
    assert Node("a", 1, 1, 2, gpu_details=(Gpu(FIRST), Gpu(SECOND))).gpu_names == (FIRST, SECOND)
