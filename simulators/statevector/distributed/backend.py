"""Backend for states distributed over MPI ranks: each rank holds an equal slice.

A global qubit (a bit of the rank number) is exchanged with a local one that is not needed soon,
when a gate moves amplitude along it; phases and controls act on global qubits in place. Block sums
are broadcast, so all ranks decide alike. Kernels are those of one process, on the slice.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.catalog.costs import ranks_used
from simulators.engine import RunOptions
from simulators.statevector.backend import matrix, protocol, reductions
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.checkpoint import Checkpointer, Evolution
from simulators.statevector.distributed import executor, gather
from simulators.statevector.distributed.qubit_layout import Layout, StateSlice, swap_local
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, State


class DistributedBackend(gather.RankBackend[StateSlice]):
    """A `StateBackend` whose states are `StateSlice`s."""

    def __init__(
        self,
        agreement: executor.ErrorAgreement,
        local: LocalBackend,
        neighbours: int,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        """Set up. `neighbours`: ranks of this run on this machine with this one. `checkpointer`:
        checkpoints of the run."""
        super().__init__(agreement, local)
        self._local = local
        self._sweeper = local.sweeper
        self._neighbours = neighbours
        self._opened_exchange: executor.Exchange | None = None
        self._pass: executor.DistributedExecutor | None = None
        self._checkpointer = checkpointer or Checkpointer()
        self._others: dict[int, DistributedBackend] = {}  # for widths other than the first

    @property
    def traffic(self) -> executor.CommStats:
        """Statistics of the exchanges so far."""
        result = self._passing.traffic if self._pass is not None else executor.CommStats()
        for other in self._others.values():
            result = result.plus(other.traffic, self._agreement.waited_cpu_s)
        return result

    def for_width(self, num_qubits: int) -> protocol.StateBackend:
        if ranks_used(num_qubits, self._agreement.size) < self._agreement.size:
            return self._local
        if num_qubits not in self._others:
            self._others[num_qubits] = DistributedBackend(
                self._agreement, self._local, self._neighbours, self._checkpointer
            )
        return self._others[num_qubits]

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Number of states that fit into the rank with the least memory."""
        room = options.memory_bytes or PHYSICAL_BYTES // (4 * self._neighbours)
        share = state_bytes(num_qubits - self._divided, options.precision)
        return max(1, self._agreement.allreduce_min(room // share))

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> State:
        layout = Layout(num_qubits, num_qubits - self._divided)
        share = StateSlice.empty_handed(layout, self._agreement.rank, self._neighbours, options)
        if self._opened_exchange is None:
            self._opened_exchange = executor.Exchange(
                self._agreement, layout.num_local, share.dtype
            )
            self._pass = executor.DistributedExecutor(
                self._agreement, self._opened_exchange, self._sweeper, self._checkpointer
            )
        if self.is_root:
            share.begin()
        self._agreement.meet()
        self._checkpointer.begin(way)
        positions = None
        if self._checkpointer.is_kept:
            positions = self._checkpointer.restore(share.amplitudes)
        share.fresh = positions is None
        layout.become(positions or layout.positions)
        return share

    def copy(self, state: State) -> State:
        return self._like(state, self._local.copy(state))

    def empty_like(self, state: State) -> State:
        return self._like(state, self._local.empty_like(state))

    def apply(
        self, state: State, segment: protocol.CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        self._passing(cast("StateSlice", state), cast("SegmentPlan", segment).sweeps, floats)

    def multiply(self, state: State, matrix: PlacedMatrix) -> None:
        share = cast("StateSlice", state)
        if self._checkpointer.skip_done(1):
            self._sweeper.passed(1)
            return
        self._local.multiply(share, self._made_local(share, matrix))
        self._agreement.meet()
        self._checkpointer.sweep_done(share.amplitudes, share.layout.positions)

    def block_sums(
        self, item: reductions.BlockSum, state: State, other: State | None = None
    ) -> NDArray[np.float64]:
        share = self._settled(state)
        if other is not None:
            self._align(cast("StateSlice", other), share.layout)
        mine = self._local.block_sums(item, share, other)
        return self._shared(share, mine)

    def project(
        self, state: State, into: State, item: reductions.Projection, factor: float
    ) -> None:
        share, other = cast("StateSlice", state), cast("StateSlice", into)
        position = self._made_alike(share, other, item.qubit)
        self._local.project(share, other, replace(item, qubit=position), factor)

    def locate_samples(self, state: State, draws: reductions.SortedDraws) -> NDArray[np.int64]:
        share = self._settled(state)
        result, all_ = np.zeros((2, draws.values.size), np.int64)
        reductions.locate_samples(self._sweeper, share, draws, result)
        self._agreement.meet()
        self._agreement.comm.Reduce(result, all_)  # a sum: each draw is located by one rank
        return all_ if self.is_root else result

    def distribution(
        self, state: State, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return gather.distribution(self._agreement, self._sweeper, self._settled(state), wires)

    def expectations(self, state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        share = self._settled(state)
        values = np.empty(len(strings))
        for group in matrix.pauli_groups(strings):
            mine = self._string_sums(share, group)
            values[group.members] = np.cumsum(self._shared(share, mine), axis=0)[-1]
        return values

    def gather_statevector(self, state: State) -> protocol.Amplitudes | None:
        return gather.gathered(self._agreement, self._settled(state))

    def amplitudes(self, state: State, indices: NDArray[np.int64]) -> protocol.Amplitudes | None:
        share = self._settled(state)
        own = share.amplitudes
        return gather.chosen(self._agreement, share.layout, indices, own.dtype, own.__getitem__)

    def _string_sums(self, share: StateSlice, group: matrix.PauliGroup) -> NDArray[np.float64]:
        """Sums of each block of this rank; its partner block may be in another rank."""
        places = share.basis_indices
        sums = np.empty((places.size, group.zs.size))
        flipped = share.layout.placed(group.x)
        partner = share.rank ^ (flipped >> share.num_qubits)
        flip = (flipped & ((1 << share.num_qubits) - 1)) >> BLOCK_QUBITS
        if partner == share.rank:
            matrix.string_sums(self._sweeper, share, share, places, flip, group, sums)
            return sums
        blocks = self._exchange.chunk >> BLOCK_QUBITS
        beyond = flip & ~(blocks - 1)
        for first in range(0, places.size, blocks):
            other = first ^ beyond  # block that the partner needs, and block that it sends
            lent = self._exchange.sendrecv_block(_blocks(share, other, blocks), partner)
            own = State(_blocks(share, first, blocks))
            part = slice(first, first + blocks)
            matrix.string_sums(
                self._sweeper, own, lent, places[part], flip & (blocks - 1), group, sums[part]
            )
        return sums

    def _like(self, state: State, second: State) -> StateSlice:
        self._agreement.meet()
        share = cast("StateSlice", state)
        return StateSlice(second.amplitudes, share.layout.copy(), share.rank)

    @property
    def _exchange(self) -> executor.Exchange:
        if self._opened_exchange is None:
            raise AssertionError("there is no state yet")
        return self._opened_exchange

    @property
    def _passing(self) -> executor.DistributedExecutor:
        if self._pass is None:
            raise AssertionError("there is no state yet")
        return self._pass

    def _settled(self, state: State) -> StateSlice:
        """Slice of the state, after its blocks were made whole."""
        share = cast("StateSlice", state)
        self._settle(share)
        return share

    def _swap_local(self, state: StateSlice, low: int, high: int) -> None:
        state.changed()
        swap_local(self._sweeper, state, low, high)

    def _swap_with_rank(self, state: StateSlice, bit: int, position: int) -> None:
        state.changed()
        self._exchange.swap(state, bit, position)


def _blocks(share: StateSlice, first: int, count: int) -> protocol.Amplitudes:
    return share.amplitudes[first << BLOCK_QUBITS : (first + count) << BLOCK_QUBITS]
