"""Device by CuPy: the only module that imports cupy, as allocator and launcher of kernels.

No arithmetic of cupy's arrays is used, so only the kernels of this package are compiled.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime
from cupy.cuda.memory import OutOfMemoryError
from numpy.typing import DTypeLike, NDArray

from simulators.catalog.costs import RESERVED_BYTES
from simulators.compiler import folder as folders
from simulators.errors import DeviceLost, OutOfMemory
from simulators.gpu.devices.detect import require_gpu
from simulators.gpu.devices.device import Buffer
from simulators.gpu.devices.nvrtc import cached_cubin, load_nvrtc, module_of

_POOLED_BYTES = 1 << 26  # smaller buffers are pooled: freeing waits for the device
_DEFAULT_SHARED_BYTES = 48 * 2**10  # a larger size must be requested
# Held from their copy to the launch: CuPy has one module of a file for all devices of a process.
_CONSTANTS = threading.Lock()


class CupyDevice:
    """First GPU that CUDA shows to this process. Its threads may use it in turn."""

    def __init__(self, folder: Path | None = None) -> None:
        """Open the device. `folder`: of compiled kernels; None: that of `warmup.prepare`, or a
        temporary one."""
        with _mapped_errors():
            device = cupy.cuda.Device(0)
            text = str(device.compute_capability)
            self.capability = (int(text[:-1]), int(text[-1]))
            self.name = str(runtime.getDeviceProperties(0)["name"].decode())
            # Instances of one GPU (MIG) have one address and are visible by different names.
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
            self.location = f"{runtime.deviceGetPCIBusId(0)} {visible}"
        self._folder = folder or folders.chosen()
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="simenv-gpu-")
            self._folder = Path(self._temporary.name)
        self._modules: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}
        self._can_capture = True

    def __repr__(self) -> str:
        return f"CupyDevice({self.name!r}, {self.free_bytes / 2**30:.1f} GiB free)"

    @property
    def free_bytes(self) -> int:
        with _mapped_errors():
            free, _ = runtime.memGetInfo()
        return max(0, int(free) - RESERVED_BYTES)

    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        """Allocate as `Device.empty`. A large buffer is freed at once when it is dropped."""
        with _mapped_errors():
            if count * np.dtype(dtype).itemsize < _POOLED_BYTES:
                return cupy.empty(count, dtype)
            with cupy.cuda.using_allocator(None):
                return cupy.empty(count, dtype)

    def upload(self, array: NDArray[Any]) -> Buffer:
        result = self.empty(array.size, array.dtype)
        self.write(array, result)
        return result

    def write(self, array: NDArray[Any], buffer: Buffer) -> None:
        with _mapped_errors():
            buffer.set(np.ascontiguousarray(array).ravel())

    def address(self, buffer: Buffer) -> int:
        return int(buffer.data.ptr)

    def download(self, buffer: Buffer) -> NDArray[Any]:
        with _mapped_errors():
            return np.asarray(cupy.asnumpy(buffer))

    def download_bytes(self, buffer: Buffer) -> bytes:
        """See `Device`. The memory of new bytes, which nobody has yet, is the target of the copy: a
        second copy would take as long as the first."""
        result = bytes(buffer.nbytes)
        with _mapped_errors():
            buffer.data.copy_to_host(np.frombuffer(result, np.uint8).ctypes.data, buffer.nbytes)
        return result

    def copy(self, source: Buffer, target: Buffer) -> None:
        with _mapped_errors():
            target.data.copy_from_device(source.data, source.nbytes)

    def launch(
        self, kernel: str, grid: int, threads: int, shared_bytes: int, *arguments: Any,
        constants: Sequence[Buffer] = (),
    ) -> None:  # fmt: skip
        with _mapped_errors():
            function = self._function(kernel)
            if shared_bytes > max(_DEFAULT_SHARED_BYTES, function.max_dynamic_shared_size_bytes):
                function.max_dynamic_shared_size_bytes = shared_bytes
            with _CONSTANTS if constants else nullcontext():
                self._write_constants(kernel, constants)
                function((grid,), (threads,), arguments, shared_mem=shared_bytes)

    def _write_constants(self, kernel: str, sources: Sequence[Buffer]) -> None:
        if sources and kernel not in self._constants:
            self._constants[kernel] = self._module(kernel).get_global("PASS")
        end = 0
        for source in sources:
            target = self._constants[kernel] + end
            target.copy_from_device_async(
                source.data, source.nbytes, cupy.cuda.get_current_stream()
            )
            end += source.nbytes

    def capture(self, launches: Callable[[], None]) -> Callable[[], None] | None:
        """Record a CUDA graph, see `Device.capture`. After a failure none is tried again: launches
        report an error of the device itself."""
        if not self._can_capture:
            return None
        try:
            with cupy.cuda.Stream(non_blocking=True) as stream:
                stream.begin_capture()
                try:
                    launches()
                finally:
                    graph = stream.end_capture()
        except (DeviceLost, RuntimeError):
            self._can_capture = False
            return None

        def replay() -> None:
            with _mapped_errors():
                graph.launch()

        return replay

    def has_nccl(self) -> bool:
        """See `Device`. A group of this process alone is joined and left: an error of one rank
        among others would leave these waiting in `join`."""
        nccl = _nccl()
        try:
            if nccl.available:
                nccl.NcclCommunicator(1, nccl.get_unique_id(), 0).destroy()
        except RuntimeError:
            return False
        return bool(nccl.available)

    def unique_id(self) -> bytes:
        with _mapped_errors():
            return bytes(_nccl().get_unique_id())

    def join(self, unique_id: bytes, size: int, rank: int) -> NcclGroup:
        with _mapped_errors():
            return NcclGroup(_nccl().NcclCommunicator(size, unique_id, rank))

    def synchronize(self) -> None:
        """Wait for all launches: for timing."""
        with _mapped_errors():
            runtime.deviceSynchronize()

    def _function(self, kernel: str) -> Any:
        result = self._functions.get(kernel)
        if result is None:
            result = self._functions[kernel] = self._module(kernel).get_function(kernel)
        return result

    def _module(self, kernel: str) -> Any:
        name = module_of(kernel)
        if name not in self._modules:
            assert self._folder is not None
            path = cached_cubin(self._folder, name, self.capability, load_nvrtc())
            self._modules[name] = cupy.RawModule(path=str(path))
        return self._modules[name]


class NcclGroup:
    """Transport by NCCL, see `PeerGroup`."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def sendrecv(self, sent: Buffer, received: Buffer, partner: int) -> None:
        nccl, stream = _nccl(), cupy.cuda.get_current_stream().ptr
        with _mapped_errors():
            nccl.groupStart()
            self._communicator.send(sent.data.ptr, sent.nbytes, nccl.NCCL_UINT8, partner, stream)
            self._communicator.recv(
                received.data.ptr, received.nbytes, nccl.NCCL_UINT8, partner, stream
            )
            nccl.groupEnd()

    def close(self) -> None:
        self._communicator.destroy()


@functools.cache
def _nccl() -> Any:
    """CuPy's module of NCCL, which warns where the library is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl
    return nccl


def open_device() -> CupyDevice:
    """Open the GPU of this process. Raises UnknownEngine if no GPU can be used."""
    require_gpu()
    return CupyDevice()


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """Convert CUDA's errors to those of the engines. After any error but a lack of memory the
    context is unusable."""
    try:
        yield
    except OutOfMemoryError as error:
        raise OutOfMemory(str(error), hint="take fewer qubits, or precision 'single'") from error
    except RuntimeError as error:  # of the runtime, the driver or NCCL
        hint = "start the process again: its CUDA context is lost"
        raise DeviceLost(f"the GPU failed: {error}", hint=hint) from error
