"""The kernels of the engine `gpu`, compiled by g++ and run by fibers: a `Device` on any machine."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.errors import DeviceLost
from simulators.gpu.devices.device import PeerGroup

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "simulators" / "gpu" / "kernels"
FOLDER = Path(__file__).parent
CACHE = Path(sys.prefix) / "var" / "simenv-gpu-host"
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-static-libasan")
FORWARD, BACKWARD = 0, 1  # orders of threads; any other number is the seed of a shuffled order
_ALIGNMENT = 256  # of allocations of CUDA


def build_library(*flags: str, kernels: Path = KERNELS, optimize: str = "-O2") -> Path:
    """The library of these sources and flags, compiled if there is none yet.

    Raises RuntimeError with what g++ says.
    """
    sources = [*sorted(kernels.glob("*.cuh")), *sorted(FOLDER.glob("cuda_host*"))]
    command = ["g++", "-std=c++17", optimize, "-march=native", "-ffp-contract=off", "-shared",
               "-fPIC", "-Wall", "-Wextra", "-Wno-unknown-pragmas", *flags]  # fmt: skip
    digest = hashlib.sha256(" ".join(command).encode())
    for source in sources:
        digest.update(source.read_bytes())
    target = CACHE / f"kernels-{digest.hexdigest()[:16]}.so"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(f".{os.getpid()}.new")
        include = [f"-I{kernels}", f"-I{FOLDER}", "-o", str(temporary)]
        main = str(FOLDER / "cuda_host_main.cpp")
        process = subprocess.run([*command, *include, main], capture_output=True, text=True)
        if process.returncode:
            raise RuntimeError(process.stderr)
        temporary.replace(target)
    return target


@functools.cache
def _loaded(path: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(path))


class Requests(msgspec.Struct, frozen=True):
    """Memory accesses of warps, of one kind: how many, in how many transactions, and the fewest."""

    requests: int
    transactions: int
    fewest: int


class HostDevice:
    """Kernels in this process. `order`: of the threads between two barriers; `is_traced`: accesses
    are counted."""

    name = "host"
    location = ""  # one for each process

    def __init__(
        self,
        library: Path | None = None,
        *,
        order: int = FORWARD,
        is_traced: bool = False,
        free_bytes: int = 2**30,
    ) -> None:
        self._library = _loaded(library or build_library())
        self._order = order
        self._is_traced = is_traced
        self.free_bytes = free_bytes
        self.launches: list[str] = []
        self.replays = 0
        self._captured: list[tuple[Any, ...]] | None = None

    def empty(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """See `Device`; every byte is 255, and of NaN every number."""
        size = count * np.dtype(dtype).itemsize
        result = np.full(size + _ALIGNMENT, 0xFF, np.uint8)
        begin = -result.ctypes.data % _ALIGNMENT
        return result[begin : begin + size].view(dtype)

    def upload(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Device`."""
        outcome = self.empty(array.size, array.dtype)
        outcome[...] = array.ravel()
        return outcome

    def write(self, array: NDArray[Any], buffer: NDArray[Any]) -> None:
        """See `Device`."""
        buffer[...] = array.ravel()

    def address(self, buffer: NDArray[Any]) -> int:
        """See `Device`."""
        return buffer.ctypes.data

    def download(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """See `Device`."""
        return buffer.copy()

    def download_bytes(self, buffer: NDArray[Any]) -> bytes:
        """See `Device`."""
        return buffer.tobytes()

    def copy(self, source: NDArray[Any], target: NDArray[Any]) -> None:
        """See `Device`."""
        target[...] = source

    @property
    def constants(self) -> int:
        """Address of PASS."""
        return ctypes.addressof(ctypes.c_uint64.in_dll(self._library, "PASS"))

    def launch(
        self, kernel: str, grid: int, threads: int, shared_bytes: int, *arguments: Any,
        constants: Sequence[NDArray[Any]] = (),
    ) -> None:  # fmt: skip
        """See `Device`."""
        sources = [(each.ctypes.data, each.nbytes) for each in constants]
        launch = (sources, kernel, grid, threads, shared_bytes, *arguments)
        if self._captured is None:
            self._launch(*launch)
        else:
            self._captured.append(launch)

    def _launch(
        self, constants: list[tuple[int, int]], kernel: str, grid: int, threads: int,
        shared_bytes: int, *arguments: Any,
    ) -> None:  # fmt: skip
        target = self.constants
        for address, size in constants:
            ctypes.memmove(target, address, size)
            target += size
        self.launches.append(kernel)
        passed = [_argument(each) for each in arguments]
        getattr(self._library, kernel)(
            ctypes.c_uint(grid),
            ctypes.c_uint(threads),
            ctypes.c_size_t(shared_bytes),
            ctypes.c_uint(self._order),
            ctypes.c_int(self._is_traced),
            *passed,
        )

    def capture(self, launches: Callable[[], None]) -> Callable[[], None]:
        """See `Device`."""
        self._captured = recorded = []
        try:
            launches()
        finally:
            self._captured = None
        # As a graph has them, by address: it keeps no buffer of the states.
        recorded = [tuple(map(_held, each)) for each in recorded]

        def replay() -> None:
            self.replays += 1
            for each in recorded:
                self._launch(*each)

        return replay

    def has_nccl(self) -> bool:
        """See `Device`."""
        return False

    def unique_id(self) -> bytes:
        """See `Device`."""
        raise DeviceLost("it has no NCCL")

    def join(self, unique_id: bytes, size: int, rank: int) -> PeerGroup:  # noqa: ARG002
        """See `Device`."""
        raise DeviceLost("it has no NCCL")

    def skip_barrier(self, file: str, line: int) -> None:
        """Leave one barrier of the kernels out from now on; line 0: none."""
        self._library.skip_barrier(file.encode(), ctypes.c_int(line))

    def tally(self) -> dict[str, Requests]:
        """Accesses since the last call, by kind."""
        array = np.zeros(12, np.uint64)
        self._library.read_tally(ctypes.c_void_p(array.ctypes.data))
        names = ("global load", "global store", "shared load", "shared store")
        return {name: Requests(*array[k::4].tolist()) for k, name in enumerate(names)}


def _held(value: Any) -> Any:
    return _argument(value) if isinstance(value, np.ndarray) else value


def _argument(value: Any) -> Any:
    if isinstance(value, ctypes.c_void_p):
        return value
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    types = {np.int32: ctypes.c_int, np.uint64: ctypes.c_uint64, np.float64: ctypes.c_double}
    return types[type(value)](value.item())
