"""Device protocol and memory ledger: all that the engine asks of a GPU.

A device allocates, copies and launches kernels by name; it does no arithmetic of its own.
Everything above it runs unchanged on a device whose kernels are compiled for the processor, so it
is tested on machines without a GPU.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.errors import OutOfMemory

Buffer = Any  # numbers in a device's memory: its device alone knows where

COMPLEX: dict[str, np.dtype[Any]] = {
    "double": np.dtype(np.complex128),
    "single": np.dtype(np.complex64),
}
REAL: dict[str, np.dtype[Any]] = {
    "double": np.dtype(np.float64),
    "single": np.dtype(np.float32),
}


class Device(Protocol):
    """One GPU, used by one thread. Methods raise `DeviceLost` once the device cannot go on."""

    @property
    def name(self) -> str:
        """Model of the device."""

    @property
    def free_bytes(self) -> int:
        """Memory that can be allocated now, in bytes."""

    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        """Allocate `count` numbers, which may be anything. Raises OutOfMemory."""

    def upload(self, array: NDArray[Any]) -> Buffer:
        """A copy of an array on the device. Raises OutOfMemory."""

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """A copy of a buffer in host memory, after all launches before."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy a buffer into another one of the same size."""

    def launch(
        self, kernel: str, grid: int, threads: int, shared_bytes: int, *arguments: Any
    ) -> None:
        """Start `grid` blocks of `threads` threads. `arguments`: buffers and numpy scalars, of the
        types of the kernel's parameters. Launches run in order; none is waited for."""


class MemoryLedger:
    """Bytes of a device's states. A state is refused before it is allocated, with what fits."""

    def __init__(self, capacity_bytes: int, device: str) -> None:
        """`capacity_bytes`: of the device, for states."""
        self.capacity_bytes = capacity_bytes
        self.reserved_bytes = 0
        self._device = device

    def __repr__(self) -> str:
        return (
            f"MemoryLedger({self.reserved_bytes / 2**30:.2f} of"
            f" {self.capacity_bytes / 2**30:.2f} GiB on {self._device})"
        )

    def reserve(self, num_bytes: int, text: str) -> None:
        """Count the bytes of a state as taken; `text` names it. Raises OutOfMemory."""
        left = self.capacity_bytes - self.reserved_bytes
        if num_bytes > left:
            raise OutOfMemory(
                f"{text} needs {num_bytes / 2**30:,.2f} GiB; {self._device} has"
                f" {left / 2**30:,.2f} GiB free of {self.capacity_bytes / 2**30:,.2f}",
                hint=self._way_out(num_bytes),
            )
        self.reserved_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        """Give the bytes of a state back."""
        self.reserved_bytes -= num_bytes

    def _way_out(self, num_bytes: int) -> str:
        if num_bytes > self.capacity_bytes:
            widths = [f"{self.largest_width(name)} in {name}" for name in ("double", "single")]
            return (
                f"the largest state that fits has {' or '.join(widths)} precision; or take"
                " engine='statevector', in the memory of the processor"
            )
        return "several states are held at once: ask for fewer branches (memory_bytes)"

    def largest_width(self, precision: str) -> int:
        """Qubits of the largest state that fits into an empty device."""
        return max(0, (self.capacity_bytes // COMPLEX[precision].itemsize).bit_length() - 1)
