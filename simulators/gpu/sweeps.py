"""Sweeps on a GPU: states, launches of programs, and their cache."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.gpu.devices.device import COMPLEX, REAL, Buffer, Device, MemoryLedger
from simulators.gpu.programs import SweepProgram, encode_sweeps
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.planning.tables import SweepTable

# Launches of sweep programs over the states of a device.

_ALL = (1 << 64) - 1
_THREADS, _WARP = 256, 32  # threads of a block: units are powers of two


class DeviceState:
    """Amplitudes of `count` states of one width, 2**num_qubits each, one state after the other.
    `live`: mask of the wires that may be 1 in an amplitude that is not 0. Memory outside is not
    written: `settle` clears it before other kernels than sweeps read the state."""

    def __init__(
        self,
        device: Device,
        ledger: MemoryLedger,
        num_qubits: int,
        precision: str,
        count: int = 1,
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


Numbers = tuple[Buffer, Buffer]


class SweepGraph(msgspec.Struct, frozen=True, eq=False):
    """Launches of all passes over one state, recorded. `numbers`: the buffers that they read."""

    numbers: Numbers
    replay: Callable[[], None]


# Address and number of the states, their stride in the numbers, wires that may be 1 at the start.
_GraphKey = tuple[int, int, int, int]


class UploadedProgram(msgspec.Struct, frozen=True, eq=False):
    """`graphs`: None where a program has run once. A graph has the address of a state's amplitudes
    but does not own them: it is replayed only for a state that has this address."""

    program: SweepProgram
    code: tuple[Buffer, ...]  # code of each pass
    terms: Buffer
    graphs: dict[_GraphKey, SweepGraph | None] = {}


def upload_program(device: Device, program: SweepProgram) -> UploadedProgram:
    """Copy a program to the device. Raises OutOfMemory."""
    buffers = tuple(device.upload(each.code) for each in program.passes)
    return UploadedProgram(program, buffers, device.upload(program.terms))


GRAPH_AMPLITUDES = 1 << 22  # of wider states a pass takes longer than its launch
_GRAPH_PASSES = 1 << 12  # a stop waits for the end of a replay: some 0.2 s at most
_MOST_GRAPHS = 16  # of a program, the oldest evicted
_GRAPH_BYTES = 1 << 20  # a graph keeps the numbers: more take longer to copy than launches


def apply_program(
    state: DeviceState,
    uploaded: UploadedProgram,
    floats: NDArray[np.float64],
    pass_done: Callable[[], None],
) -> None:
    """Apply all sweeps. floats: float64 [numbers of the table], or [states, numbers]; `pass_done`
    is called for each pass, and may raise: after its launch, or after all where they are replayed
    from a graph. That is recorded when a program meets the same state for the second time."""
    program, graphs = uploaded.program, uploaded.graphs
    rows = np.atleast_2d(floats)
    if not rows.shape[1]:  # a table without numbers: the kernel reads one
        rows = np.zeros((len(rows), 1))
    values = np.ascontiguousarray(rows[:, program.taken])
    stride = 0 if len(values) == 1 else program.taken.size
    key = (state.device.address(state.buffer), state.count, stride, state.live)
    graph = graphs.get(key)
    numbers = _write_numbers(state, values, None if graph is None else graph.numbers)
    if graph is None and key in graphs:
        graph = _capture(state, uploaded, numbers, stride)
        graphs[key] = graph
    if graph is not None:
        graph.replay()
        state.live = program.passes[-1].live
        for item in program.passes:
            if item.is_last:
                pass_done()
        return
    is_small = state.count << state.num_qubits <= GRAPH_AMPLITUDES and values.nbytes <= _GRAPH_BYTES
    if key not in graphs and is_small and 1 < len(program.passes) <= _GRAPH_PASSES:
        while len(graphs) >= _MOST_GRAPHS:
            del graphs[next(iter(graphs))]
        graphs[key] = None
    _launch_passes(state, uploaded, numbers, stride, pass_done)


def _capture(
    state: DeviceState, uploaded: UploadedProgram, numbers: Numbers, stride: int
) -> SweepGraph | None:
    """Record the launches of all passes; None where the device cannot."""
    live = state.live
    replay = state.device.capture(
        lambda: _launch_passes(state, uploaded, numbers, stride, lambda: None)
    )
    state.live = live  # nothing has run yet
    return None if replay is None else SweepGraph(numbers, replay)


def _write_numbers(
    state: DeviceState, values: NDArray[np.float64], into: Numbers | None
) -> Numbers:
    """Copy the numbers to the device, in the precision of the states and in double precision.
    `into`: buffers of a graph; None: new ones."""
    device = state.device
    entries = [values.ravel()]
    if state.precision == "single":
        entries.insert(0, values.astype(REAL["single"]).ravel())
    if into is None:
        buffers = [device.upload(each) for each in entries]
        return buffers[0], buffers[-1]
    for each, buffer in zip(entries, into, strict=False):  # of double precision both are one
        device.write(each, buffer)
    return into


def _launch_passes(
    state: DeviceState,
    uploaded: UploadedProgram,
    numbers: Numbers,
    stride: int,
    pass_done: Callable[[], None],
) -> None:
    device, program = state.device, uploaded.program
    kernel = f"sweep_{'batch_' if state.count > 1 else ''}{program.precision}"
    for item, buffer in zip(program.passes, uploaded.code, strict=True):
        constants = [buffer]
        if state.count == 1 and item.matrices.stop > item.matrices.start:
            constants.append(numbers[0][item.matrices])
        device.launch(
            kernel, state.count << item.tile_bits, program.threads, program.shared_bytes,
            state.buffer, uploaded.terms, *numbers, np.uint64(state.live & _ALL),
            np.uint64(1 << state.num_qubits), np.uint64(stride), constants=constants,
        )  # fmt: skip
        state.live = item.live
        if item.is_last:
            pass_done()


# Cache of the sweep programs of a device, by segment.

_MOST = 256  # cached programs, the oldest evicted: some 10 kB each


class ProgramStore:
    """Cache of uploaded programs, by the identity of a segment: plans are cached above."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._made: dict[tuple[object, ...], tuple[SegmentPlan, UploadedProgram]] = {}

    def sweeps(
        self,
        segment: SegmentPlan,
        precision: str,
        leg: tuple[object, ...] = (),
        table: Callable[[], SweepTable] | None = None,
    ) -> UploadedProgram:
        """Program of a segment's sweeps, or of `table` for a leg of them, made at the first need.
        Raises OutOfMemory."""
        key = (id(segment), precision, leg)
        results = self._made.get(key)
        if results is None:  # the cache entry holds the segment, so its id is not used again
            while len(self._made) >= _MOST:
                del self._made[next(iter(self._made))]
            plan = segment.sweeps if table is None else table()
            program = encode_sweeps(plan, precision)
            results = self._made[key] = (segment, upload_program(self._device, program))
        return results[1]
