"""States divided among ranks: each holds an equal share of the amplitudes.

A qubit that stands in the rank's number is brought home, by an exchange with another that is not
needed soon, when a gate moves amplitude along it; phases and controls look at it where it is. Sums
over blocks go to all ranks, so all decide alike. Kernels are those of one process, on the share.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.catalog.costs import ranks_used
from simulators.engine import RunOptions
from simulators.statevector.backend import pauli, sampling
from simulators.statevector.backend.gate_list import Passes
from simulators.statevector.backend.local import LocalStates
from simulators.statevector.backend.matrix import Dense, place
from simulators.statevector.backend.protocol import Amplitudes, States
from simulators.statevector.checkpoint import Journey, Way
from simulators.statevector.distributed.error_agreement import Meeting
from simulators.statevector.distributed.exchange import Exchange
from simulators.statevector.distributed.executor import Passing, Traffic
from simulators.statevector.distributed.gather import distribution, whole
from simulators.statevector.distributed.qubit_layout import Layout, Share, swap_local
from simulators.statevector.planning.tables import Sweeps
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, State


class RankStates:
    """See `states.States`. The states that it is given are its own `Share`s."""

    def __init__(
        self, meeting: Meeting, local: LocalStates, neighbours: int, journey: Journey | None = None
    ) -> None:
        """`neighbours`: ranks of this run on this machine, this one included. `journey`: what is
        kept of it."""
        self.first = meeting.rank == 0
        self.expect = local.expect
        self._meeting = meeting
        self._local = local
        self._sweeper = local.sweeper
        self._neighbours = neighbours
        self._divided = meeting.size.bit_length() - 1  # qubits that stand in the rank's number
        self._trader: Exchange | None = None
        self._pass: Passing | None = None
        self._journey = journey or Journey()
        self._others: dict[int, RankStates] = {}  # of other widths than the first one

    @property
    def traffic(self) -> Traffic:
        """What there was to send so far."""
        found = self._passing.traffic if self._pass is not None else Traffic()
        for other in self._others.values():
            found = found.plus(other.traffic, self._meeting.waited_cpu_s)
        return found

    def for_width(self, num_qubits: int) -> States:
        """See `States`."""
        if ranks_used(num_qubits, self._meeting.size) < self._meeting.size:
            return self._local
        if num_qubits not in self._others:
            self._others[num_qubits] = RankStates(
                self._meeting, self._local, self._neighbours, self._journey
            )
        return self._others[num_qubits]

    def check(self) -> None:
        """See `States`: what one rank is asked for, all do."""
        self._meeting.meet()

    def most(self, num_qubits: int, options: RunOptions) -> int:
        """As many as the rank can hold that has least room."""
        room = options.memory_bytes or PHYSICAL_BYTES // (4 * self._neighbours)
        share = state_bytes(num_qubits - self._divided, options.precision)
        return max(1, self._meeting.least(room // share))

    def zero(self, num_qubits: int, options: RunOptions, way: Way | None = None) -> State:
        """See `States`."""
        layout = Layout(num_qubits, num_qubits - self._divided)
        share = Share.empty_handed(layout, self._meeting.rank, self._neighbours, options)
        if self._trader is None:
            self._trader = Exchange(self._meeting, layout.num_local, share.dtype)
            self._pass = Passing(self._meeting, self._trader, self._sweeper, self._journey)
        if self.first:
            share.begin()
        self._meeting.meet()
        self._journey.begin(way)
        positions = None
        if self._journey.is_kept:
            positions = self._journey.taken(share.amplitudes)
        share.fresh = positions is None
        layout.become(positions or layout.positions)
        return share

    def copied(self, state: State) -> State:
        """See `States`."""
        return self._like(state, self._local.copied(state))

    def blank(self, state: State) -> State:
        """See `States`."""
        return self._like(state, self._local.blank(state))

    def apply(self, state: State, passes: Passes | Sweeps, floats: NDArray[np.float64]) -> None:
        """See `States`."""
        self._passing(cast("Share", state), cast("Sweeps", passes), floats)

    def multiply(self, state: State, matrix: Dense) -> None:
        """See `States`."""
        share = cast("Share", state)
        if self._journey.skipped(1):
            self._sweeper.passed(1)
            return
        share.fresh = False
        qubits = [int(offset).bit_length() - 1 for offset in matrix.offsets[_powers(matrix)]]
        self._bring(share, sum(1 << qubit for qubit in qubits))
        positions = [share.layout.positions[qubit] for qubit in qubits]
        self._local.multiply(share, place(matrix.columns, positions))
        self._meeting.meet()
        self._journey.passed(share.amplitudes, share.layout.positions)

    def block_sums(
        self,
        what: int,
        state: State,
        other: State | None = None,
        *,
        qubit: int = 0,
        turn: complex = 1.0,
    ) -> NDArray[np.float64]:
        """See `States`."""
        share = self._settled(state)
        if other is not None:
            self._swap_all(cast("Share", other), share.layout)
        mine = self._local.block_sums(what, share, other, qubit=qubit, turn=turn)
        return self._shared(share, mine)

    def project(
        self,
        state: State,
        into: State,
        *,
        qubit: int,
        outcome: int,
        factor: float,
        move: bool,
    ) -> None:
        """See `States`."""
        share, other = cast("Share", state), cast("Share", into)
        share.fresh = other.fresh = False
        self._bring(share, 1 << qubit)
        if other is not share:
            other.layout = share.layout.copy()
        position = share.layout.positions[qubit]
        self._local.project(share, other, qubit=position, outcome=outcome, factor=factor, move=move)

    def walk(
        self,
        state: State,
        edges: NDArray[np.float64],
        begins: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """See `States`."""
        share = self._settled(state)
        found, all_ = np.zeros(draws.size, np.int64), np.empty(draws.size, np.int64)
        sampling.locate_samples(self._sweeper, share, edges, begins, draws, found)
        self._meeting.meet()
        self._meeting.comm.Reduce(found, all_, MPI.SUM, 0)  # each draw is found by one rank
        return all_ if self.first else found

    def distribution(
        self, state: State, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `States`."""
        return distribution(self._meeting, self._sweeper, self._settled(state), wires)

    def expectations(self, state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        """See `States`."""
        share = self._settled(state)
        values = np.empty(len(strings))
        for group in pauli.groups(strings):
            mine = self._string_sums(share, group)
            values[group.members] = np.cumsum(self._shared(share, mine), axis=0)[-1]
        return values

    def whole(self, state: State) -> Amplitudes | None:
        """See `States`."""
        return whole(self._meeting, self._settled(state))

    def _string_sums(self, share: Share, group: pauli.Group) -> NDArray[np.float64]:
        """Of each block of this rank; its partner block may be another rank's."""
        numbers = share.numbers
        sums = np.empty((numbers.size, group.zs.size))
        flipped = share.layout.placed(group.x)
        partner = share.rank ^ (flipped >> share.num_qubits)
        flip = (flipped & ((1 << share.num_qubits) - 1)) >> BLOCK_QUBITS
        if partner == share.rank:
            pauli.string_sums(self._sweeper, share, share, numbers, flip, group, sums)
            return sums
        blocks = self._exchange.chunk >> BLOCK_QUBITS
        beyond = flip & ~(blocks - 1)
        for first in range(0, numbers.size, blocks):
            other = first ^ beyond  # what the partner needs now, and has for this rank
            lent = self._exchange.lend(_blocks(share, other, blocks), partner)
            here = State(_blocks(share, first, blocks))
            part = slice(first, first + blocks)
            pauli.string_sums(
                self._sweeper, here, lent, numbers[part], flip & (blocks - 1), group, sums[part]
            )
        return sums

    def _like(self, state: State, second: State) -> Share:
        self._meeting.meet()
        share = cast("Share", state)
        return Share(second.amplitudes, share.layout.copy(), share.rank)

    @property
    def _exchange(self) -> Exchange:
        if self._trader is None:
            raise AssertionError("there is no state yet")
        return self._trader

    @property
    def _passing(self) -> Passing:
        if self._pass is None:
            raise AssertionError("there is no state yet")
        return self._pass

    def _bring(self, share: Share, wanted: int) -> None:
        """Make these qubits local."""
        for there, here in share.layout.exchanges(wanted):
            self._swap(share, there, here)

    def _settled(self, state: State) -> Share:
        """The share, its blocks whole."""
        share = cast("Share", state)
        for one, two in share.layout.settling():
            self._swap(share, one, two)
        return share

    def _swap_all(self, share: Share, like: Layout) -> None:
        for one, two in share.layout.aligning(like):
            self._swap(share, one, two)

    def _swap(self, share: Share, one: int, two: int) -> None:
        """The qubits at two positions change places, wherever these are."""
        share.changed()
        layout = share.layout
        low, high = sorted((one, two))
        local = layout.num_local
        if high < local:
            swap_local(self._sweeper, share, low, high)
        elif low < local:
            self._exchange.swap(share, high - local, low)
        else:
            for there in (low, high, low):
                self._exchange.swap(share, there - local, local - 1)
        layout.swap(one, two)

    def _shared(self, share: Share, mine: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sums of all ranks' blocks, in the order of the blocks, in each rank."""
        meeting = self._meeting
        found = np.empty((meeting.size, *mine.shape))
        order = np.concatenate([share.layout.numbers(rank) for rank in range(meeting.size)])
        placed = np.empty((order.size, *mine.shape[1:]))
        meeting.meet()
        meeting.comm.Allgather(mine, found)
        placed[order] = found.reshape(placed.shape)
        return placed


def _powers(matrix: Dense) -> NDArray[np.int64]:
    return 1 << np.arange(matrix.wires.size)


def _blocks(share: Share, first: int, count: int) -> Amplitudes:
    return share.amplitudes[first << BLOCK_QUBITS : (first + count) << BLOCK_QUBITS]
