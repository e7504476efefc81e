"""Backend for states distributed over GPUs: each MPI rank has one, with an equal slice.

Sweeps, layouts and the communication schedule are those of `statevector.distributed`; kernels are
those of one GPU, on the slice. Block sums are added in the order of the blocks, in each rank.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from simulators.catalog.costs import ranks_used
from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum, RunOptions
from simulators.errors import Unsupported
from simulators.gpu import reductions
from simulators.gpu.backend import DeviceBackend
from simulators.gpu.devices.protocol import COMPLEX
from simulators.gpu.distributed.exchange import DeviceExchange, DeviceSlice
from simulators.gpu.distributed.programs import RankPrograms
from simulators.gpu.sweeps import apply_program
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.backend.pauli import pauli_groups
from simulators.statevector.backend.protocol import (
    Amplitudes,
    CompiledSegment,
    Ensemble,
    GradientFunction,
    StateBackend,
)
from simulators.statevector.backend.reductions import FINGERPRINT, NORM, QUBIT_WEIGHTS
from simulators.statevector.backend.sampling import ROUNDING_FLOOR
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.distributed import gather
from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.distributed.qubit_layout import Layout, StateSlice, bits
from simulators.statevector.distributed.relocation import QubitRelocation
from simulators.statevector.distributed.remap_schedule import plan_communication
from simulators.statevector.dynamic.ensemble import SeparateStates
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BLOCK_QUBITS

_SWAP = np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]]
_H = np.array([[1, 1], [1, -1]], np.complex128) * np.sqrt(0.5)
_TO_Z = {0: _H, 1: _H @ np.diag([1, -1j])}  # rotations of X and of Y into Z


class DistributedDeviceBackend(QubitRelocation[DeviceSlice]):
    """A `StateBackend` whose states are `DeviceSlice`s."""

    def __init__(self, agreement: ErrorAgreement, local: DeviceBackend) -> None:
        """Set up. `local`: backend of this rank's GPU."""
        self.is_root = agreement.rank == 0
        self.add_sweeps = local.add_sweeps
        self._agreement = agreement
        self._local = local
        self._divided = agreement.size.bit_length() - 1  # qubits that are bits of the rank number
        self._exchange = DeviceExchange(agreement)
        self._programs = RankPrograms(agreement.rank)

    def for_width(self, num_qubits: int) -> StateBackend:
        """See `StateBackend`."""
        is_narrow = ranks_used(num_qubits, self._agreement.size) < self._agreement.size
        return self._local if is_narrow else self

    def check(self) -> None:
        """Check for a stop as `StateBackend.check`: a stop in one rank stops all."""
        self._agreement.meet()

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Number of states that fit into the GPU with the least memory."""
        mine = self._local.max_live_states(num_qubits - self._divided, options)
        return max(1, self._agreement.allreduce_min(mine))

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> DeviceSlice:
        """Prepare |0...0>, see `StateBackend`; no state of an earlier attempt is used."""
        del way
        layout = Layout(num_qubits, num_qubits - self._divided)
        state = self._local.zero_state(layout.num_local, options)
        state.settle()
        if not self.is_root:  # another rank holds the amplitude 1
            self._local.project(state, state, qubit=0, outcome=0, factor=0.0, move=False)
        self._agreement.meet()
        share = DeviceSlice(state, layout, self._agreement.rank)
        share.fresh = True
        return share

    def copy(self, state: DeviceSlice) -> DeviceSlice:
        """See `StateBackend`."""
        result = DeviceSlice(self._local.copy(state.state), state.layout.copy(), state.rank)
        self._agreement.meet()
        return result

    def empty_like(self, state: DeviceSlice) -> DeviceSlice:
        """See `StateBackend`."""
        result = DeviceSlice(self._local.empty_like(state.state), state.layout.copy(), state.rank)
        self._agreement.meet()
        return result

    def ensemble(self, num_qubits: int, options: RunOptions, *, branching: bool) -> Ensemble:  # noqa: ARG002  # see `StateBackend`
        """See `StateBackend`."""
        return SeparateStates(self, num_qubits, options)

    def apply(
        self, state: DeviceSlice, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        """See `StateBackend`."""
        plan, layout = cast("SegmentPlan", segment), state.layout
        communication = plan_communication(
            plan.sweeps, layout.positions, layout.num_local, fresh=state.fresh
        )
        state.fresh = False
        for stage in communication.stages:
            self._agreement.meet()
            pairs = [(remote - layout.num_local, local) for remote, local in stage.pairs]
            self._exchange.exchange_qubits(state, pairs)
            layout.become(stage.positions)
            state.state.settle()
            program = self._programs.of(state, plan, stage)
            apply_program(state.state, program, floats, self._local.pass_done)

    def multiply(self, state: DeviceSlice, matrix: PlacedMatrix) -> None:
        """See `StateBackend`."""
        state.fresh = False
        powers = 1 << np.arange(matrix.wires.size)
        qubits = [int(offset).bit_length() - 1 for offset in matrix.offsets[powers]]
        self._bring(state, sum(1 << qubit for qubit in qubits))
        positions = [state.layout.positions[qubit] for qubit in qubits]
        self._local.multiply(state.state, place(matrix.columns, positions))
        self._agreement.meet()

    def block_sums(
        self,
        what: int,
        state: DeviceSlice,
        other: DeviceSlice | None = None,
        *,
        qubit: int = 0,
        turn: complex = 1.0,
    ) -> NDArray[np.float64]:
        """Compute sums as `StateBackend.block_sums`. A fingerprint is that of each slice by itself,
        in one layout."""
        if what == FINGERPRINT:
            self._align(state, Layout(len(state.layout.qubits), state.layout.num_local))
        self._settle(state)
        if other is not None:
            self._align(other, state.layout)
        partner = None if other is None else other.state
        position = state.layout.positions[qubit]
        if what == QUBIT_WEIGHTS and position >= state.num_qubits:
            norms = self._local.block_sums(NORM, state.state)[:, 0]
            mine = np.zeros((norms.size, 2))
            mine[:, state.rank >> (position - state.num_qubits) & 1] = norms
        else:
            mine = self._local.block_sums(what, state.state, partner, qubit=position, turn=turn)
        return self._shared(state, mine)

    def project(
        self,
        state: DeviceSlice,
        into: DeviceSlice,
        *,
        qubit: int,
        outcome: int,
        factor: float,
        move: bool,
    ) -> None:
        """See `StateBackend`."""
        state.fresh = into.fresh = False
        self._bring(state, 1 << qubit)
        if into is not state:
            into.layout = state.layout.copy()
        position = state.layout.positions[qubit]
        self._local.project(
            state.state, into.state, qubit=position, outcome=outcome, factor=factor, move=move
        )

    def locate_samples(
        self,
        state: DeviceSlice,
        edges: NDArray[np.float64],
        begins: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """See `StateBackend`."""
        self._settle(state)
        block_ids = state.basis_indices
        counts = np.diff(begins)[block_ids]
        ends = np.cumsum(counts)
        mine = np.repeat(begins[:-1][block_ids] - (ends - counts), counts) + np.arange(counts.sum())
        located = reductions.locate_samples(
            state.state, edges[block_ids], np.append(0, ends), draws[mine]
        )
        result, everything = np.zeros(draws.size, np.int64), np.empty(draws.size, np.int64)
        inside = (1 << BLOCK_QUBITS) - 1
        result[mine] = block_ids[located >> BLOCK_QUBITS] << BLOCK_QUBITS | located & inside
        self._agreement.meet()
        # One rank contributes each value.
        self._agreement.comm.Reduce(result, everything, MPI.SUM, 0)
        return everything if self.is_root else result

    def distribution(
        self, state: DeviceSlice, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `StateBackend`."""
        local = wires[gather.local_wires(state, wires)].tolist()
        positions = np.array([state.layout.positions[wire] for wire in local], np.int64)
        mine = np.ascontiguousarray(reductions.outcome_weights(state.state, positions))
        table = gather.whole_distribution(self._agreement, state, wires, mine)
        values = np.flatnonzero(table > ROUNDING_FLOOR[state.state.precision])
        return values, table[values]

    def expectations(
        self, state: DeviceSlice, strings: list[tuple[int, int]]
    ) -> NDArray[np.float64]:
        """See `StateBackend`."""
        values = np.empty(len(strings))
        for group in pauli_groups(strings):
            members = list(group.members)
            values[members] = self._group_values(state, [strings[k] for k in members])
        return values

    def gather_statevector(self, state: DeviceSlice) -> Amplitudes | None:
        """See `StateBackend`."""
        self._settle(state)
        amplitudes = self._local.gather_statevector(state.state)
        return gather.gathered(self._agreement, StateSlice(amplitudes, state.layout, state.rank))

    def amplitudes(self, state: DeviceSlice, indices: NDArray[np.int64]) -> Amplitudes | None:
        """See `StateBackend`."""
        self._settle(state)
        return gather.chosen(
            self._agreement,
            state.layout,
            indices,
            COMPLEX[state.state.precision],
            lambda places: self._local.amplitudes(state.state, places),
        )

    def plan_gradients(
        self, circuit: Circuit, params: NDArray[np.float64], observables: tuple[PauliSum, ...]
    ) -> GradientFunction:
        """Raises Unsupported."""
        del circuit, params, observables
        raise Unsupported("gradients over several ranks", hint="ranks=1, where a GPU holds two")

    def _group_values(self, state: DeviceSlice, strings: list[tuple[int, int]]) -> list[float]:
        """Values of strings with the same x. If more of its qubits are outside of blocks than fit
        into a slice above whole blocks, those are rotated to Z, in a copy."""
        x = strings[0][0]
        wide = list(bits(x >> BLOCK_QUBITS << BLOCK_QUBITS))
        beyond = wide[state.num_qubits - BLOCK_QUBITS :]
        if not beyond:
            return self._values(state, strings)
        return [self._rotated_value(state, x, z, beyond) for _, z in strings]

    def _rotated_value(self, state: DeviceSlice, x: int, z: int, beyond: list[int]) -> float:
        turned = self.copy(state)
        for qubit in beyond:
            matrix = np.ascontiguousarray(_TO_Z[z >> qubit & 1])
            self.multiply(turned, place(by_columns(matrix.tobytes(), 1), [qubit]))
            x, z = x & ~(1 << qubit), z | 1 << qubit
        return self._values(turned, [(x, z)])[0]

    def _values(self, state: DeviceSlice, strings: list[tuple[int, int]]) -> list[float]:
        """Values of strings with the same x. Its qubits are made local above the blocks."""
        self._settle(state)
        self._bring(state, strings[0][0])
        layout, local = state.layout, (1 << state.num_qubits) - 1
        placed = [(layout.placed(x), layout.placed(z)) for x, z in strings]
        (group,) = pauli_groups([(x, z & local) for x, z in placed])
        sums = np.empty((1 << (state.num_qubits - BLOCK_QUBITS), len(strings)))
        sums[:, group.members] = reductions.string_sums(state.state, group)[0]
        signs = [(-1.0) ** (state.rank & z >> state.num_qubits).bit_count() for _, z in placed]
        total = self._shared(state, sums * np.array(signs))
        values: list[float] = np.cumsum(total, axis=0)[-1].tolist()
        return values

    def _swap_local(self, state: DeviceSlice, low: int, high: int) -> None:
        state.fresh = False
        self._local.multiply(state.state, place(by_columns(_SWAP.tobytes(), 2), [low, high]))

    def _swap_with_rank(self, state: DeviceSlice, bit: int, position: int) -> None:
        state.fresh = False
        self._exchange.exchange_qubits(state, [(bit, position)])
