"""Qubit layout of a distributed state, and its schedule of communication."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.compiler.kernel import kernel
from simulators.engine import RunOptions
from simulators.errors import OutOfMemory
from simulators.statevector import state
from simulators.statevector.planning.tables import LANE_WIRES, LANES, SweepTable
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, BlockExecutor, State

# Qubit layout of a distributed state, and a rank's slice of it.
#
# Position p < num_local is bit p of an amplitude's index in a rank; higher positions are the bits
# of the rank number. The layout is pure: it names the positions to exchange; the executor moves the
# amplitudes.


class Layout:
    """Permutation of qubits; the same in every rank at any time."""

    __slots__ = ("num_local", "positions", "qubits")

    def __init__(self, num_qubits: int, num_local: int) -> None:
        self.num_local = num_local
        self.positions = list(range(num_qubits))  # of each qubit
        self.qubits = list(range(num_qubits))  # at each position

    def copy(self) -> Layout:
        result = Layout(0, self.num_local)
        result.positions, result.qubits = self.positions.copy(), self.qubits.copy()
        return result

    def become(self, positions: Sequence[int]) -> None:
        """Set the position of each wire."""
        self.positions = list(positions)
        for qubit, position in enumerate(positions):
            self.qubits[position] = qubit

    def swap(self, a: int, b: int) -> None:
        """Note that the qubits at two positions were exchanged."""
        qubits = self.qubits
        qubits[a], qubits[b] = qubits[b], qubits[a]
        self.positions[qubits[a]], self.positions[qubits[b]] = a, b

    def placed(self, mask: int) -> int:
        """Convert a mask of qubits to a mask of positions."""
        return sum(1 << self.positions[qubit] for qubit in bits(mask))

    def basis_indices(self, rank: int) -> NDArray[np.int64]:
        """Positions of a rank's blocks in the full state: int64 [blocks]. Valid only if the lowest
        BLOCK_QUBITS qubits are at their own positions."""
        result = np.zeros(1 << (self.num_local - BLOCK_QUBITS), np.int64)
        blocks = np.arange(result.size)
        for position in range(BLOCK_QUBITS, self.num_local):
            bit = blocks >> (position - BLOCK_QUBITS) & 1
            result |= bit << (self.qubits[position] - BLOCK_QUBITS)
        for position in range(self.num_local, len(self.qubits)):
            if rank >> (position - self.num_local) & 1:
                result |= 1 << (self.qubits[position] - BLOCK_QUBITS)
        return result

    def exchanges(self, wanted: int) -> list[tuple[int, int]]:
        """Pairs (position in the rank number, local position) that make all `wanted` qubits local.
        The evicted qubits are above the blocks if possible."""
        abroad = [p for q in bits(wanted) if (p := self.positions[q]) >= self.num_local]
        free = [p for p in range(self.num_local) if not wanted >> self.qubits[p] & 1]
        return list(zip(abroad, reversed(free), strict=False))

    def settling(self) -> Iterator[tuple[int, int]]:
        """Pairs of positions to swap one after the other, so that blocks are whole."""
        for qubit in range(BLOCK_QUBITS):
            if self.positions[qubit] != qubit:
                yield self.positions[qubit], qubit

    def aligning(self, like: Layout) -> Iterator[tuple[int, int]]:
        """Pairs of positions to swap one after the other, so that the layout equals `like`."""
        for position, qubit in enumerate(like.qubits):
            if self.positions[qubit] != position:
                yield self.positions[qubit], position


def bits(mask: int) -> Iterator[int]:
    """Indices of the set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class StateSlice(State):
    """Slice of 2**num_local amplitudes; `num_qubits` is that of the slice."""

    __slots__ = ("fresh", "layout", "rank")

    def __init__(
        self,
        amplitudes: NDArray[np.complexfloating],
        layout: Layout,
        rank: int,
        *,
        dirty: bool = False,
    ) -> None:
        super().__init__(amplitudes, dirty=dirty)
        self.layout = layout
        self.rank = rank
        self.fresh = False  # |0...0>, in any qubit layout

    @property
    def dtype(self) -> np.dtype[np.complexfloating]:
        """Type of its amplitudes, which may not be written yet."""
        return self._amplitudes.dtype

    def begin(self) -> None:
        """Set the amplitude of |0...0>, the first of this slice, to 1."""
        self._amplitudes[0] = 1.0

    @property
    def basis_indices(self) -> NDArray[np.int64]:
        """Positions of blocks, see `State.basis_indices`; blocks must be whole."""
        return self.layout.basis_indices(self.rank)

    @classmethod
    def empty_handed(
        cls, layout: Layout, rank: int, neighbours: int, options: RunOptions
    ) -> StateSlice:
        """Allocate amplitudes that are all 0. Raises OutOfMemory. `neighbours`: ranks on this
        machine, this one included."""
        num_qubits, ranks_log2 = len(layout.qubits), len(layout.qubits) - layout.num_local
        need = state_bytes(layout.num_local, options.precision)
        if need * neighbours > PHYSICAL_BYTES:
            raise _too_large(num_qubits, ranks_log2, need, neighbours)
        try:
            amplitudes, clean = state.room(1 << layout.num_local, options.dtype)
        except MemoryError as error:
            raise _too_large(num_qubits, ranks_log2, need, neighbours) from error
        amplitudes[:LANES] = 0.0
        return cls(amplitudes, layout, rank, dirty=not clean)


def _too_large(num_qubits: int, ranks_log2: int, need: int, neighbours: int) -> OutOfMemory:
    text = f"{num_qubits} qubits over {1 << ranks_log2} ranks need {need / 2**30:,.2f} GiB in each;"
    text += f" a machine with {neighbours} of them has {PHYSICAL_BYTES / 2**30:,.1f} GiB"
    hint = "take more ranks on more machines, fewer qubits, or precision 'single'"
    return OutOfMemory(text, hint=hint)


@kernel("AMPLITUDES INT INT INT INT", group="distributed")
def _swap(reals, singles, low, high, first, last):  # type: ignore[no-untyped-def]
    """Exchange bits low < high of all indices; quadruples first .. last - 1 of amplitudes."""
    below, between = (np.int64(1) << low) - 1, (np.int64(1) << (high - 1)) - 1
    for number in range(first, last):
        base = ((number & ~below) << 1) | (number & below)
        base = ((base & ~((between << 1) | 1)) << 1) | (base & ((between << 1) | 1))
        i, j = 2 * (base | (np.int64(1) << low)), 2 * (base | (np.int64(1) << high))
        if reals.size:
            reals[i], reals[j] = reals[j], reals[i]
            reals[i + 1], reals[j + 1] = reals[j + 1], reals[i + 1]
        else:
            singles[i], singles[j] = singles[j], singles[i]
            singles[i + 1], singles[j + 1] = singles[j + 1], singles[i + 1]


def swap_local(sweeper: BlockExecutor, state: State, a: int, b: int) -> None:
    """Exchange two local positions in each rank."""
    low, high = sorted((a, b))

    def work(first: int, last: int, _number: int) -> None:
        _swap(*state.arrays, low, high, first, last)

    sweeper.parallel_for(state.num_qubits, 2, work)


# Communication schedule of a distributed state: the position of each qubit in each sweep.
#
# Each sweep needs its tile's qubits local. Belady's rule picks the local qubit to evict: the one
# whose next use is farthest. SIMD lanes are never evicted. Qubits still in |0> cost nothing to
# move, so the first layout is free and early remaps are small. Pure: the executor moves the
# amplitudes.

_MOST_EXTRA = 6  # largest number of wires that are made local before they are needed

Pair = tuple[int, int]  # a position in the rank number, and a local one


class RemapStage(msgspec.Struct, frozen=True):
    """Passes first .. last - 1 in one layout, and the exchanges before them."""

    first: int
    last: int
    positions: tuple[int, ...]  # position of each wire
    pairs: tuple[Pair, ...]  # pairs that are exchanged together
    alive: int  # before the exchange: wires that may be 1 in an amplitude that is not 0


class CommSchedule(msgspec.Struct, frozen=True):
    """Legs of a sequence of passes, and their cost in amplitudes."""

    num_local: int
    stages: tuple[RemapStage, ...]
    visited: int  # by the rank that visits most
    sent: int  # by the rank that sends most
    sent_by_all: int

    @property
    def cost(self) -> int:
        """Amplitudes visited and sent: sending one takes about as long as visiting it in a
        sweep."""
        return self.visited + self.sent


def plan_communication(
    plan: SweepTable, positions: Sequence[int], num_local: int, *, fresh: bool
) -> CommSchedule:
    """Best of several schedules. `fresh`: the state is |0...0>; `positions`: present position of
    each wire."""
    places = plan.places[:, : plan.width].tolist()
    tiles = [sum(1 << wire for wire in row) for row in places]
    lives = plan.live.tolist()
    divided = len(positions) - num_local
    ways = (
        _Candidate(tiles, lives, positions, num_local, fresh=fresh).find(extra, eager=eager)
        for extra in range(min(divided, _MOST_EXTRA) + 1)
        for eager in ((False, True) if fresh else (False,))
    )
    return min(ways, key=lambda schedule: schedule.cost)


class _Candidate:
    """One schedule of the passes."""

    def __init__(
        self,
        tiles: list[int],
        lives: list[int],
        positions: Sequence[int],
        num_local: int,
        *,
        fresh: bool,
    ) -> None:
        self._tiles = tiles
        self._lives = lives
        self._positions = list(positions)
        self._wires = [0] * len(positions)
        for wire, position in enumerate(positions):
            self._wires[position] = wire
        self._num_local = num_local
        self._alive = 0 if fresh or not lives else lives[0]
        self._uses: list[list[int]] = [[] for _ in positions]
        for number, tile in enumerate(tiles):
            for wire in bits(tile):
                self._uses[wire].append(number)

    def find(self, extra: int, *, eager: bool) -> CommSchedule:
        """Compute the schedule. `extra`: number of further wires that are made local with a
        required one. `eager`: ranks without amplitudes get their part as soon as there is one."""
        legs: list[RemapStage] = []
        visited = sent = sent_by_all = 0
        for number, tile in enumerate(self._tiles):
            # Wires that have never been 1 are relabelled, which costs nothing: the last needed ones
            # become global.
            idle = [w for w in self._abroad() if not self._alive >> w & 1]
            never = ~self._alive & -(1 << BLOCK_QUBITS)
            free = [w for w in self._leaving(number, tile) if never >> w & 1]
            moved = self._better(number, tile, idle, free, len(idle))
            for remote, local in moved:
                self._swap(remote, local)
            abroad = self._abroad()
            pairs: tuple[Pair, ...] = ()
            wanted = sum(tile >> wire & 1 for wire in abroad)
            if wanted:  # and further exchanges that are worth doing with those that are needed
                free = self._leaving(number, tile)
                pairs = self._better(number, tile, abroad, free, wanted + extra)
            if eager and not pairs:
                pairs = self._shared_out(number, tile)
            max_sent, all_ = communication_volume(pairs, self._wires, self._alive, self._num_local)
            sent, sent_by_all = sent + max_sent, sent_by_all + all_
            if pairs or moved or not legs:
                alive = self._alive
                for remote, local in pairs:
                    self._swap(remote, local)
                legs.append(RemapStage(number, number + 1, tuple(self._positions), pairs, alive))
            else:
                legs[-1] = msgspec.structs.replace(legs[-1], last=number + 1)
            self._alive = self._lives[number]
            visited += 1 << sum(self._positions[w] < self._num_local for w in bits(self._alive))
        return CommSchedule(self._num_local, tuple(legs), visited, sent, sent_by_all)

    def _shared_out(self, number: int, tile: int) -> tuple[Pair, ...]:
        """Exchanges of bits of the rank number that have never been 1 for wires that have."""
        idle = [w for w in self._abroad() if not self._alive >> w & 1]
        alive = self._alive & -(1 << BLOCK_QUBITS)
        busy = [w for w in self._leaving(number, tile) if alive >> w & 1]
        return tuple(
            (self._positions[a], self._positions[b]) for a, b in zip(idle, busy, strict=False)
        )

    def _better(
        self, number: int, tile: int, coming: Iterable[int], leaving: Sequence[int], max_pairs: int
    ) -> tuple[Pair, ...]:
        """At most `max_pairs` of `coming`, the next needed first, for wires that are needed
        later."""
        results = []
        order = sorted(coming, key=lambda wire: (self._next(wire, number), wire))
        for a, b in zip(order[:max_pairs], leaving, strict=False):
            sooner = b >= BLOCK_QUBITS and self._next(a, number) < self._next(b, number)
            if tile >> a & 1 or sooner:
                results.append((self._positions[a], self._positions[b]))
        return tuple(results)

    def _leaving(self, number: int, tile: int) -> list[int]:
        """Local wires that the tile does not need, in the order of eviction."""
        free = [
            wire
            for wire in self._wires[: self._num_local]
            if wire >= LANE_WIRES and not tile >> wire & 1
        ]
        free.sort(key=lambda w: (w < BLOCK_QUBITS, -self._next(w, number), -self._positions[w]))
        return free

    def _abroad(self) -> list[int]:
        return self._wires[self._num_local :]

    def _next(self, wire: int, number: int) -> int:
        """Next pass that needs a wire, from this one on."""
        uses = self._uses[wire]
        at = bisect_left(uses, number)
        return uses[at] if at < len(uses) else len(self._tiles)

    def _swap(self, a: int, b: int) -> None:
        wires = self._wires
        wires[a], wires[b] = wires[b], wires[a]
        self._positions[wires[a]], self._positions[wires[b]] = a, b


def communication_volume(
    pairs: Sequence[Pair], wires: Sequence[int], alive: int, num_local: int
) -> tuple[int, int]:
    """Amplitudes that an exchange sends: by the rank that sends most, and by all together. `wires`:
    at each position, before it. A rank sends the parts that may be nonzero."""
    if not pairs:
        return 0, 0
    rank_bits = [alive >> wires[a] & 1 for a, _ in pairs]
    local_bits = [alive >> wires[b] & 1 for _, b in pairs]
    taken = {position for pair in pairs for position in pair}
    part = others = 0
    for position, wire in enumerate(wires):
        if alive >> wire & 1 and position not in taken:
            if position < num_local:
                part += 1
            else:
                others += 1
    both = sum(a & b for a, b in zip(rank_bits, local_bits, strict=True))
    stays = all(b or not a for a, b in zip(rank_bits, local_bits, strict=True))  # in every rank
    parts = 1 << sum(local_bits)
    max_sent = parts - stays
    all_ = (parts << sum(rank_bits)) - (1 << both)
    return max_sent << part, all_ << (part + others)


def before(stage: RemapStage, wires: int) -> int:
    """Convert a mask of wires to a mask of positions before the leg's exchange."""
    result = sum(1 << stage.positions[wire] for wire in bits(wires))
    for remote, local in stage.pairs:
        if (result >> remote ^ result >> local) & 1:
            result ^= 1 << remote | 1 << local
    return result
