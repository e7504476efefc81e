"""A machine with GPUs, as far as programs see it: NVML, the driver and CuPy, see `nvidia/`.

The libraries are compiled by gcc and found through LD_LIBRARY_PATH, so the product loads them as
it would those of NVIDIA.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from bare import Simenv, command_line
from qiskit import QuantumCircuit

from simulators.gpu.devices.nvrtc import MODULES, source_digest
from testbed.host_device import build_library

FOLDER = Path(__file__).parent / "nvidia"
MODEL = "NVIDIA H200,143771,99"  # a capability that no real GPU has: its machine code is none
NAMES = ("libcuda.so.1", "libnvidia-ml.so.1")


def require_gcc() -> None:
    """A machine without gcc may leave these tests out, CI may not."""
    if shutil.which("gcc") is None or shutil.which("g++") is None:
        assert "CI" not in os.environ, "gcc and g++ are missing"
        pytest.skip("gcc is not installed")


def build_libraries(folder: Path, gpus: str = "", cuda: int = 13000) -> dict[str, Path]:
    """Both libraries, by name; see `nvidia/nvidia.c`."""
    folder.mkdir(parents=True, exist_ok=True)
    first = folder / NAMES[0]
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-D_GNU_SOURCE"]
    defined = [f'-DGPUS="{gpus}"', f"-DCUDA={cuda}"]
    subprocess.run([*command, *defined, "-o", first, FOLDER / "nvidia.c"], check=True)
    for name in NAMES[1:]:
        shutil.copy(first, folder / name)
    return {name: folder / name for name in NAMES}


def install_cupy(packages: Path, gpus: str, wheels: tuple[str, ...] = ("cupy-cuda13x",)) -> None:
    """The stand-in for CuPy, as if installed from these wheels."""
    cupy = packages / "cupy"
    shutil.copytree(FOLDER / "cupy", cupy, ignore=shutil.ignore_patterns("__pycache__"))
    constants = {"KERNELS": str(build_library()), "ROOT": str(FOLDER.parents[2]), "GPUS": gpus}
    lines = (f"{name} = {value!r}\n" for name, value in constants.items())
    (cupy / "site_constants.py").write_text("".join(lines))
    for wheel in wheels:
        info = packages / f"{wheel.replace('-', '_')}-14.2.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 14.2.0\n")


@contextmanager
def machine(
    folder: Path, gpus: str, *, cuda: int = 13000, wheels: tuple[str, ...] = ("cupy-cuda13x",),
    variables: Mapping[str, str] | None = None,
) -> Iterator[Simenv]:  # fmt: skip
    """`simenv` on a machine with these GPUs, driver and wheels; it is taken down at the end."""
    require_gcc()
    build_libraries(folder / "lib", gpus, cuda)
    table = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    kernels = Path(os.environ["SIMENV_KERNELS"])
    environ = {
        **table, "SIMENV_KERNELS": str(kernels), "SIMENV_HOME": str(folder / "home"),
        "LD_LIBRARY_PATH": str(folder / "lib"), **(variables or {}),
    }  # fmt: skip
    simenv = command_line(folder, environ)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    if wheels:
        install_cupy(packages, gpus, wheels)
    place_machine_code(kernels)
    try:
        yield simenv
    finally:
        if (folder / "home").exists():
            simenv("down", "--now")


def place_machine_code(kernels: Path, capability: str = "99") -> None:
    """Files where compiled kernels would be: the stand-in for CuPy runs those of g++ instead."""
    place = kernels / f"gpu-{source_digest()}-sm{capability}"
    place.mkdir(parents=True, exist_ok=True)
    for module in MODULES:
        (place / f"{module}.cubin").write_bytes(b"\x7fELF for no processor")


def ring_circuit(n: int, layers: int) -> QuantumCircuit:
    """Rotations and entangling gates on a ring and beyond it."""
    result = QuantumCircuit(n, n)
    for layer in range(layers):
        for qubit in range(n):
            result.u(0.3 + qubit, 0.7 * layer, 1.1, qubit)
        for qubit in range(n):
            result.cx(qubit, (qubit + 1 + layer % 5) % n)
    result.measure(range(n), range(n))
    return result
