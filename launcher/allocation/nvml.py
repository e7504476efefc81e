"""GPUs of this machine by NVML, the C library of NVIDIA's driver: UUID, model, memory, capability.

NVML counts in the order of bus addresses, which is that of CUDA_DEVICE_ORDER=PCI_BUS_ID, and does
not know CUDA_VISIBLE_DEVICES. A GPU that is partitioned (MIG) is listed by its instances.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from launcher.base import Gpu

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
