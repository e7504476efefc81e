"""States over several GPUs: one for each MPI rank."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from mpi4py import MPI
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.catalog.costs import STAGED_BYTES, ranks_used
from simulators.engine import RunOptions
from simulators.errors import DeviceLost, UnknownEngine
from simulators.gpu import reductions, sweeps
from simulators.gpu.backend import DeviceBackend
from simulators.gpu.devices.device import COMPLEX, NCCL_ID_BYTES, Buffer, Device, PeerGroup
from simulators.statevector.backend import protocol, reductions as backend_reductions
from simulators.statevector.backend.matrix import PlacedMatrix, by_columns, place
from simulators.statevector.backend.pauli_sums import pauli_groups
from simulators.statevector.backend.reductions import BlockSum, Projection, SortedDraws
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.distributed import backend as distributed_backend, qubit_layout
from simulators.statevector.distributed.executor import ErrorAgreement, local_table
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BLOCK_QUBITS

# Exchange of global and local qubits between GPUs, several at once, in place.
#
# Amplitudes for another rank are packed on the device, in parts of at most 64 MiB. These go to it
# by NCCL where all ranks have that, else through the memory of the host, so any MPI can be used.

_TAG_ROOM = 8  # parts of an exchange may overtake one another: their tags differ


class StagedPeers:
    """Transport through the memory of the host, see `PeerGroup`."""

    def __init__(self, comm: Any, device: Device) -> None:
        self._comm = comm
        self._device = device
        self._number = 0  # of parts: alike in all ranks
        self._received = np.empty(0, np.complex128)

    def sendrecv(self, sent: Buffer, received: Buffer, partner: int) -> None:
        mine, tag = self._device.download(sent), self._number % _TAG_ROOM
        if (self._received.size, self._received.dtype) != (mine.size, mine.dtype):
            self._received = np.empty_like(mine)
        self._comm.Sendrecv(mine, partner, tag, recvbuf=self._received, source=partner, recvtag=tag)
        self._number += 1
        self._device.write(self._received, received)

    def close(self) -> None:
        """Do nothing: the communicator is the caller's."""


def join_peers(comm: Any, device: Device) -> PeerGroup | None:
    """Group of the GPUs of all ranks, which all call this; None, in all of them, if one of them has
    no NCCL or cannot join."""
    if not _all_of(comm, device.has_nccl()):
        return None
    unique_id = np.zeros(NCCL_ID_BYTES, np.uint8)
    if comm.Get_rank() == 0:
        with contextlib.suppress(DeviceLost):
            unique_id[:] = np.frombuffer(device.unique_id(), np.uint8)
    comm.Bcast(unique_id, 0)
    if not unique_id.any():
        return None
    group: PeerGroup | None = None
    with contextlib.suppress(DeviceLost):
        group = device.join(unique_id.tobytes(), comm.Get_size(), comm.Get_rank())
    if _all_of(comm, group is not None):
        return group
    if group is not None:
        group.close()
    return None


def _all_of(comm: Any, is_able: bool) -> bool:
    """Whether all ranks are able."""
    result = np.zeros(1, np.int64)
    comm.Allreduce(np.array([is_able], np.int64), result, MPI.MIN)
    return bool(result[0])


class DeviceSlice:
    """Rank's slice of a distributed state; see `statevector.distributed.qubit_layout`."""

    def __init__(self, state: sweeps.DeviceState, layout: qubit_layout.Layout, rank: int) -> None:
        self.state = state
        self.layout = layout
        self.rank = rank
        self.fresh = False  # |0...0>, in any qubit layout

    @property
    def num_qubits(self) -> int:
        """Qubits of the slice."""
        return self.layout.num_local

    @property
    def basis_indices(self) -> NDArray[np.int64]:
        """Position of each block in the whole state; blocks must be whole."""
        return self.layout.basis_indices(self.rank)


class DeviceExchange:
    """Exchanges of one run."""

    def __init__(self, agreement: ErrorAgreement, peers: PeerGroup) -> None:
        self._agreement = agreement
        self._peers = peers
        self._step = (0, "")  # amplitudes of a part, their precision
        self._packed: Buffer = None
        self._received: Buffer = None

    def exchange_qubits(self, share: DeviceSlice, pairs: Sequence[qubit_layout.Pair]) -> None:
        """Exchange pairs of a bit of the rank number, counted from 0, and a local position."""
        if not pairs:
            return
        mask = sum(1 << position for _, position in pairs)
        self._prepare(share.state, mask)  # operations that may fail come before the ranks meet
        self._agreement.meet()
        rank = share.rank
        own = sum((rank >> bit & 1) << k for k, (bit, _) in enumerate(pairs))
        for change in range(1, 1 << len(pairs)):
            other = own ^ change
            partner = rank ^ sum(1 << bit for k, (bit, _) in enumerate(pairs) if change >> k & 1)
            value = sum((other >> k & 1) << position for k, (_, position) in enumerate(pairs))
            self._trade(share.state, partner, mask, value)

    def _prepare(self, state: sweeps.DeviceState, mask: int) -> None:
        """Allocate buffers for a part on the device."""
        state.settle()
        size = state_bytes(0, state.precision)
        step = min(1 << (state.num_qubits - mask.bit_count()), STAGED_BYTES // size)
        if self._step != (step, state.precision):
            self._step = (step, state.precision)
            self._packed, self._received = (
                state.device.empty(step, COMPLEX[state.precision]) for _ in range(2)
            )

    def _trade(self, state: sweeps.DeviceState, partner: int, mask: int, value: int) -> None:
        """Exchange the amplitudes whose bits under `mask` are `value` with the partner."""
        count, step = 1 << (state.num_qubits - mask.bit_count()), self._step[0]
        for first in range(0, count, step):
            where = (np.uint64(first), np.uint64(step), np.uint64(mask), np.uint64(value))
            state.launch("pack", step, state.buffer, self._packed, *where)
            self._peers.sendrecv(self._packed, self._received, partner)
            state.launch("unpack", step, self._received, state.buffer, *where)


# Check that each rank has a GPU of its own: two states in one would share its memory and time.

_CARD_BYTES = 512


def check_devices(comm: Any, location: str) -> None:
    """Raise UnknownEngine in all ranks, which all call this, if two have the same GPU. `location`:
    as `Device.location`."""
    text = f"{os.uname().nodename} {location}" if location else ""
    mine = np.frombuffer(text.encode()[:_CARD_BYTES].ljust(_CARD_BYTES, b"\0"), np.uint8)
    everyone = np.empty((comm.Get_size(), _CARD_BYTES), np.uint8)
    comm.Allgather(mine.copy(), everyone)
    ranks: dict[bytes, int] = {}
    for rank, row in enumerate(everyone):
        card = row.tobytes().rstrip(b"\0")
        first = ranks.setdefault(card, rank)
        if card and first != rank:
            hint = "show each rank its own by CUDA_VISIBLE_DEVICES, or start a pool with"
            hint += " engine=gpu,ranks=2: the service does"
            text = f"engine 'gpu': ranks {first} and {rank} have the same GPU, {card.decode()}"
            raise UnknownEngine(text, hint=hint)


# Backend for states distributed over GPUs: each MPI rank has one, with an equal slice.
#
# Sweeps, layouts and the communication schedule are those of `statevector.distributed`; kernels are
# those of one GPU, on the slice. Block sums are added in the order of the blocks, in each rank.

_SWAP = np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]]
_H = np.array([[1, 1], [1, -1]], np.complex128) * np.sqrt(0.5)
_TO_Z = {0: _H, 1: _H @ np.diag([1, -1j])}  # rotations of X and of Y into Z


class DistributedDeviceBackend(distributed_backend.RankBackend[DeviceSlice]):
    """A `StateBackend` whose states are `DeviceSlice`s."""

    def __init__(
        self, agreement: ErrorAgreement, local: DeviceBackend, peers: PeerGroup | None
    ) -> None:
        """Set up. `local`: backend of this rank's GPU; `peers`: of `join_peers`."""
        super().__init__(agreement, local)
        self._local = local
        staged = StagedPeers(agreement.comm, local.device)
        self._exchange = DeviceExchange(agreement, staged if peers is None else peers)
        self._programs = sweeps.ProgramStore(local.device)

    def for_width(self, num_qubits: int) -> protocol.StateBackend:
        is_narrow = ranks_used(num_qubits, self._agreement.size) < self._agreement.size
        return self._local if is_narrow else self

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Number of states that fit into the GPU with the least memory."""
        mine = self._local.max_live_states(num_qubits - self._divided, options)
        return max(1, self._agreement.allreduce_min(mine))

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> DeviceSlice:
        """Prepare |0...0>, see `StateBackend`; no state of an earlier attempt is used."""
        del way
        layout = qubit_layout.Layout(num_qubits, num_qubits - self._divided)
        state = self._local.zero_state(layout.num_local, options)
        state.settle()
        if not self.is_root:  # another rank holds the amplitude 1
            self._local.project(state, state, Projection(0, 0, False), 0.0)
        self._agreement.meet()
        share = DeviceSlice(state, layout, self._agreement.rank)
        share.fresh = True
        return share

    def copy(self, state: DeviceSlice) -> DeviceSlice:
        result = DeviceSlice(self._local.copy(state.state), state.layout.copy(), state.rank)
        self._agreement.meet()
        return result

    def empty_like(self, state: DeviceSlice) -> DeviceSlice:
        result = DeviceSlice(self._local.empty_like(state.state), state.layout.copy(), state.rank)
        self._agreement.meet()
        return result

    def apply(
        self, state: DeviceSlice, segment: protocol.CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        plan, layout = cast("SegmentPlan", segment), state.layout
        communication = qubit_layout.plan_communication(
            plan.sweeps, layout.positions, layout.num_local, fresh=state.fresh
        )
        state.fresh = False
        for stage in communication.stages:
            self._agreement.meet()
            pairs = [(remote - layout.num_local, local) for remote, local in stage.pairs]
            self._exchange.exchange_qubits(state, pairs)
            layout.become(stage.positions)
            state.state.settle()
            # Conditions on the rank number are resolved.
            own = functools.partial(local_table, plan.sweeps, stage, state.num_qubits, state.rank)
            key = (stage.first, stage.last, stage.positions)
            program = self._programs.sweeps(plan, state.state.precision, key, own)
            sweeps.apply_program(state.state, program, floats, self._local.pass_done)

    def multiply(self, state: DeviceSlice, matrix: PlacedMatrix) -> None:
        self._local.multiply(state.state, self._made_local(state, matrix))
        self._agreement.meet()

    def block_sums(
        self, item: BlockSum, state: DeviceSlice, other: DeviceSlice | None = None
    ) -> NDArray[np.float64]:
        """Compute sums as `StateBackend.block_sums`. A fingerprint is that of each slice by itself,
        in one layout."""
        if item.what == backend_reductions.FINGERPRINT:
            self._align(
                state, qubit_layout.Layout(len(state.layout.qubits), state.layout.num_local)
            )
        self._settle(state)
        if other is not None:
            self._align(other, state.layout)
        partner = None if other is None else other.state
        position = state.layout.positions[item.qubit]
        if item.what == backend_reductions.QUBIT_WEIGHTS and position >= state.num_qubits:
            norms = self._local.block_sums(BlockSum(backend_reductions.NORM), state.state)[:, 0]
            mine = np.zeros((norms.size, 2))
            mine[:, state.rank >> (position - state.num_qubits) & 1] = norms
        else:
            mine = self._local.block_sums(item._replace(qubit=position), state.state, partner)
        return self._shared(state, mine)

    def project(
        self, state: DeviceSlice, into: DeviceSlice, item: Projection, factor: float
    ) -> None:
        position = self._made_alike(state, into, item.qubit)
        self._local.project(state.state, into.state, replace(item, qubit=position), factor)

    def locate_samples(self, state: DeviceSlice, draws: SortedDraws) -> NDArray[np.int64]:
        self._settle(state)
        block_ids = state.basis_indices
        begins, values = draws.begins, draws.values
        counts = np.diff(begins)[block_ids]
        ends = np.cumsum(counts)
        mine = np.repeat(begins[:-1][block_ids] - (ends - counts), counts) + np.arange(counts.sum())
        own = SortedDraws(draws.edges[block_ids], np.append(0, ends), values[mine])
        located = reductions.locate_samples(state.state, own)
        result, everything = np.zeros((2, values.size), np.int64)
        inside = (1 << BLOCK_QUBITS) - 1
        result[mine] = block_ids[located >> BLOCK_QUBITS] << BLOCK_QUBITS | located & inside
        self._agreement.meet()
        # One rank contributes each value.
        self._agreement.comm.Reduce(result, everything, MPI.SUM, 0)
        return everything if self.is_root else result

    def distribution(
        self, state: DeviceSlice, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        local = wires[distributed_backend.local_wires(state, wires)].tolist()
        positions = np.array([state.layout.positions[wire] for wire in local], np.int64)
        mine = np.ascontiguousarray(reductions.outcome_weights(state.state, positions))
        table = distributed_backend.whole_distribution(self._agreement, state, wires, mine)
        values = np.flatnonzero(table > backend_reductions.ROUNDING_FLOOR[state.state.precision])
        return values, table[values]

    def expectations(
        self, state: DeviceSlice, strings: list[tuple[int, int]]
    ) -> NDArray[np.float64]:
        values = np.empty(len(strings))
        for group in pauli_groups(strings):
            members = list(group.members)
            values[members] = self._group_values(state, [strings[k] for k in members])
        return values

    def gather_statevector(self, state: DeviceSlice) -> protocol.Amplitudes | None:
        self._settle(state)
        amplitudes = self._local.gather_statevector(state.state)
        return distributed_backend.gathered(
            self._agreement, qubit_layout.StateSlice(amplitudes, state.layout, state.rank)
        )

    def amplitudes(
        self, state: DeviceSlice, indices: NDArray[np.int64]
    ) -> protocol.Amplitudes | None:
        self._settle(state)
        return distributed_backend.chosen(
            self._agreement, state.layout, indices, COMPLEX[state.state.precision],
            lambda places: self._local.amplitudes(state.state, places),
        )  # fmt: skip

    def _group_values(self, state: DeviceSlice, strings: list[tuple[int, int]]) -> list[float]:
        """Values of strings with the same x. If more of its qubits are outside of blocks than fit
        into a slice above whole blocks, those are rotated to Z, in a copy."""
        x = strings[0][0]
        wide = list(qubit_layout.bits(x >> BLOCK_QUBITS << BLOCK_QUBITS))
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
