"""Communication schedule of a distributed state: the position of each qubit in each sweep.

Each sweep needs its tile's qubits local. Belady's rule picks the local qubit to evict: the one
whose next use is farthest. SIMD lanes are never evicted. Qubits still in |0> cost nothing to move,
so the first layout is free and early remaps are small. Pure: the executor moves the amplitudes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import msgspec

from simulators.statevector.distributed.qubit_layout import bits
from simulators.statevector.planning.tables import LANE_WIRES, SweepTable
from simulators.statevector.state import BLOCK_QUBITS

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
            moved = self._relabel(number, tile)
            pairs = self._demanded(number, tile, extra)
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
            visited += 1 << self._local(self._alive)
        return CommSchedule(self._num_local, tuple(legs), visited, sent, sent_by_all)

    def _relabel(self, number: int, tile: int) -> bool:
        """Relabel wires that have never been 1, which costs nothing: the last needed ones become
        global."""
        idle = [w for w in self._abroad() if not self._alive >> w & 1]
        never = ~self._alive & -(1 << BLOCK_QUBITS)
        free = [w for w in self._leaving(number, tile) if never >> w & 1]
        pairs = self._better(number, tile, idle, free, len(idle))
        for remote, local in pairs:
            self._swap(remote, local)
        return bool(pairs)

    def _demanded(self, number: int, tile: int, extra: int) -> tuple[Pair, ...]:
        """Exchanges that a sweep needs, and further ones that are worth doing with them."""
        abroad = self._abroad()
        wanted = sum(tile >> wire & 1 for wire in abroad)
        if not wanted:
            return ()
        return self._better(number, tile, abroad, self._leaving(number, tile), wanted + extra)

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
        free.sort(
            key=lambda wire: (
                wire < BLOCK_QUBITS,
                -self._next(wire, number),
                -self._positions[wire],
            )
        )
        return free

    def _abroad(self) -> list[int]:
        return self._wires[self._num_local :]

    def _next(self, wire: int, number: int) -> int:
        """Next pass that needs a wire, from this one on."""
        uses = self._uses[wire]
        at = bisect_left(uses, number)
        return uses[at] if at < len(uses) else len(self._tiles)

    def _local(self, wires: int) -> int:
        return sum(self._positions[wire] < self._num_local for wire in bits(wires))

    def _swap(self, a: int, b: int) -> None:
        wires = self._wires
        wires[a], wires[b] = wires[b], wires[a]
        self._positions[wires[a]], self._positions[wires[b]] = a, b


def communication_volume(
    pairs: Sequence[Pair], wires: Sequence[int], alive: int, num_local: int
) -> tuple[int, int]:
    """Amplitudes that an exchange sends: by the rank that sends most, and by all together.

    `wires`: at each position, before it. A rank sends the parts that may be nonzero.
    """
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
