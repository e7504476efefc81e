"""Exchange of global and local qubits between GPUs, several at once, in place.

Amplitudes for another rank are packed on the device and staged through the memory of the host, in
parts of at most 64 MiB, so any MPI can be used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.catalog.gpu_costs import STAGED_BYTES
from simulators.gpu.devices.protocol import COMPLEX, Buffer
from simulators.gpu.sweeps import DeviceState
from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.distributed.qubit_layout import Layout
from simulators.statevector.distributed.remap_schedule import Pair

_TAG_ROOM = 8  # parts of an exchange may overtake one another: their tags differ


class DeviceSlice:
    """Rank's slice of a distributed state; see `statevector.distributed.qubit_layout`."""

    def __init__(self, state: DeviceState, layout: Layout, rank: int) -> None:
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


class ExchangeStats(msgspec.Struct, frozen=True):
    """Statistics of the exchanges of a run."""

    exchanges: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0


class DeviceExchange:
    """Exchanges of one run; `stats` counts them."""

    def __init__(self, agreement: ErrorAgreement) -> None:
        self._agreement = agreement
        self.stats = ExchangeStats()
        self._received = np.empty(0, np.complex128)
        self._packed: Buffer = None

    def exchange_qubits(self, share: DeviceSlice, pairs: Sequence[Pair]) -> None:
        """Exchange pairs of a bit of the rank number, counted from 0, and a local position."""
        if not pairs:
            return
        begin_s = time.perf_counter()
        mask = sum(1 << position for _, position in pairs)
        self._prepare(share.state, mask)  # operations that may fail come before the ranks meet
        self._agreement.meet()
        rank, sent = share.rank, 0
        own = sum((rank >> bit & 1) << k for k, (bit, _) in enumerate(pairs))
        for change in range(1, 1 << len(pairs)):
            other = own ^ change
            partner = rank ^ sum(1 << bit for k, (bit, _) in enumerate(pairs) if change >> k & 1)
            value = sum((other >> k & 1) << position for k, (_, position) in enumerate(pairs))
            sent += self._trade(share.state, partner, mask, value)
        stats, spent = self.stats, time.perf_counter() - begin_s
        self.stats = ExchangeStats(
            stats.exchanges + 1, stats.sent_bytes + sent, stats.seconds + spent
        )

    def _prepare(self, state: DeviceState, mask: int) -> None:
        """Allocate buffers for a part on the device and on the host."""
        state.settle()
        size = state_bytes(0, state.precision)
        step = min(1 << (state.num_qubits - mask.bit_count()), STAGED_BYTES // size)
        if self._received.size != step or self._received.dtype != COMPLEX[state.precision]:
            self._received = np.empty(step, COMPLEX[state.precision])
            self._packed = state.device.empty(step, COMPLEX[state.precision])

    def _trade(self, state: DeviceState, partner: int, mask: int, value: int) -> int:
        """Exchange the amplitudes whose bits under `mask` are `value` with the partner; returns the
        bytes sent."""
        device, precision = state.device, state.precision
        count = 1 << (state.num_qubits - mask.bit_count())
        packed, received = self._packed, self._received
        buffer, comm, step = state.buffer, self._agreement.comm, received.size
        for number, first in enumerate(range(0, count, step)):
            where = (np.uint64(first), np.uint64(step), np.uint64(mask), np.uint64(value))
            state.launch("pack", step, buffer, packed, *where)
            tag = number % _TAG_ROOM
            comm.Sendrecv(
                device.download(packed), partner, tag, recvbuf=received, source=partner, recvtag=tag
            )
            state.launch("unpack", step, device.upload(received), buffer, *where)
        return count * state_bytes(0, precision)
