"""Backend of states on one GPU; see `statevector.backend.protocol`."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.circuit.ir import Circuit
from simulators.control import RunControl
from simulators.engine import PauliSum, RunOptions
from simulators.errors import Unsupported
from simulators.gpu import reductions
from simulators.gpu.devices.protocol import COMPLEX, Device, MemoryLedger
from simulators.gpu.gradients import DeviceAdjoint, apply_strings
from simulators.gpu.programs import ProgramStore
from simulators.gpu.small_states import apply_gate_list
from simulators.gpu.sweeps import DeviceState, apply_program
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.protocol import (
    Amplitudes,
    CompiledSegment,
    Ensemble,
    GradientFunction,
)
from simulators.statevector.backend.sampling import ROUNDING_FLOOR
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.dynamic.ensemble import SeparateStates
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BLOCK_QUBITS

MAX_MATRIX_QUBITS = 12  # widest matrix that is not fused: its amplitudes are in shared memory
_GROUP_BITS = 8  # log2 of the least amplitudes of a block of threads


class DeviceBackend:
    """A `StateBackend` whose states are `DeviceState`s. Stops come between launches."""

    is_root = True

    def __init__(
        self, device: Device, ledger: MemoryLedger, programs: ProgramStore, control: RunControl
    ) -> None:
        self._device = device
        self._ledger = ledger
        self._programs = programs
        self._control = control
        self.check = control.check
        self.add_sweeps = control.add_sweeps

    def for_width(self, _num_qubits: int) -> DeviceBackend:
        """See `StateBackend`."""
        return self

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Number of states that fit into the free memory of the device, and into
        `options.memory_bytes` if given."""
        left = self._ledger.capacity_bytes - self._ledger.reserved_bytes
        room = min(left, options.memory_bytes or left)
        return max(1, room // state_bytes(num_qubits, options.precision))

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> DeviceState:
        """Prepare |0...0>, see `StateBackend`; no state of an earlier attempt is used."""
        del way
        state = DeviceState(self._device, self._ledger, num_qubits, options.precision)
        state.set_zero()
        return state

    def copy(self, state: DeviceState) -> DeviceState:
        """See `StateBackend`."""
        result = self.empty_like(state)
        self.copy_into(state, result)
        return result

    def copy_into(self, state: DeviceState, target: DeviceState) -> None:
        """Copy `state` into `target`."""
        self._device.copy(state.settle(), target.buffer)
        target.overwrite()

    def invert(self, state: DeviceState, target: DeviceState, qubits: int) -> None:
        """Set `target` to X on each of these qubits, a mask, applied to `state`."""
        self.check()
        apply_strings(state, target, [(qubits, 0)], np.ones(1, np.complex128))

    def empty_like(self, state: DeviceState) -> DeviceState:
        """See `StateBackend`."""
        return DeviceState(self._device, self._ledger, state.num_qubits, state.precision)

    def ensemble(self, num_qubits: int, options: RunOptions, *, branching: bool) -> Ensemble:  # noqa: ARG002  # see `StateBackend`
        """See `StateBackend`."""
        return SeparateStates(self, num_qubits, options)

    def apply(
        self, state: DeviceState, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        """See `StateBackend`."""
        self.check()
        if isinstance(segment, GateList):
            apply_gate_list(state, segment, floats)
            return
        program = self._programs.sweeps(cast("SegmentPlan", segment), state.precision)
        apply_program(state, program, floats, self.pass_done)

    def multiply(self, state: DeviceState, matrix: PlacedMatrix) -> None:
        """See `StateBackend`."""
        self.check()
        multiply(state, matrix)
        self._control.sweeps_done()

    def block_sums(
        self,
        what: int,
        state: DeviceState,
        other: DeviceState | None = None,
        *,
        qubit: int = 0,
        turn: complex = 1.0,
    ) -> NDArray[np.float64]:
        """See `StateBackend`."""
        self.check()
        return reductions.block_sums(what, state, other, qubit=qubit, turn=turn)

    def project(
        self,
        state: DeviceState,
        into: DeviceState,
        *,
        qubit: int,
        outcome: int,
        factor: float,
        move: bool,
    ) -> None:
        """See `StateBackend`."""
        self.check()
        source = state.settle()
        into.overwrite()
        pairs = 1 << (state.num_qubits - 1)
        state.launch(
            "project",
            pairs,
            source,
            into.buffer,
            np.uint64(pairs),
            np.int32(qubit),
            np.int32(outcome),
            np.float64(factor),
            np.int32(move),
        )

    def locate_samples(
        self,
        state: DeviceState,
        edges: NDArray[np.float64],
        begins: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """See `StateBackend`."""
        self.check()
        return reductions.locate_samples(state, edges, begins, draws)

    def distribution(
        self, state: DeviceState, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `StateBackend`."""
        self.check()
        table = reductions.outcome_weights(state, wires)
        values = np.flatnonzero(table > ROUNDING_FLOOR[state.precision])
        return values, table[values]

    def expectations(
        self, state: DeviceState, strings: list[tuple[int, int]]
    ) -> NDArray[np.float64]:
        """See `StateBackend`."""
        values: NDArray[np.float64] = reductions.expectations(state, strings, self.check)[0]
        return values

    def gather_statevector(self, state: DeviceState) -> Amplitudes:
        """See `StateBackend`."""
        result: Amplitudes = self._device.download(state.settle())
        return result

    def amplitudes(self, state: DeviceState, indices: NDArray[np.int64]) -> Amplitudes:
        """See `StateBackend`. Blocks with a requested amplitude are copied to the host, one by
        one."""
        buffer, size = state.settle(), 1 << min(BLOCK_QUBITS, state.num_qubits)
        result = np.empty(indices.size, COMPLEX[state.precision])
        order = np.argsort(indices, kind="stable")
        blocks, begins = np.unique(indices[order] // size, return_index=True)
        for block, members in zip(blocks.tolist(), np.split(order, begins[1:]), strict=True):
            self.check()
            part = self._device.download(buffer[block * size : (block + 1) * size])
            result[members] = part[indices[members] % size]
        return result

    def plan_gradients(
        self, circuit: Circuit, params: NDArray[np.float64], observables: tuple[PauliSum, ...]
    ) -> GradientFunction:
        """See `StateBackend`."""
        plan = DeviceAdjoint(circuit, params, self.pass_done, multiply)
        self.add_sweeps(plan.num_sweeps * len(observables))

        def gradients(state: DeviceState, keep: bool) -> NDArray[np.float64]:
            other = self.empty_like(state)
            result = np.zeros((len(observables), circuit.num_slots))
            for number, item in enumerate(observables):
                is_last = number == len(observables) - 1
                moving = state if is_last and not keep else self.copy(state)
                result[number] = plan.gradient(moving, other, item)
            return result

        return gradients

    def pass_done(self) -> None:
        """Count a sweep. Raises Stopped."""
        self._control.sweeps_done()
        self.check()


def multiply(state: DeviceState, matrix: PlacedMatrix) -> None:
    """Apply a matrix to a state. Raises Unsupported for more than MAX_MATRIX_QUBITS qubits."""
    qubits = matrix.wires.size
    if qubits > MAX_MATRIX_QUBITS:
        raise Unsupported(
            f"a matrix on {qubits} qubits; engine 'gpu' takes {MAX_MATRIX_QUBITS}",
            hint="engine='statevector' runs it, or decompose it",
        )
    device, size = state.device, 1 << qubits
    columns = matrix.columns.reshape(size, 2, size)
    rows = np.ascontiguousarray((columns[:, 0] + 1j * columns[:, 1]).T)
    group_bits = max(0, min(_GROUP_BITS, state.num_qubits) - qubits)
    buffer = state.settle()
    blocks = 1 << (state.num_qubits - qubits - group_bits)
    device.launch(
        f"dense_{state.precision}",
        blocks,
        1 << _GROUP_BITS,
        rows.itemsize << (qubits + group_bits),
        buffer,
        np.int32(qubits),
        np.uint64(sum(1 << wire for wire in matrix.wires.tolist())),
        device.upload(matrix.offsets.astype(np.uint64)),
        device.upload(rows.view(np.float64).ravel()),
        np.int32(group_bits),
    )
