"""Resources of this machine that this process may use: cores, memory and GPUs."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.allocation.hostlist import LOOPBACK, same_host
from launcher.base import Gpu, Node

# GPUs of this machine by NVML, the C library of NVIDIA's driver: UUID, model, memory, capability.
#
# NVML counts in the order of bus addresses, which is that of CUDA_DEVICE_ORDER=PCI_BUS_ID, and does
# not know CUDA_VISIBLE_DEVICES. A GPU that is partitioned (MIG) is listed by its instances.

LIBRARY = "libnvidia-ml.so.1"
_TEXT_BYTES = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE and NVML_DEVICE_NAME_V2_BUFFER_SIZE
_MIG_ENABLED = 1
_MEMORY_CLOCK = 2  # NVML_CLOCK_MEM
_TRANSFERS = 2  # per clock cycle, for memory with double data rate


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class NvmlError(Exception):
    """Failure of a function of NVML, with its status."""


def nvml_gpus(library: str = LIBRARY) -> tuple[Gpu, ...]:
    """Return all GPUs, or instances, of this machine. Raises NvmlError if NVML cannot be used."""
    try:
        functions = ctypes.CDLL(library)
    except OSError as error:
        raise NvmlError(str(error)) from error
    _call(functions, "nvmlInit_v2")
    try:
        count = ctypes.c_uint()
        _call(functions, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        devices = [
            _handle(functions, "nvmlDeviceGetHandleByIndex_v2", k) for k in range(count.value)
        ]
        return tuple(gpu for device in devices for gpu in _parts(functions, device))
    finally:
        with suppress(NvmlError):
            _call(functions, "nvmlShutdown")


def _parts(functions: Any, device: ctypes.c_void_p) -> Iterator[Gpu]:
    """Yield the GPU of a handle, or its instances."""
    capability = _query_pair(functions, "nvmlDeviceGetCudaComputeCapability", device)
    gpu = replace(_gpu(functions, device), capability=capability)
    gpu = replace(gpu, bandwidth=_bandwidth(functions, device))
    if _query_pair(functions, "nvmlDeviceGetMigMode", device)[0] != _MIG_ENABLED:
        yield gpu
        return
    max_parts = ctypes.c_uint()
    _call(functions, "nvmlDeviceGetMaxMigDeviceCount", device, ctypes.byref(max_parts))
    for number in range(max_parts.value):
        with suppress(NvmlError):  # no instance has this number
            part = _handle(functions, "nvmlDeviceGetMigDeviceHandleByIndex", device, number)
            instance = _gpu(functions, part)
            share = instance.memory_bytes / max(1, gpu.memory_bytes)
            yield replace(instance, capability=capability, bandwidth=share * gpu.bandwidth)


def _gpu(functions: Any, device: ctypes.c_void_p) -> Gpu:
    memory = _Memory()
    with suppress(NvmlError):  # the memory is unknown
        _call(functions, "nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
    uuid = _text(functions, "nvmlDeviceGetUUID", device)
    model = ""
    with suppress(NvmlError):
        model = _text(functions, "nvmlDeviceGetName", device)
    return Gpu(uuid, model, memory.total)


def _bandwidth(functions: Any, device: ctypes.c_void_p) -> float:
    """Return the bytes per second between a GPU and its memory, from the bus's width and clock; 0:
    unknown."""
    bits, megahertz = ctypes.c_uint(), ctypes.c_uint()
    try:
        _call(functions, "nvmlDeviceGetMemoryBusWidth", device, ctypes.byref(bits))
        _call(
            functions, "nvmlDeviceGetMaxClockInfo", device, _MEMORY_CLOCK, ctypes.byref(megahertz)
        )
    except NvmlError:
        return 0.0
    return _TRANSFERS * megahertz.value * 1e6 * bits.value / 8


def _query_pair(functions: Any, name: str, device: ctypes.c_void_p) -> tuple[int, int]:
    """Return two numbers that a function writes; zeros if it fails."""
    first, second = ctypes.c_int(), ctypes.c_int()
    try:
        _call(functions, name, device, ctypes.byref(first), ctypes.byref(second))
    except NvmlError:
        return 0, 0
    return first.value, second.value


def _handle(functions: Any, name: str, *arguments: Any) -> ctypes.c_void_p:
    result = ctypes.c_void_p()
    _call(functions, name, *arguments, ctypes.byref(result))
    return result


def _text(functions: Any, name: str, device: ctypes.c_void_p) -> str:
    buffer = ctypes.create_string_buffer(_TEXT_BYTES)
    _call(functions, name, device, buffer, ctypes.c_uint(_TEXT_BYTES))
    return buffer.value.decode(errors="replace")


def _call(functions: Any, name: str, *arguments: Any) -> None:
    """Call a function. Raises NvmlError for a status other than success, and for a missing
    function."""
    try:
        function = getattr(functions, name)
    except AttributeError as error:
        raise NvmlError(f"{name} is not in this library") from error
    status = function(*arguments)
    if status:
        raise NvmlError(f"{name}: status {status}")


# GPUs of this machine that are granted to this process, by UUID.
#
# NVML lists them with their memory. If NVML is not installed, the kernel module's files under /proc
# list them, with UUIDs alone. Both are in the order of bus addresses, which is that of
# CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA_VISIBLE_DEVICES restricts them, by UUID or by number.

FOLDER = Path("/proc/driver/nvidia/gpus")
VARIABLE = "CUDA_VISIBLE_DEVICES"
_UUID = re.compile(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]+)")
_KINDS = ("GPU-", "MIG-")  # prefixes of UUIDs
_MOST = 4096  # characters read of a file of the kernel module


def local_gpus(
    environ: Mapping[str, str], folder: Path = FOLDER, library: str = LIBRARY
) -> tuple[Gpu, ...]:
    """Return the GPUs of this machine that `environ` grants."""
    try:
        gpus = nvml_gpus(library)
    except NvmlError:
        gpus = _listed_gpus(folder)
    by_uuid = {gpu.uuid: gpu for gpu in gpus}
    return tuple(by_uuid[uuid] for uuid in granted(list(by_uuid), environ.get(VARIABLE)))


def _listed_gpus(folder: Path) -> tuple[Gpu, ...]:
    """Return the GPUs that the kernel module lists."""
    try:
        files = sorted(folder.glob("*/information"))
        texts = [file.read_text()[:_MOST] for file in files]
    except OSError:
        return ()
    return tuple(Gpu(match[1]) for match in map(_UUID.search, texts) if match)


def granted(uuids: list[str], visible: str | None) -> tuple[str, ...]:
    """Return the UUIDs that a value of CUDA_VISIBLE_DEVICES names, in its order. Pure. Like CUDA,
    end at the first name that no device has."""
    if visible is None:
        return tuple(uuids)
    chosen: list[str] = []
    for item in (part.strip() for part in visible.split(",")):
        if item.isdigit() and int(item) < len(uuids):
            results = [uuids[int(item)]]
        else:
            results = [uuid for uuid in uuids if item[:4] in _KINDS and uuid.startswith(item)]
        if len(results) != 1 or results[0] in chosen:
            break
        chosen += results
    return tuple(chosen)


# Cores and memory that this process may use on this machine: CPU affinity and cgroup limits.
#
# Both versions of cgroups are read, this process's own group and all its ancestors.

_CGROUP = Path("/sys/fs/cgroup")


def this_node() -> Node:
    """Return this machine as a node, with the cores, memory and GPUs this process may use."""
    gpus = local_gpus(os.environ)
    name = os.uname().nodename
    return Node(name, _cores(), memory_bytes(), len(gpus), gpu_details=gpus)


def is_this_node(name: str) -> bool:
    """Return whether `name` is a name of this machine."""
    return name in LOOPBACK or same_host(name, os.uname().nodename)


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed is not None else os.cpu_count() or 1
    for folder in control_groups(""):
        quota_period = _read(folder / "cpu.max").split()
        if len(quota_period) == 2 and quota_period[0].isdigit():
            cores = min(cores, int(quota_period[0]) // int(quota_period[1]))
    for folder in control_groups("cpu"):
        quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota and period:
            cores = min(cores, quota // period)
    return max(1, cores)


def memory_bytes() -> int:
    """Memory of this machine that this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_number(folder / "memory.max") for folder in control_groups("")]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in control_groups("memory")]
    return min([memory, *(limit for limit in limits if limit)])


def control_groups(controller: str) -> list[Path]:
    """Return this process's cgroup and its ancestors; `controller`: of version 1, "": version 2."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, group = line.split(":", 2)
        if controller in names.split(","):
            # A container may see its own group as the root although the path is the host's.
            root = _CGROUP / names if controller else _CGROUP
            if controller and not root.is_dir():
                root = _CGROUP / controller
            path = root / group.lstrip("/")
            return [path, *(p for p in path.parents if p == root or root in p.parents)]
    return []


def _number(path: Path) -> int:
    """Read a positive number; 0 for other texts ("max", -1) and for a missing file."""
    text = _read(path).strip()
    return int(text) if text.isdigit() else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
