"""Exchange of global and local qubits, several at once, in place.

Data to another rank goes through four buffers, made once, that take an eighth of a slice at most:
two to pack and send, two to receive. A message is far below the limit of an MPI count.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.catalog.costs import EXCHANGE_PART
from simulators.statevector.distributed.error_agreement import ErrorAgreement
from simulators.statevector.distributed.remap_schedule import Pair
from simulators.statevector.state import BLOCK_QUBITS, State

_MOST = 1 << 16  # largest buffer in amplitudes: 1 MiB in double precision
_BUFFERS = 4

Part = NDArray[np.complexfloating[Any, Any]]


class Exchange:
    """Buffers and statistics of the exchanges."""

    def __init__(
        self, agreement: ErrorAgreement, num_local: int, dtype: np.dtype[np.complexfloating]
    ) -> None:
        self._agreement = agreement
        share = (1 << num_local) // EXCHANGE_PART
        size = min(_MOST, share // _BUFFERS)
        room = np.empty(max(_BUFFERS * size, 1 << BLOCK_QUBITS), dtype)
        self._room: Part = room
        self._out = (room[:size], room[size : 2 * size])
        self._in = (room[2 * size : 3 * size], room[3 * size : 4 * size])
        self._size = size
        self.sent_bytes = 0
        self.seconds = 0.0  # time of exchanges, waiting for the partner included
        self.waited_cpu_s = 0.0  # CPU time of MPI in them

    @property
    def chunk(self) -> int:
        """Largest number of amplitudes of `sendrecv_block`."""
        return self._room.size

    def exchange_qubits(
        self, state: State, pairs: Sequence[Pair], alive: int = -1, alive_ranks: int = -1
    ) -> None:
        """Exchange pairs of a bit of the rank number, counted from 0, and a local position.

        `alive`, `alive_ranks`: the local positions and the bits of the rank number that may be 1 in
        an amplitude that is not 0.
        """
        begin_s = time.perf_counter()
        self._agreement.meet()
        rank = self._agreement.rank
        own = sum((rank >> bit & 1) << k for k, (bit, _) in enumerate(pairs))
        idle_here = sum((~alive >> position & 1) << k for k, (_, position) in enumerate(pairs))
        idle_there = sum((~alive_ranks >> bit & 1) << k for k, (bit, _) in enumerate(pairs))
        among = sum(1 << bit for bit, _ in pairs)
        empty = rank & ~among & ~alive_ranks  # this rank and its partners hold only zeros
        for change in range(1, 1 if empty else 1 << len(pairs)):
            other = own ^ change
            sends = not (own & idle_there or other & idle_here)
            gets = not (other & idle_there or own & idle_here)
            if sends or gets:
                changed = (1 << bit for k, (bit, _) in enumerate(pairs) if change >> k & 1)
                values = {position: other >> k & 1 for k, (_, position) in enumerate(pairs)}
                parts = pieces(state.amplitudes, values, alive, self._size)
                self._trade(parts, rank ^ sum(changed), sends=sends, gets=gets)
        self.seconds += time.perf_counter() - begin_s

    def swap(self, state: State, bit: int, position: int) -> None:
        """Exchange bit `bit` of the rank number and a local position."""
        self.exchange_qubits(state, ((bit, position),))

    def _trade(self, parts: Iterator[Part], partner: int, *, sends: bool, gets: bool) -> None:
        """Send these parts of the state for those of the partner: the next part is packed while one
        is in transit. Contiguous parts are sent in place."""
        comm = self._agreement.comm
        waiting: list[tuple[Part, int, Any, Any]] = []
        for number, part in enumerate(parts):
            slot = number & 1
            if len(waiting) == 2:
                self._finish(*waiting.pop(0))
            size = part.size
            getting = comm.Irecv(self._in[slot][:size], partner) if gets else None
            sending = None
            if sends:
                if part.flags.c_contiguous:
                    out = part.reshape(-1)
                else:
                    out = self._out[slot][:size]
                    out.reshape(part.shape)[...] = part
                sending = comm.Isend(out, partner)
                self.sent_bytes += out.nbytes
            waiting.append((part, slot, sending, getting))
        for each in waiting:
            self._finish(*each)

    def _finish(self, part: Part, slot: int, sending: Any, getting: Any) -> None:
        begin_s = time.thread_time()
        for request in (getting, sending):
            if request is not None:
                request.Wait()
        self.waited_cpu_s += time.thread_time() - begin_s
        if getting is None:
            part[...] = 0.0
        else:
            part[...] = self._in[slot][: part.size].reshape(part.shape)

    def sendrecv_block(self, part: Part, partner: int) -> State:
        """Exchange `part` for the partner's block. Valid until the next call."""
        into = self._room[: part.size]
        self._agreement.meet()
        self._agreement.comm.Sendrecv(part, partner, recvbuf=into, source=partner)
        self.sent_bytes += part.nbytes
        return State(into)


def pieces(amplitudes: Part, values: dict[int, int], alive: int, limit: int) -> Iterator[Part]:
    """Amplitudes whose index has these bits (position -> bit) and no other bit that is not `alive`:
    views of at most `limit` amplitudes each, in the same order of the rest of the index."""
    num = amplitudes.size.bit_length() - 1
    fixed = {position: 0 for position in range(num) if not alive >> position & 1} | values
    shape: list[int] = []
    index: list[int | slice] = []
    run = 0
    for position in reversed(range(num)):
        if position not in fixed:
            run += 1
            continue
        if run:
            shape.append(1 << run)
            index.append(slice(None))
        shape.append(2)
        index.append(fixed[position])
        run = 0
    if run:
        shape.append(1 << run)
        index.append(slice(None))
    view = amplitudes.reshape(shape)[tuple(index)]
    return _cut(view if view.ndim else view.reshape(1), limit)


def _cut(view: Part, limit: int) -> Iterator[Part]:
    """Split a view along the first axes into parts of at most `limit` amplitudes."""
    inner = 1
    axis = view.ndim
    while axis and inner * view.shape[axis - 1] <= limit:
        axis -= 1
        inner *= view.shape[axis]
    if not axis:
        yield view
        return
    step = max(1, limit // inner)  # along this axis; the ones before are taken one by one
    for outer in itertools.product(*(range(size) for size in view.shape[: axis - 1])):
        for at in range(0, view.shape[axis - 1], step):
            index: tuple[Any, ...] = (*outer, slice(at, at + step))
            yield view[index]
