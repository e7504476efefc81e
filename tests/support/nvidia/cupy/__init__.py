"""A stand-in for CuPy, of what the product uses of it: its kernels are those of the host device.

`site_constants` is written where this is installed: the library that g++ compiled, the GPUs (see
`../nvidia.c`) and the folder tests/support. Machine code is looked at, but not run.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .site_constants import KERNELS, ROOT

sys.path.append(ROOT)
from testbed.host_device import HostDevice

from . import cuda
from .cuda.memory import OutOfMemoryError
from .cuda.runtime import memory

DEVICE = HostDevice(Path(KERNELS))
_SHARED_BYTES, _MOST_SHARED_BYTES = 48 * 2**10, 227 * 2**10


class _Memory:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.ptr = array.ctypes.data

    def copy_from_device(self, source: "_Memory", size: int) -> None:
        assert size == self.array.nbytes == source.array.nbytes
        DEVICE.copy(source.array, self.array)

    def copy_to_host(self, address: int, size: int) -> None:
        assert size == self.array.nbytes
        ctypes.memmove(address, self.ptr, size)


class ndarray:  # noqa: N801  # CuPy's name
    """One-dimensional array in the memory of the device."""

    def __init__(self, array: np.ndarray, owned: int | None = None) -> None:
        self.data = _Memory(array)
        self.nbytes = array.nbytes
        self._owned = self.nbytes if owned is None else owned
        memory.used += self._owned

    def __del__(self) -> None:
        memory.used -= self._owned

    def __getitem__(self, part: slice) -> "ndarray":
        return ndarray(self.data.array[part], owned=0)

    def set(self, values: np.ndarray) -> None:
        assert values.dtype == self.data.array.dtype
        self.data.array[...] = values


def empty(count: int, dtype: Any) -> ndarray:
    size = count * np.dtype(dtype).itemsize
    if memory.used + size > memory.total:
        raise OutOfMemoryError(size, memory.used)
    return ndarray(DEVICE.empty(count, dtype))


def asnumpy(array: ndarray) -> np.ndarray:
    return DEVICE.download(array.data.array)


class RawModule:
    """A module of kernels."""

    def __init__(self, *, path: str) -> None:
        assert Path(path).read_bytes()[:4] == b"\x7fELF", "no machine code"

    def get_function(self, name: str) -> "_Function":
        return _Function(name)

    def get_global(self, name: str) -> "_Global":
        assert name == "PASS"
        return _Global(DEVICE.constants)


class _Global:
    """Memory of a variable, from an address on."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __add__(self, count: int) -> "_Global":
        return _Global(self._address + count)

    def copy_from_device_async(self, source: _Memory, size: int, stream: cuda.Stream) -> None:
        assert size == source.array.nbytes
        assert stream.ptr == 0
        cuda.run(lambda: ctypes.memmove(self._address, source.ptr, size))


class _Function:
    def __init__(self, name: str) -> None:
        self._name = name
        self.max_dynamic_shared_size_bytes = _SHARED_BYTES

    def __call__(
        self, grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], *, shared_mem: int
    ) -> None:
        assert shared_mem <= self.max_dynamic_shared_size_bytes <= _MOST_SHARED_BYTES
        passed = [
            ctypes.c_void_p(each.data.ptr) if isinstance(each, ndarray) else each
            for each in arguments
        ]
        cuda.run(lambda: DEVICE.launch(self._name, grid[0], block[0], shared_mem, *passed))


__all__ = ["RawModule", "asnumpy", "cuda", "empty", "ndarray"]
