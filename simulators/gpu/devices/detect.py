"""Detection of a GPU that this process can use, and the reason if there is none.

`find_gpu` inspects the machine, `refusal` decides. Neither imports cupy, which takes 0.3 s.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from simulators.errors import UnknownEngine

DRIVER_LIBRARY = "libcuda.so.1"
# (distribution of cupy: CUDA version that it needs, driver version, extra of simenv).
WHEELS = {"cupy-cuda12x": (12000, "525", "gpu-cu12"), "cupy-cuda13x": (13000, "580", "gpu-cu13")}
_VERSION_FILE = Path("/proc/driver/nvidia/version")
_RELEASE = re.compile(r"Kernel Module\D*?\s(\d+(?:\.\d+)+)")
_PROCESSOR = "run on the processor (engine='statevector')"
_SUCCESS = 0


class GpuEvidence(msgspec.Struct, frozen=True):
    """Facts about the GPUs of this machine that this process can see."""

    has_driver: bool = False  # the driver's library can be loaded
    release: str = ""  # of the driver: "580.159"; "": not known
    cuda_version: int = 0  # of the driver: 13000 is 13.0
    devices: int = 0  # number that the driver shows to this process
    visible: str | None = None  # CUDA_VISIBLE_DEVICES
    wheels: tuple[str, ...] = ()  # installed distributions of cupy


def refusal(evidence: GpuEvidence) -> tuple[str, str] | None:
    """Return (reason, hint) if no GPU can be used; None if one can."""
    if not evidence.has_driver:
        return (
            f"no GPU: {DRIVER_LIBRARY} is not here (no NVIDIA driver)",
            f"{_PROCESSOR}, or ask the site for a GPU: srun --gpus=1",
        )
    driver = f"driver {evidence.release}" if evidence.release else "the driver"
    if not evidence.devices:
        shown = evidence.visible
        reason = "it shows no device" if shown is None else f"CUDA_VISIBLE_DEVICES is {shown!r}"
        return (
            f"no GPU granted: {driver} is here, but {reason}",
            f"in Slurm: --gpus-per-node=1; or {_PROCESSOR}",
        )
    if len(evidence.wheels) > 1:
        names = " and ".join(evidence.wheels)
        return f"{names} are both installed", f"pip uninstall {evidence.wheels[0]}"
    if not evidence.wheels:
        return (
            f"cupy is not installed ({driver} found)",
            f"pip install 'simenv[{_extra(evidence)}]'",
        )
    needed, release, extra = WHEELS[evidence.wheels[0]]
    if evidence.cuda_version < needed:
        major, minor = evidence.cuda_version // 1000, evidence.cuda_version % 1000 // 10
        return (
            f"{driver} has CUDA {major}.{minor}; simenv[{extra}] needs driver {release} or newer",
            f"pip install 'simenv[{_extra(evidence)}]', or update the driver",
        )
    return None


def _extra(evidence: GpuEvidence) -> str:
    """Extra of simenv that matches the driver."""
    fitting = [extra for needed, _, extra in WHEELS.values() if evidence.cuda_version >= needed]
    return fitting[-1] if fitting else "gpu-cu12"


def require_gpu() -> None:
    """Raise UnknownEngine with the reason if this process can use no GPU."""
    reason = refusal(find_gpu())
    if reason is not None:
        raise UnknownEngine(f"engine 'gpu': {reason[0]}", hint=reason[1])


def find_gpu(load: Callable[[str], Any] = ctypes.CDLL) -> GpuEvidence:
    """Query the driver for the GPUs of this process. `load` opens the driver's library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    wheels = tuple(name for name in WHEELS if _is_installed(name))
    try:
        driver = load(DRIVER_LIBRARY)
    except OSError:
        return GpuEvidence(visible=visible, wheels=wheels)
    version, devices = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if driver.cuInit(0) == _SUCCESS:
        driver.cuDeviceGetCount(ctypes.byref(devices))
    return GpuEvidence(True, _release(), version.value, devices.value, visible, wheels)


def _release() -> str:
    try:
        match = _RELEASE.search(_VERSION_FILE.read_text())
    except OSError:
        return ""
    return match[1] if match else ""


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
