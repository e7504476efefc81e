"""GPUs of this machine that this process was granted, by UUID, without any library of NVIDIA.

The kernel module lists them under /proc in the order of their bus addresses, which is that of
CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA_VISIBLE_DEVICES restricts them, by UUID or by number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_FOLDER = Path("/proc/driver/nvidia/gpus")
_UUID = re.compile(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]+)")
_MOST = 4096  # characters of a file of the kernel's


def local_gpus(environ: Mapping[str, str], folder: Path = _FOLDER) -> tuple[str, ...]:
    """Return the UUIDs of this machine's GPUs that `environ` grants."""
    try:
        files = sorted(folder.glob("*/information"))
        texts = [file.read_text()[:_MOST] for file in files]
    except OSError:
        return ()
    results = [match[1] for match in map(_UUID.search, texts) if match]
    return granted(results, environ.get("CUDA_VISIBLE_DEVICES"))


def granted(uuids: list[str], visible: str | None) -> tuple[str, ...]:
    """Return those that a value of CUDA_VISIBLE_DEVICES names, in its order. As CUDA does, end at
    the first name that no device has. Pure."""
    if visible is None:
        return tuple(uuids)
    chosen: list[str] = []
    for word in (part.strip() for part in visible.split(",")):
        if word.isdigit() and int(word) < len(uuids):
            results = [uuids[int(word)]]
        else:
            results = [uuid for uuid in uuids if word.startswith("GPU-") and uuid.startswith(word)]
        if len(results) != 1 or results[0] in chosen:
            break
        chosen += results
    return tuple(chosen)
