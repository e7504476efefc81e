"""Launches of sweep programs over the states of a device."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.gpu.devices.protocol import COMPLEX, REAL, Buffer, Device, MemoryLedger
from simulators.gpu.encode import SweepProgram

_ALL = (1 << 64) - 1
_THREADS, _WARP = 256, 32  # threads of a block: units are powers of two


class DeviceState:
    """Amplitudes of `count` states of one width, 2**num_qubits each, one state after the other.

    `live`: mask of the wires that may be 1 in an amplitude that is not 0. Memory outside is not
    written: `settle` clears it before other kernels than sweeps read the state.
    """

    def __init__(
        self, device: Device, ledger: MemoryLedger, num_qubits: int, precision: str, count: int = 1
    ) -> None:
        """Allocate amplitudes with undefined values. Raises OutOfMemory."""
        size = count << num_qubits
        num_bytes = size * COMPLEX[precision].itemsize
        text = f"a state of {num_qubits} qubits in {precision} precision"
        ledger.reserve(num_bytes, text if count == 1 else f"{count} times {text}")
        weakref.finalize(self, ledger.release, num_bytes).atexit = False
        self.device = device
        self.num_qubits = num_qubits
        self.precision = precision
        self.count = count
        self.live = _ALL
        self.buffer: Buffer = device.empty(size, COMPLEX[precision])

    def launch(self, kernel: str, units: int, *arguments: object, shared_bytes: int = 0) -> None:
        """Launch a kernel of this precision with a thread for each of `units`."""
        threads = min(_THREADS, max(_WARP, units))
        name = f"{kernel}_{self.precision}"
        self.device.launch(name, -(-units // threads), threads, shared_bytes, *arguments)

    def set_zero(self) -> None:
        """Set the state to |0...0>, as far as sweeps read it."""
        name = f"set_zero_{self.precision}"
        stride = np.uint64(1 << self.num_qubits)
        self.device.launch(name, self.count, _WARP, 0, self.buffer, stride, np.uint64(1))
        self.live = 0

    def overwrite(self) -> None:
        """Note that all amplitudes are written."""
        self.live = _ALL

    def settle(self) -> Buffer:
        """Return the amplitudes after clearing the unwritten ones."""
        everything = (1 << self.num_qubits) - 1
        if self.live & everything != everything:
            size = self.count << self.num_qubits
            live = self.live | ~everything & _ALL
            self.launch("clear_outside", size, self.buffer, np.uint64(size), np.uint64(live))
        self.live = _ALL
        return self.buffer


class UploadedProgram(msgspec.Struct, frozen=True, eq=False):
    """Sweep program in the memory of a device."""

    program: SweepProgram
    code: tuple[Buffer, ...]  # code of each pass
    terms: Buffer


def upload_program(device: Device, program: SweepProgram) -> UploadedProgram:
    """Copy a program to the device. Raises OutOfMemory."""
    buffers = tuple(device.upload(each.code) for each in program.passes)
    return UploadedProgram(program, buffers, device.upload(program.terms))


def apply_program(
    state: DeviceState,
    uploaded: UploadedProgram,
    floats: NDArray[np.float64],
    pass_done: Callable[[], None],
) -> None:
    """Apply all sweeps. floats: float64 [numbers of the table], or [states, numbers]; `pass_done`
    is called after each launch, and may raise."""
    device, program = state.device, uploaded.program
    rows = np.atleast_2d(floats)
    if not rows.shape[1]:  # a table without numbers: the kernel reads one
        rows = np.zeros((len(rows), 1))
    values = np.ascontiguousarray(rows[:, program.taken])
    stride = 0 if len(values) == 1 else program.taken.size
    exact = device.upload(values.ravel())
    rounded = exact
    if program.precision == "single":
        rounded = device.upload(values.astype(REAL["single"]).ravel())
    for item, buffer in zip(program.passes, uploaded.code, strict=True):
        device.launch(
            f"sweep_{program.precision}",
            state.count << item.tile_bits,
            program.threads,
            program.shared_bytes,
            state.buffer,
            buffer,
            uploaded.terms,
            rounded,
            exact,
            np.uint64(state.live & _ALL),
            np.uint64(1 << state.num_qubits),
            np.uint64(stride),
        )
        state.live = item.live
        pass_done()
