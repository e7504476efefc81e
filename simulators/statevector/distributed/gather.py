"""Movement of a distributed state: to the root rank, and between positions of qubits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum, RunOptions
from simulators.errors import OutOfMemory, Unsupported
from simulators.statevector.backend import protocol, reductions
from simulators.statevector.backend.matrix import PlacedMatrix, place
from simulators.statevector.distributed.executor import ErrorAgreement
from simulators.statevector.distributed.qubit_layout import Layout, StateSlice
from simulators.statevector.dynamic.branches import SeparateStates
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, BlockExecutor

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


def distribution(
    agreement: ErrorAgreement, sweeper: BlockExecutor, share: StateSlice, wires: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exact distribution, see `StateBackend.distribution`."""
    mine = np.zeros(1 << len(local_wires(share, wires)))
    reductions.accumulate(sweeper, share, wires[local_wires(share, wires)], mine)
    table = whole_distribution(agreement, share, wires, mine)
    return reductions.nonzero_outcomes(table, share)


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
    local = local_wires(share, wires)
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
            base = _constant(share, wires, rank)
            table[base | _spread(places + at, local)] += part
    return table


def local_wires(share: Slice, wires: NDArray[np.int64]) -> list[int]:
    """Indices of the wires that are local."""
    positions = share.layout.positions
    return [k for k, wire in enumerate(wires.tolist()) if positions[wire] < share.num_qubits]


def _constant(share: Slice, wires: NDArray[np.int64], rank: int) -> int:
    """Bits of a value that are given by the rank number."""
    result = 0
    for k, wire in enumerate(wires.tolist()):
        bit = share.layout.positions[wire] - share.num_qubits
        if bit >= 0 and rank >> bit & 1:
            result |= 1 << k
    return result


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
        self.add_sweeps = local.add_sweeps
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
        """Raises Unsupported."""
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
