"""A local position and a bit of the rank's number change places, between pairs of ranks.

Invariant: half of a rank's amplitudes at most go to another rank, through two buffers that are made
once and together take an eighth of its share at most (of a tiny one, two blocks).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.statevector.ranks.meeting import Meeting
from simulators.statevector.state import BLOCK_QUBITS, State

_MOST = 1 << 18  # amplitudes of a buffer: 4 MiB in double precision


class Exchange:
    """The buffers, and what goes through them."""

    def __init__(
        self, meeting: Meeting, num_local: int, dtype: np.dtype[np.complexfloating]
    ) -> None:
        self._meeting = meeting
        size = max(1 << BLOCK_QUBITS, min(_MOST, (1 << num_local) >> 4))
        self._out: NDArray[np.complexfloating] = np.empty(size, dtype)
        self._in: NDArray[np.complexfloating] = np.empty(size, dtype)

    @property
    def chunk(self) -> int:
        """Amplitudes that go at a time."""
        return self._in.size

    def swap(self, state: State, bit: int, position: int) -> None:
        """Bit `bit` of the rank's number and a local position change places."""
        rank = self._meeting.rank
        own = rank >> bit & 1
        partner = rank ^ (1 << bit)
        run = 1 << position
        leaving = state.amplitudes.reshape(-1, 2, run)[:, 1 - own, :]
        self._meeting.meet()
        if run >= self.chunk:
            for row in leaving:
                for at in range(0, run, self.chunk):
                    self._trade(row[at : at + self.chunk], partner)
            return
        rows = self.chunk // run
        for at in range(0, len(leaving), rows):
            self._trade(leaving[at : at + rows], partner)

    def _trade(self, part: NDArray[np.complexfloating], partner: int) -> None:
        """This part of the state for what the partner sends."""
        out, into = self._out[: part.size], self._in[: part.size]
        out.reshape(part.shape)[...] = part
        self._meeting.comm.Sendrecv(out, partner, recvbuf=into, source=partner)
        part[...] = into.reshape(part.shape)

    def lend(self, part: NDArray[np.complexfloating], partner: int) -> State:
        """What the partner has where it was asked for; it gets `part`. Valid until the next one."""
        into = self._in[: part.size]
        self._meeting.meet()
        self._meeting.comm.Sendrecv(part, partner, recvbuf=into, source=partner)
        return State(into)
