"""Compilation for GPUs without a GPU: skipped where NVRTC's wheel is not installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulators.errors import UnknownEngine
from simulators.gpu.devices import compile as compiler
from simulators.gpu.devices.compile import (
    MODULES,
    CompiledModule,
    KernelUsage,
    Nvrtc,
    cached_cubin,
    kernel_source,
    load_nvrtc,
    module_of,
    source_digest,
    usage,
)

LOG = """\
ptxas info    : Compiling entry function 'sweep_double' for 'sm_90'
ptxas info    : Function properties for sweep_double
    32 bytes stack frame, 20 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 408 bytes cmem[0]
"""


class FakeCompiler(Nvrtc):
    def __init__(self) -> None:
        self.version = (13, 0)
        self.compiled: list[tuple[str, tuple[int, int]]] = []

    def compile(self, module: str, capability: tuple[int, int]) -> CompiledModule:
        self.compiled.append((module, capability))
        return CompiledModule(b"\x7fELF" + module.encode(), "")


def test_source_has_every_file_once_and_no_include() -> None:
    text = kernel_source()
    assert not re.search(r'#include "\w+\.cuh"', text)
    for path in compiler.KERNELS.glob("*.cuh"):
        body = path.read_text().splitlines()[-1]
        assert text.count(path.read_text().split("\n", 1)[0]) == 1, path.name
        assert body in text


def test_every_kernel_is_in_the_module_that_is_loaded_for_it() -> None:
    text = (compiler.KERNELS / "kernels.cuh").read_text()
    names = re.findall(r"KERNEL\((\w+?)(?:_##suffix)?,", text)
    assert {"sweep", "small_counts", "locate"} <= set(names)
    assert module_of("sweep_double") == "sweep_double"
    assert module_of("locate_single") == "states_single"
    assert module_of("small_counts") == module_of("locate_double") == "states_double"
    for name, number in MODULES.items():
        assert f"#define MODULE_{name.upper()} {number}\n" in text


def test_resources_are_read_from_the_compilers_log() -> None:
    assert usage(LOG) == (KernelUsage("sweep_double", 128, 32, 20),)


def test_cubin_is_compiled_once_for_each_capability(tmp_path: Path) -> None:
    nvrtc = FakeCompiler()
    first = cached_cubin(tmp_path, "sweep_double", (9, 0), nvrtc)
    assert first.parent.name == f"gpu-{source_digest()}-sm90"
    assert cached_cubin(tmp_path, "sweep_double", (9, 0), nvrtc) == first
    cached_cubin(tmp_path, "sweep_double", (8, 0), nvrtc)
    assert nvrtc.compiled == [("sweep_double", (9, 0)), ("sweep_double", (8, 0))]
    assert cached_cubin(tmp_path, "sweep_double", (9, 0), None).read_bytes().startswith(b"\x7fELF")


def test_missing_compiler_is_named_where_nothing_has_been_compiled(tmp_path: Path) -> None:
    with pytest.raises(UnknownEngine, match="NVRTC is not installed") as caught:
        cached_cubin(tmp_path, "sweep_double", (9, 0), None)
    assert "gpu-cu13" in caught.value.hint


def test_kernels_of_small_states_are_compiled_to_machine_code_without_spills() -> None:
    nvrtc = load_nvrtc()
    if nvrtc is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed; scripts/check_kernels.py needs it, too")
    found = nvrtc.compile("states_double", (9, 0))
    assert found.cubin[:4] == b"\x7fELF", "PTX is refused by older drivers"
    kernels = usage(found.log)
    assert "small_counts" in {each.name for each in kernels}
    assert all(each.spilled_bytes == 0 for each in kernels)
