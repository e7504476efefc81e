"""Memory for amplitudes: it begins where a cache line does, in large pages where there are any."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.buffers import aligned

_MAPPED = 1 << 22  # bytes: from here on the system is asked, and gives pages when they are touched


def zeros(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """So many numbers, all 0. Raises MemoryError.

    Large memory is not touched here: each page comes to be near the thread that first works on it.
    """
    size = count * np.dtype(dtype).itemsize
    if size < _MAPPED:
        return aligned(size).view(dtype)
    try:
        found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"no memory for {size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            found.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(found, dtype)


def like(array: NDArray[Any]) -> NDArray[Any]:
    """Room for as many numbers as these. Raises MemoryError."""
    return zeros(array.size, array.dtype)
