"""Memory for amplitudes: it begins where a cache line does, in large pages where there are any.

To get memory from the system, and all its pages, takes longer than a few passes over it. So what a
state leaves is kept for the next one of its size: no more than the processes of a machine, one for
each core, may keep all together without being felt, and nothing once another size is asked for.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.buffers import aligned

PHYSICAL_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_MAPPED = 1 << 22  # bytes: from here on the system is asked, and gives pages when they are touched
_KEPT_BYTES = PHYSICAL_BYTES // (32 * (os.cpu_count() or 1))
_kept: list[mmap.mmap] = []


def room(count: int, dtype: DTypeLike) -> tuple[NDArray[Any], bool]:
    """So many numbers, and whether all are 0; else they are anything. Raises MemoryError.

    New memory is not touched here: each page comes to be near the thread that first works on it.
    """
    size = count * np.dtype(dtype).itemsize
    if size < _MAPPED:
        return aligned(size).view(dtype), True
    found = next((block for block in _kept if len(block) == size), None)
    if found is not None:
        with contextlib.suppress(ValueError):  # another thread has just taken it
            _kept.remove(found)
            return _numbers(found, dtype), False
    release()
    try:
        new = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"no memory for {size} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system without them
            new.madvise(mmap.MADV_HUGEPAGE)
    return _numbers(new, dtype), True


def zeros(count: int, dtype: DTypeLike) -> NDArray[Any]:
    """So many numbers, all 0. Raises MemoryError."""
    found, clean = room(count, dtype)
    if not clean:
        found.fill(0)
    return found


def like(array: NDArray[Any]) -> NDArray[Any]:
    """Room for as many numbers as these, which may be anything. Raises MemoryError."""
    return room(array.size, array.dtype)[0]


def release() -> None:
    """Give back what is kept."""
    _kept.clear()


def _numbers(block: mmap.mmap, dtype: DTypeLike) -> NDArray[Any]:
    """The block as an array; it is kept once nobody has the array or a view of it."""
    found = np.frombuffer(block, dtype)
    if len(block) <= _KEPT_BYTES:
        weakref.finalize(found, _keep, block).atexit = False
    return found


def _keep(block: mmap.mmap) -> None:
    if sum(map(len, _kept)) + len(block) <= _KEPT_BYTES:
        _kept.append(block)
