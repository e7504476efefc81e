"""Backend for states distributed over MPI ranks, and the movement of their amplitudes.

Each rank holds an equal slice. A global qubit (a bit of the rank number) is exchanged with a local
one that is not needed soon, when a gate moves amplitude along it; phases and controls act on global
qubits in place. Block sums are broadcast, so all ranks decide alike. Kernels are those of one
process, on the slice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar, cast

import numpy as np
from msgspec.structs import replace
from numpy.typing import DTypeLike, NDArray

from simulators.catalog import state_bytes
from simulators.catalog.costs import ranks_used
from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum, RunOptions
from simulators.errors import OutOfMemory, Unsupported
from simulators.statevector.backend import pauli_sums, protocol, reductions
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.matrix import PlacedMatrix, place
from simulators.statevector.checkpoint import Checkpointer, Evolution
from simulators.statevector.distributed import executor
from simulators.statevector.distributed.executor import ErrorAgreement
from simulators.statevector.distributed.qubit_layout import Layout, StateSlice, swap_local
from simulators.statevector.dynamic.separate_states import SeparateStates
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, State

# Gathering to the root rank: all amplitudes, chosen ones, or the distribution of some qubits.

_MOST = 1 << 18  # numbers of one message


def gathered(agreement: ErrorAgreement, share: StateSlice) -> protocol.Amplitudes | None:
    """Gather all amplitudes in the first rank; blocks must be whole. Raises OutOfMemory."""
    rows = share.amplitudes.reshape(-1, 1 << BLOCK_QUBITS)
    step = _MOST >> BLOCK_QUBITS
    result: protocol.Amplitudes | None = None
    if agreement.rank == 0:
        result = _allocate(agreement, share).reshape(-1, 1 << BLOCK_QUBITS)
        buffer = np.empty_like(rows[:step])
        orders = [share.layout.basis_indices(rank) for rank in range(agreement.size)]
        result[orders[0]] = rows
    agreement.meet()
    if result is None:
        for at in range(0, len(rows), step):
            agreement.comm.Send(rows[at : at + step], 0)
        return None
    for rank in range(1, agreement.size):
        for at in range(0, len(rows), step):
            part = buffer[: min(step, len(rows) - at)]
            agreement.comm.Recv(part, rank)
            result[orders[rank][at : at + step]] = part
    return result.reshape(-1)


def _allocate(agreement: ErrorAgreement, share: StateSlice) -> protocol.Amplitudes:
    need = share.amplitudes.nbytes * agreement.size
    hint = "ask for counts, probabilities of few qubits, or expectation values"
    text = f"the whole statevector of {need / 2**30:,.1f} GiB does not fit into the first rank"
    if need + share.amplitudes.nbytes > PHYSICAL_BYTES:
        raise OutOfMemory(f"{text}; it has {PHYSICAL_BYTES / 2**30:,.1f} GiB", hint=hint)
    try:
        return np.empty(share.amplitudes.size * agreement.size, share.amplitudes.dtype)
    except MemoryError as error:
        raise OutOfMemory(text, hint=hint) from error


def chosen(
    agreement: ErrorAgreement,
    layout: Layout,
    indices: NDArray[np.int64],
    dtype: DTypeLike,
    local: Callable[[NDArray[np.int64]], protocol.Amplitudes],
) -> protocol.Amplitudes | None:
    """Amplitude of each of these basis states, in the first rank; blocks must be whole. `local`:
    amplitudes at positions in this rank's slice."""
    blocks = layout.basis_indices(agreement.rank)
    order = np.argsort(blocks)
    place = np.searchsorted(blocks, indices >> BLOCK_QUBITS, sorter=order)
    own_block = order[np.minimum(place, blocks.size - 1)]
    own = np.flatnonzero(blocks[own_block] == indices >> BLOCK_QUBITS)
    mine = np.zeros(indices.size, dtype)
    within = indices[own] & ((1 << BLOCK_QUBITS) - 1)
    mine[own] = local((own_block[own] << BLOCK_QUBITS) | within)
    result = np.zeros_like(mine)
    agreement.meet()
    agreement.comm.Reduce(mine, result)  # a sum: each amplitude is in one rank
    return result if agreement.rank == 0 else None


class Slice(Protocol):
    """Rank's slice of a state."""

    layout: Layout
    fresh: bool  # |0...0>, in any qubit layout

    @property
    def num_qubits(self) -> int:
        """Qubits of the slice."""


def whole_distribution(
    agreement: ErrorAgreement, share: Slice, wires: NDArray[np.int64], mine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Probability of each value of these qubits, in the first rank: float64 [2**qubits]; empty in
    the others. `mine`: of a rank's slice, for the local ones of the qubits."""
    local, positions = local_wires(share, wires), share.layout.positions
    remote = [(k, positions[wire] - share.num_qubits) for k, wire in enumerate(wires.tolist())]
    table = np.zeros(1 << wires.size if agreement.rank == 0 else 0)
    buffer = np.empty(min(_MOST, mine.size))
    places = np.arange(buffer.size)
    agreement.meet()
    for at in range(0, mine.size, buffer.size):
        part = mine[at : at + buffer.size]
        if agreement.rank:
            agreement.comm.Send(part, 0)
            continue
        for rank in range(agreement.size):
            if rank:
                agreement.comm.Recv(buffer, rank)
                part = buffer
            base = sum(1 << k for k, bit in remote if bit >= 0 and rank >> bit & 1)
            table[base | _spread(places + at, local)] += part
    return table


def local_wires(share: Slice, wires: NDArray[np.int64]) -> list[int]:
    positions = share.layout.positions
    return [k for k, wire in enumerate(wires.tolist()) if positions[wire] < share.num_qubits]


def _spread(values: NDArray[np.int64], places: list[int]) -> NDArray[np.int64]:
    """Move bit k of each value to places[k]."""
    result = np.zeros_like(values)
    for k, bit in enumerate(places):
        result |= (values >> k & 1) << bit
    return result


# Relocation of a distributed state's qubits between local and global positions.

SliceT = TypeVar("SliceT", bound=Slice)


class RankBackend(ABC, Generic[SliceT]):
    """Base class of backends of distributed states: swaps of qubits in all ranks alike, and sums
    over the blocks of all ranks."""

    def __init__(self, agreement: ErrorAgreement, local: protocol.StateBackend) -> None:
        """Set up. `local`: backend of this rank's slices."""
        self.is_root = agreement.rank == 0
        self.expect = local.expect
        self._agreement = agreement
        self._divided = agreement.size.bit_length() - 1  # qubits that are bits of the rank number

    def check(self) -> None:
        """Check for a stop as `StateBackend.check`: a stop in one rank stops all."""
        self._agreement.meet()

    def ensemble(
        self,
        num_qubits: int,
        options: RunOptions,
        *,
        branching: bool,  # noqa: ARG002  # see `StateBackend`
    ) -> protocol.Ensemble:
        return SeparateStates(cast("protocol.StateBackend", self), num_qubits, options)

    def plan_gradients(
        self, circuit: Circuit, params: NDArray[np.float64], observables: tuple[PauliSum, ...]
    ) -> protocol.GradientFunction:
        del circuit, params, observables
        raise Unsupported("gradients over several ranks", hint="ranks=1, which holds two states")

    def _made_local(self, state: SliceT, matrix: PlacedMatrix) -> PlacedMatrix:
        """Matrix on the positions of its qubits, which are made local."""
        state.fresh = False
        offsets = matrix.offsets[1 << np.arange(matrix.wires.size)]
        qubits = [int(offset).bit_length() - 1 for offset in offsets]
        self._bring(state, sum(1 << qubit for qubit in qubits))
        return place(matrix.columns, [state.layout.positions[qubit] for qubit in qubits])

    def _made_alike(self, state: SliceT, into: SliceT, qubit: int) -> int:
        """Position of a qubit, which is made local in both slices: `into` gets the layout of
        `state`, and will be overwritten."""
        state.fresh = into.fresh = False
        self._bring(state, 1 << qubit)
        if into is not state:
            into.layout = state.layout.copy()
        return state.layout.positions[qubit]

    @abstractmethod
    def _swap_local(self, state: SliceT, low: int, high: int) -> None:
        """Exchange two local positions."""

    @abstractmethod
    def _swap_with_rank(self, state: SliceT, bit: int, position: int) -> None:
        """Exchange a bit of the rank number and a local position."""

    def _bring(self, state: SliceT, wanted: int) -> None:
        """Make the qubits of a mask local."""
        self._swap(state, state.layout.exchanges(wanted))

    def _settle(self, state: SliceT) -> None:
        """Make all blocks whole, that is, local."""
        self._swap(state, state.layout.settling())

    def _align(self, state: SliceT, like: Layout) -> None:
        """Bring all qubits to their positions in another layout."""
        self._swap(state, state.layout.aligning(like))

    def _swap(self, state: SliceT, pairs: Iterable[tuple[int, int]]) -> None:
        """Exchange the qubits at pairs of positions, local or global, one pair after the other."""
        local = state.layout.num_local
        for pair in pairs:
            low, high = sorted(pair)
            if high < local:
                self._swap_local(state, low, high)
            elif low < local:
                self._swap_with_rank(state, high - local, low)
            else:
                for position in (low, high, low):
                    self._swap_with_rank(state, position - local, local - 1)
            state.layout.swap(low, high)

    def _shared(self, state: SliceT, mine: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of all ranks' blocks, in the order of the blocks, in each rank; blocks must be
        whole. `mine`: of this rank's blocks, float64 [blocks, ...]."""
        agreement, layout = self._agreement, state.layout
        result = np.empty((agreement.size, *mine.shape))
        order = np.concatenate([layout.basis_indices(rank) for rank in range(agreement.size)])
        placed = np.empty((order.size, *mine.shape[1:]))
        agreement.meet()
        agreement.comm.Allgather(np.ascontiguousarray(mine), result)
        placed[order] = result.reshape(placed.shape)
        return placed


# States whose slices are in the memory of the ranks' processes.


class DistributedBackend(RankBackend[StateSlice]):
    """A `StateBackend` whose states are `StateSlice`s."""

    def __init__(
        self,
        agreement: ErrorAgreement,
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
            self._sweeper.passed(1, before=True)
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
        share = self._settled(state)
        local = local_wires(share, wires)
        mine = np.zeros(1 << len(local))
        reductions.accumulate(self._sweeper, share, wires[local], mine)
        table = whole_distribution(self._agreement, share, wires, mine)
        return reductions.nonzero_outcomes(table, share)

    def expectations(self, state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        share = self._settled(state)
        values = np.empty(len(strings))
        for group in pauli_sums.pauli_groups(strings):
            mine = self._string_sums(share, group)
            values[group.members] = np.cumsum(self._shared(share, mine), axis=0)[-1]
        return values

    def gather_statevector(self, state: State) -> protocol.Amplitudes | None:
        return gathered(self._agreement, self._settled(state))

    def amplitudes(self, state: State, indices: NDArray[np.int64]) -> protocol.Amplitudes | None:
        share = self._settled(state)
        own = share.amplitudes
        return chosen(self._agreement, share.layout, indices, own.dtype, own.__getitem__)

    def _string_sums(self, share: StateSlice, group: pauli_sums.PauliGroup) -> NDArray[np.float64]:
        """Sums of each block of this rank; its partner block may be in another rank."""
        places = share.basis_indices
        sums = np.empty((places.size, group.strings.zs.size))
        flipped = share.layout.placed(int(group.strings.x))
        partner = share.rank ^ (flipped >> share.num_qubits)
        flip = (flipped & ((1 << share.num_qubits) - 1)) >> BLOCK_QUBITS
        if partner == share.rank:
            pauli_sums.string_sums(self._sweeper, share, share, places, flip, group, sums)
            return sums
        blocks = self._exchange.chunk >> BLOCK_QUBITS
        beyond = flip & ~(blocks - 1)
        for first in range(0, places.size, blocks):
            other = first ^ beyond  # block that the partner needs, and block that it sends
            lent = self._exchange.sendrecv_block(_blocks(share, other, blocks), partner)
            own = State(_blocks(share, first, blocks))
            part = slice(first, first + blocks)
            pauli_sums.string_sums(
                self._sweeper, own, lent, places[part], flip & (blocks - 1), group, sums[part]
            )
        return sums

    def _like(self, state: State, second: State) -> StateSlice:
        self._agreement.meet()
        share = cast("StateSlice", state)
        return StateSlice(second.amplitudes, share.layout.copy(), share.rank)

    @property
    def _exchange(self) -> executor.Exchange:
        assert self._opened_exchange is not None  # there is a state
        return self._opened_exchange

    @property
    def _passing(self) -> executor.DistributedExecutor:
        assert self._pass is not None  # there is a state
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
