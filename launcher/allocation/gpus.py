"""GPUs of this machine that are granted to this process, by UUID.

NVML lists them with their memory. If NVML is not installed, the kernel module's files under /proc
list them, with UUIDs alone. Both are in the order of bus addresses, which is that of
CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA_VISIBLE_DEVICES restricts them, by UUID or by number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from launcher.allocation import nvml
from launcher.base import Gpu

FOLDER = Path("/proc/driver/nvidia/gpus")
VARIABLE = "CUDA_VISIBLE_DEVICES"
_UUID = re.compile(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]+)")
_KINDS = ("GPU-", "MIG-")  # prefixes of UUIDs
_MOST = 4096  # characters read of a file of the kernel module


def local_gpus(
    environ: Mapping[str, str], folder: Path = FOLDER, library: str = nvml.LIBRARY
) -> tuple[Gpu, ...]:
    """Return the GPUs of this machine that `environ` grants."""
    try:
        gpus = nvml.nvml_gpus(library)
    except nvml.NvmlError:
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
    """Return the UUIDs that a value of CUDA_VISIBLE_DEVICES names, in its order. Pure.

    Like CUDA, end at the first name that no device has.
    """
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
