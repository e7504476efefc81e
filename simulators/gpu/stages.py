"""Stages of a sweep: the places of a tile that are in registers, and the operations there.

A GPU keeps a tile in the registers of a block of threads, 2**REGISTERS amplitudes a thread. A stage
chooses these places of the tile. Operations move amplitude along such places only; conditions and
phases may read all places. Between two stages the amplitudes pass once through shared memory, where
index maps (X, CX, SWAP, Toffoli) cost nothing. SWAP_LANE_ROW and plain SWAPs rename places.

The stages follow from the sweep table alone, never from parameters.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.statevector.planning import tables as t
from simulators.statevector.planning.tables import LANE_WIRES, MOST_WIDTH, SweepTable

REGISTERS = 4  # register places of a thread
DENSE, REAL, FLIP, PHASE = range(4)  # kinds of the kernel, see kernels/sweep.cuh
MAP = 9  # done during the exchange through shared memory
_ALL_PLACES = (1 << MOST_WIDTH) - 1
_WORK = {DENSE: 2.0, REAL: 1.0, FLIP: 0.3, PHASE: 0.5, MAP: 0.0}  # benefit in the present stage
_LOOKAHEAD = 60  # operations that determine the places of a stage


class PhaseTables(msgspec.Struct, frozen=True):
    """Tables of a PHASE, by the tile's own places; see kernels/phase.cuh."""

    crossing: int  # row bits that choose the table of lanes
    rows: int
    first_term: int
    terms: int
    columns: tuple[int, ...]  # column of each place


class TileOperation(msgspec.Struct, frozen=True):
    """One operation of a sweep, by the tile's own places."""

    kind: int
    places: tuple[int, ...]  # amplitude moves along these; bit k of a matrix' index is places[k]
    mask: int  # condition on places of the tile; of a MAP, the places it reads
    value: int
    outer_mask: int  # condition on the tile's base
    outer_value: int
    at: int = 0  # position of its numbers
    other: int = 0  # for a MAP: the value that is exchanged with `value`
    phase: PhaseTables | None = None

    @property
    def moves(self) -> int:
        """Mask of the places along which it moves amplitude."""
        return sum(1 << place for place in self.places)

    @property
    def looks(self) -> int:
        """Mask of the other places that it depends on."""
        return _ALL_PLACES if self.kind == PHASE else self.mask & ~self.moves


class Stage(msgspec.Struct, frozen=True):
    """One stage; its maps are done in the exchange before it."""

    registers: tuple[int, ...]
    maps: tuple[TileOperation, ...]
    operations: tuple[TileOperation, ...]


def tile_operations(plan: SweepTable, number: int) -> list[TileOperation]:
    """Operations of pass `number`, by places that no lane exchange moves."""
    reader = _TableReader(plan)
    first, last = int(plan.starts[number]), int(plan.starts[number + 1])
    for row in plan.ops[first:last].tolist():
        reader.read(row)
    reader.restore()
    return reader.operations


class _TableReader:
    """Reader of the rows of a table; it tracks the amplitude bit that the table calls place k."""

    def __init__(self, plan: SweepTable) -> None:
        self.operations: list[TileOperation] = []
        self._width = plan.width
        self._at = list(range(plan.width))

    def read(self, row: list[int]) -> None:
        """Read the next operation."""
        kind = row[t.KIND]
        mask, value = self._places(row[t.ROW_MASK]), self._places(row[t.ROW_VALUE])
        outer = (row[t.OUTER_MASK], row[t.OUTER_VALUE])
        if kind == t.SWAP_LANE_ROW:
            self._rename(self._at[row[t.A]], self._at[LANE_WIRES + row[t.B]])
        elif kind == t.PERMUTE_ROWS:
            self._permutation(mask, value, self._places(row[t.ROW_OTHER]), outer)
        elif kind == t.PHASE:
            tables = self._phase_tables(row)
            self.operations.append(
                TileOperation(PHASE, (), mask, value, *outer, at=row[t.AT], phase=tables)
            )
        else:
            is_real = kind > t.REAL
            wires = kind - (t.REAL if is_real else t.DENSE)
            places = tuple(self._at[LANE_WIRES + row[t.A + k]] for k in range(wires))
            built = REAL if is_real else DENSE
            self.operations.append(TileOperation(built, places, mask, value, *outer, at=row[t.AT]))

    def restore(self) -> None:
        """Append exchanges that return renamed bits to their own places."""
        for place in range(self._width):
            other = self._at[place]
            if other != place:
                both = 1 << place | 1 << other
                self.operations.append(
                    TileOperation(MAP, (place, other), both, 1 << place, 0, 0, other=1 << other)
                )
                self._rename(place, other)

    def _places(self, rows: int) -> int:
        bits = range(self._width - LANE_WIRES)
        return sum(1 << self._at[LANE_WIRES + bit] for bit in bits if rows >> bit & 1)

    def _rename(self, a: int, b: int) -> None:
        first, second = self._at.index(a), self._at.index(b)
        self._at[first], self._at[second] = b, a

    def _permutation(self, mask: int, value: int, other: int, outer: tuple[int, int]) -> None:
        moved = tuple(place for place in range(MOST_WIDTH) if (value ^ other) >> place & 1)
        is_swap = len(moved) == 2 and mask == value ^ other and value and other
        if is_swap and not outer[0]:
            self._rename(*moved)
        elif len(moved) == 1:
            bit = 1 << moved[0]
            self.operations.append(TileOperation(FLIP, moved, mask & ~bit, value & ~bit, *outer))
        else:
            self.operations.append(TileOperation(MAP, moved, mask, value, *outer, other=other))

    def _phase_tables(self, row: list[int]) -> PhaseTables:
        crossing = [bit for bit in range(MOST_WIDTH) if row[t.CROSS] >> bit & 1]
        columns = [0] * self._width
        for place in range(self._width):
            bit = place - LANE_WIRES
            column = 1 << place << 32 if bit < 0 else 1 << bit
            if bit in crossing:
                column |= 1 << (LANE_WIRES + crossing.index(bit)) << 32
            columns[self._at[place]] = column
        rows = 1 << (self._width - LANE_WIRES)
        terms = row[t.FIRST_TERM], row[t.TERMS]
        return PhaseTables(len(crossing), rows, *terms, tuple(columns))


def divide_into_stages(
    operations: list[TileOperation], width: int, num_low: int
) -> tuple[Stage, ...]:
    """Stages of a sweep, chosen greedily: each stage is the one with the most benefit before the
    next exchange.

    The first and the last stage keep the `num_low` lowest places out of registers, so that
    neighbouring threads have neighbours in memory.
    """
    everywhere, above = _register_sets(width, 0), _register_sets(width, num_low)
    top = tuple(range(width - REGISTERS, width))
    chosen, done, left = _best_stage(operations, above, top)
    results = [Stage(chosen, (), tuple(done))]
    while left:
        maps, left = _split(left, lambda op: op.kind in (MAP, FLIP))
        chosen, done, rest = _best_stage(left, everywhere, results[-1].registers)
        if not rest and chosen[0] < num_low:  # another choice may make this stage the last one
            other, more, remaining = _best_stage(left, above, top)
            if not remaining:
                chosen, done, rest = other, more, remaining
        results.append(Stage(chosen, tuple(maps), tuple(done)))
        left = rest
    if results[-1].registers[0] < num_low:
        results.append(Stage(top, (), ()))
    return tuple(results)


@functools.cache
def _register_sets(width: int, lowest: int) -> tuple[list[tuple[int, ...]], NDArray[np.int64]]:
    """All sets of register places from `lowest` on, and their masks."""
    sets = list(itertools.combinations(range(lowest, width), REGISTERS))
    return sets, np.array([sum(1 << place for place in each) for each in sets], np.int64)


def _best_stage(
    operations: list[TileOperation],
    candidates: tuple[list[tuple[int, ...]], NDArray[np.int64]],
    otherwise: tuple[int, ...],
) -> tuple[tuple[int, ...], list[TileOperation], list[TileOperation]]:
    """Best set of registers, the operations that are done with them, and the remaining ones."""
    sets, masks = candidates
    moved, looked, worth = np.zeros_like(masks), np.zeros_like(masks), np.zeros(masks.size)
    for op in operations[:_LOOKAHEAD]:
        moves, looks = op.moves, op.looks
        able = (moved | looked) & moves | moved & looks | moves & ~masks
        if op.kind == MAP:
            able |= 1
        waits = able != 0
        worth += np.where(waits, 0.0, _WORK[op.kind] * 2.0 ** len(op.places))
        moved |= np.where(waits, moves, 0)
        looked |= np.where(waits, looks, 0)
    best = int(np.argmax(worth)) if worth.size else 0
    chosen = sets[best] if worth.size and worth[best] > 0.0 else otherwise
    mask = sum(1 << place for place in chosen)
    done, left = _split(operations, lambda op: op.kind != MAP and not op.moves & ~mask)
    return chosen, done, left


def _split(
    operations: list[TileOperation], admits: Callable[[TileOperation], bool]
) -> tuple[list[TileOperation], list[TileOperation]]:
    """Admitted operations that can be done now, in order, and the remaining ones."""
    moved = looked = 0
    done: list[TileOperation] = []
    left: list[TileOperation] = []
    for op in operations:
        moves, looks = op.moves, op.looks
        if admits(op) and not moves & (moved | looked) and not looks & moved:
            done.append(op)
        else:
            moved |= moves
            looked |= looks
            left.append(op)
    return done, left
