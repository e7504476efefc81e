"""Compilation and detection of GPUs, sanitizers."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from failing import fails
from packages import bring

from simulators import registry
from simulators.errors import UnknownEngine
from simulators.gpu.devices import detect, nvrtc
from simulators.gpu.devices.detect import GpuEvidence, find_gpu, refusal
from testbed import hiprtc
from testbed.hiprtc import Hiprtc
from testbed.host_device import KERNELS, SANITIZED, build_library

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests" / "support"
LOG = """\
ptxas info    : Compiling entry function 'sweep_double' for 'sm_90'
ptxas info    : Function properties for sweep_double
    32 bytes stack frame, 20 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 408 bytes cmem[0]
"""


class FakeCompiler(nvrtc.Nvrtc):
    def __init__(self) -> None:
        self.version = (13, 0)
        self.compiled: list[tuple[str, tuple[int, int]]] = []

    def compile(self, module: str, capability: tuple[int, int]) -> nvrtc.CompiledModule:
        self.compiled.append((module, capability))
        return nvrtc.CompiledModule(b"\x7fELF" + module.encode(), "")


def test_source_has_every_file_once_and_no_include() -> None:
    text = nvrtc.kernel_source()
    assert not re.search(r'#include "\w+\.cuh"', text)
    for path in nvrtc.KERNELS.glob("*.cuh"):
        body = path.read_text().splitlines()[-1]
        assert text.count(path.read_text().split("\n", 1)[0]) == 1, path.name
        assert body in text


def test_every_kernel_is_in_the_module_that_is_loaded_for_it() -> None:
    text = (nvrtc.KERNELS / "kernels.cuh").read_text()
    names = re.findall(r"KERNEL\((\w+?)(?:_##suffix)?,", text)
    assert {"sweep", "small_counts", "locate"} <= set(names)
    assert nvrtc.module_of("sweep_double") == "sweep_double"
    assert nvrtc.module_of("locate_single") == "states_single"
    assert nvrtc.module_of("small_counts") == nvrtc.module_of("locate_double") == "states_double"
    assert nvrtc.module_of("sample_lines_single") == "lines"
    for name, number in nvrtc.MODULES.items():
        assert f"#define MODULE_{name.upper()} {number}\n" in text


def test_resources_are_read_from_the_compilers_log() -> None:
    assert nvrtc.usage(LOG) == (nvrtc.KernelUsage("sweep_double", 128, 32, 20),)


def test_cubin_is_compiled_once_for_each_capability(tmp_path: Path) -> None:
    fake = FakeCompiler()
    first = nvrtc.cached_cubin(tmp_path, "sweep_double", (9, 0), fake)
    assert first.parent.name == f"gpu-{nvrtc.source_digest()}-sm90"
    assert nvrtc.cached_cubin(tmp_path, "sweep_double", (9, 0), fake) == first
    nvrtc.cached_cubin(tmp_path, "sweep_double", (8, 0), fake)
    assert fake.compiled == [("sweep_double", (9, 0)), ("sweep_double", (8, 0))]
    cubin = nvrtc.cached_cubin(tmp_path, "sweep_double", (9, 0), None)
    assert cubin.read_bytes().startswith(b"\x7fELF")


def test_missing_compiler_is_named_where_nothing_has_been_compiled(tmp_path: Path) -> None:
    with pytest.raises(UnknownEngine, match="NVRTC is not installed") as caught:
        nvrtc.cached_cubin(tmp_path, "sweep_double", (9, 0), None)
    assert "gpu-cu13" in caught.value.hint


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0)])
def test_kernels_of_states_are_compiled_without_spills(capability: tuple[int, int]) -> None:
    result = installed_nvrtc().compile("states_double", capability)
    assert result.cubin[:4] == b"\x7fELF", "PTX is refused by older drivers"
    kernels = nvrtc.usage(result.log)
    assert "small_counts" in {each.name for each in kernels}
    assert all(each.spilled_bytes == 0 for each in kernels)


def hip() -> Hiprtc:
    """AMD's compiler, from Debian's packages; a machine that gets none may leave its tests out."""
    why = bring("unpacked.sh", hiprtc.FOLDER, *hiprtc.PACKAGES)
    try:
        return Hiprtc()
    except (OSError, AttributeError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{why}: {error}")
        pytest.skip(f"no HIPRTC: {why or error}")


@pytest.mark.parametrize("module", ["states_double", "sweep_double", "lines"])
def test_kernels_are_compiled_for_amd_gpus_with_amplitudes_in_registers(module: str) -> None:
    kernels = hiprtc.usage(hip().compile(module, "gfx90a"))
    names = {each.name for each in kernels}
    assert {nvrtc.module_of(name) for name in names} == {module}
    text = (nvrtc.KERNELS / "kernels.cuh").read_text()
    suffixed = set(re.findall(r"    KERNEL\((\w+)_##suffix,", text))
    assert (
        names
        == {
            "states_double": {f"{name}_double" for name in suffixed - {"sweep", "sample_lines"}}
            | {"small_counts", "gather_counts"},
            "sweep_double": {"sweep_double"},
            "lines": {"sample_lines_double", "sample_lines_single"},
        }[module]
    )
    assert all(each.stack_bytes == each.spilled_bytes == 0 for each in kernels)


def test_error_of_the_amd_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "kernel_source", lambda: "int number = missing;")
    with pytest.raises(RuntimeError, match="error: use of undeclared identifier"):
        hip().compile("states_double", "gfx90a")


@pytest.mark.slow  # the sweeps take a minute for each capability
def test_all_kernels_are_within_their_budgets_of_registers_stack_and_spills() -> None:
    installed_nvrtc()
    hip()
    architectures = ("sm_80", "sm_90", "sm_100", "gfx908", "gfx90a", "gfx1030")
    command = [sys.executable, str(ROOT / "scripts" / "check_kernels.py"), *architectures]
    process = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    for architecture in architectures:
        assert all(f"{architecture} {module}:" in process.stdout for module in nvrtc.MODULES)


def installed_nvrtc() -> nvrtc.Nvrtc:
    """The compiler; a machine without it may leave these tests out, CI may not."""
    outcome = nvrtc.load_nvrtc()
    if outcome is None:
        assert "CI" not in os.environ, "the extra test has nvidia-cuda-nvrtc"
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    return outcome


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
        (changed(devices=0), "driver 580.159 is here, but it shows no device", "--gpus-per-node=1"),
        (
            changed(release="535.104", cuda_version=12020),
            r"driver 535.104 has CUDA 12.2; simenv\[gpu-cu13\] needs driver 580 or newer",
            "pip install 'simenv[gpu-cu12]', or update the driver",
        ),
        (
            changed(wheels=()), r"cupy is not installed \(driver 580.159 found\)",
            "pip install 'simenv[gpu-cu13]'",
        ),
        (
            changed(wheels=(), cuda_version=12040), "cupy is not installed",
            "pip install 'simenv[gpu-cu12]'",
        ),
        (
            changed(wheels=("cupy-cuda12x", "cupy-cuda13x")),
            "cupy-cuda12x and cupy-cuda13x are both installed", "pip uninstall cupy-cuda12x",
        ),
    ],
)  # fmt: skip
def test_unusable_gpu_is_refused_with_reason_and_way_out(
    monkeypatch: pytest.MonkeyPatch, evidence: GpuEvidence, message: str, way_out: str
) -> None:
    monkeypatch.setattr(detect, "find_gpu", lambda: evidence)
    caught = fails(UnknownEngine, message, registry.create, "gpu")
    assert way_out in caught.hint


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
        fails(UnknownEngine, "no NVIDIA driver", registry.create, "gpu")


def exercise(library: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(SUPPORT)])
    return subprocess.run(
        [sys.executable, str(SUPPORT / "gpu_exercise.py"), str(library)],
        env={**os.environ, "PYTHONPATH": path, **environ}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def sanitizer_runtime() -> str:
    """Path of the library that has to be loaded before Python."""
    process = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    path = process.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip("g++ has no address sanitizer")
    return path


def sanitized(library: Path) -> subprocess.CompletedProcess[str]:
    return exercise(
        library,
        LD_PRELOAD=sanitizer_runtime(),
        ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0:use_sigaltstack=0",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


def test_kernels_touch_no_memory_outside_and_have_defined_behaviour(library: Path) -> None:
    result = sanitized(build_library(*SANITIZED, optimize="-O1"))
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.slow  # a second build of all kernels with sanitizers, a minute: a control of the first
def test_sanitizer_finds_shared_memory_16_bytes_too_small(library: Path, tmp_path: Path) -> None:
    short = copied(tmp_path, "small.cuh", "const u32 size = 1u << n;", "const u32 size = 2u << n;")
    result = sanitized(build_library(*SANITIZED, kernels=short, optimize="-O1"))
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr


def copied(folder: Path, name: str, old: str, new: str, count: int = 1) -> Path:
    """A copy of the kernels in which a text was replaced."""
    target = folder / "kernels"
    shutil.copytree(KERNELS, target)
    text = (target / name).read_text()
    assert old in text
    (target / name).write_text(text.replace(old, new, count))
    return target
