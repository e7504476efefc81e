"""Device protocol and memory ledger: the engine's interface to a GPU.

A device allocates, copies and launches kernels by name; it does no arithmetic of its own. The code
above it runs unchanged on a device whose kernels are compiled for the processor, so it is tested on
machines without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.errors import OutOfMemory

Buffer = Any  # array in a device's memory; opaque to other code

COMPLEX: dict[str, np.dtype[Any]] = {
    "double": np.dtype(np.complex128),
    "single": np.dtype(np.complex64),
}
NCCL_ID_BYTES = 128
REAL: dict[str, np.dtype[Any]] = {"double": np.dtype(np.float64), "single": np.dtype(np.float32)}


class Device(Protocol):
    """One GPU, used by one thread. Methods raise `DeviceLost` after the device has failed."""

    @property
    def name(self) -> str:
        """Model of the device."""

    @property
    def location(self) -> str:
        """Identity of the GPU in its machine; "" if no other process can have it."""

    @property
    def free_bytes(self) -> int:
        """Memory that can be allocated now, in bytes."""

    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        """Allocate `count` numbers with undefined values. Raises OutOfMemory."""

    def upload(self, array: NDArray[Any]) -> Buffer:
        """Copy an array to the device. Raises OutOfMemory."""

    def write(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy an array into a buffer of its size and type, after all earlier launches."""

    def address(self, buffer: Buffer) -> int:
        """Address of a buffer, which no other one has at the same time."""

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """Copy a buffer to host memory, after all earlier launches."""

    def download_bytes(self, buffer: Buffer) -> bytes:
        """Copy a buffer to host memory as bytes, after all earlier launches."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy a buffer into another one of the same size."""

    def launch(
        self, kernel: str, grid: int, threads: int, shared_bytes: int, *arguments: Any,
        constants: Sequence[Buffer] = (),
    ) -> None:  # fmt: skip
        """Start `grid` blocks of `threads` threads. `arguments`: buffers and numpy scalars, of the
        types of the kernel's parameters; `constants`: copied before it, one after the other, to the
        begin of PASS in the constant memory of the kernel's module. Launches run in order, each
        with its own constants, whichever threads they come from; the call does not wait."""

    def capture(self, launches: Callable[[], None]) -> Callable[[], None] | None:
        """Record the launches of a call as a graph, without starting them. Return a function that
        starts them all in this order, with what is in their buffers then; None if the device
        cannot. `launches` does nothing else with the device."""

    def has_nccl(self) -> bool:
        """Whether buffers can go to the GPUs of other processes without the memory of the host."""

    def unique_id(self) -> bytes:
        """Identifier of a new group of such processes, NCCL_ID_BYTES. Raises DeviceLost."""

    def join(self, unique_id: bytes, size: int, rank: int) -> PeerGroup:
        """Join a group as the process `rank` of `size`, which all call it. Raises DeviceLost."""


class PeerGroup(Protocol):
    """Processes with a GPU each, and transport between these."""

    def sendrecv(self, sent: Buffer, received: Buffer, partner: int) -> None:
        """Exchange buffers of one size with a process that calls this at the same time. The call
        does not wait: launches run in order. Raises DeviceLost."""

    def close(self) -> None:
        """Leave the group."""


class MemoryLedger:
    """Ledger of the bytes of a device's states. A state is refused before it is allocated; the
    error states the width that fits."""

    def __init__(self, capacity_bytes: int, device: str) -> None:
        """Set up. `capacity_bytes`: of the device, for states."""
        self.capacity_bytes = capacity_bytes
        self.reserved_bytes = 0
        self._device = device

    def __repr__(self) -> str:
        return (
            f"MemoryLedger({self.reserved_bytes / 2**30:.2f} of"
            f" {self.capacity_bytes / 2**30:.2f} GiB on {self._device})"
        )

    def reserve(self, num_bytes: int, text: str) -> None:
        """Reserve the bytes of a state; `text` names it. Raises OutOfMemory."""
        left = self.capacity_bytes - self.reserved_bytes
        if num_bytes > left:
            text = f"{text} needs {num_bytes / 2**30:,.2f} GiB; {self._device} has"
            text += f" {left / 2**30:,.2f} GiB free of {self.capacity_bytes / 2**30:,.2f}"
            raise OutOfMemory(text, hint=self._way_out(num_bytes))
        self.reserved_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
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
