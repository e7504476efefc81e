"""Compilation for GPUs without a GPU; NVRTC's wheel is in the extra `test`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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

ROOT = Path(__file__).parents[3]
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


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0)])
def test_kernels_of_states_are_compiled_to_machine_code_without_spills(
    capability: tuple[int, int],
) -> None:
    result = nvrtc().compile("states_double", capability)
    assert result.cubin[:4] == b"\x7fELF", "PTX is refused by older drivers"
    kernels = usage(result.log)
    assert "small_counts" in {each.name for each in kernels}
    assert all(each.spilled_bytes == 0 for each in kernels)


@pytest.mark.slow  # the sweeps take a minute for each capability
def test_all_kernels_are_within_their_budgets_of_registers_stack_and_spills() -> None:
    nvrtc()
    command = [sys.executable, str(ROOT / "scripts" / "check_kernels.py")]
    process = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    for architecture in ("sm_80", "sm_90", "sm_100"):
        assert all(f"{architecture} {module}:" in process.stdout for module in MODULES)


def nvrtc() -> Nvrtc:
    """The compiler; a machine without it may leave these tests out, CI may not."""
    outcome = load_nvrtc()
    if outcome is None:
        assert "CI" not in os.environ, "the extra test has nvidia-cuda-nvrtc"
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    return outcome
