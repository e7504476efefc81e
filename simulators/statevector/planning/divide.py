"""Blocks into passes, pass by pass: choose the tile, take the blocks, write their operations."""

from __future__ import annotations

from simulators.circuit.fuse import CONDITION, IS_REAL, KIND, MOVES, cost
from simulators.jit import I64, INT, INTS2, INTS3, REALS, kernel
from simulators.statevector.planning.choose import choose, filled, take
from simulators.statevector.planning.emit import restore, write
from simulators.statevector.planning.layout import enter
from simulators.statevector.planning.written import AFTER, BLOCKS, COUNTERS, OPS, SPARE, TAKEN
from simulators.statevector.sweeps import LANE_WIRES

_CANDIDATES = 16  # ways in which a tile may grow that are looked at
_MOST_OPS = 12  # of one block, and half of what brings lanes back
DONE = 0.5  # what a block's being done is worth, beside its work


@kernel(I64, INT, INT, I64, I64)
def sorted_members(block_of, size, blocks, starts, members):  # type: ignore[no-untyped-def]
    """members[starts[b] : starts[b + 1]]: the elements of each block, in order."""
    for b in range(blocks + 1):
        starts[b] = 0
    for e in range(size):
        starts[block_of[e] + 1] += 1
    for b in range(blocks):
        starts[b + 1] += starts[b]
    for e in range(size):
        b = block_of[e]
        members[starts[b]] = e
        starts[b] += 1
    for b in range(blocks, 0, -1):
        starts[b] = starts[b - 1]
    starts[0] = 0


@kernel(INTS3, INT, INTS2, REALS, INT, INT, INT, I64, INTS2, I64, INTS3, I64, returns=INT)
def divide(  # type: ignore[no-untyped-def]
    given, size, notes, work, num_wires, width, live, starts, places, lives, out, done
):
    """Write the table of all passes of so many blocks; returns how many passes, or -1: `out` has
    too few rows.

    `given`, `notes`, `out`, `done`: see `written`. `live`: wires along which something is not 0 at
    the begin. `starts`, `places`, `lives`: see `sweeps`.
    """
    blocks, after = given[BLOCKS], notes[AFTER]
    candidates, spare = notes[SPARE][:_CANDIDATES], notes[SPARE][:0]
    everything, lanes = (1 << num_wires) - 1, (1 << LANE_WIRES) - 1
    for k in range(COUNTERS):
        done[k] = 0
    for k in range(size + 1):
        after[k] = k
    passes = 0
    starts[0] = 0
    while after[0] < size:
        tile = choose(blocks, work, after, size, lanes, width, live, num_wires, candidates, spare)
        found = take(blocks, size, tile, everything, notes)
        if done[OPS] + _MOST_OPS * (found + 2) > out.shape[1]:
            return -1
        tile = filled(tile, live, width, num_wires)
        for k in range(found):
            live |= blocks[notes[TAKEN, k], MOVES]
        enter(tile, num_wires, places, passes, notes)
        write(found, width, given, notes, out, done)
        restore(width, notes, out, done)
        lives[passes] = live
        passes += 1
        starts[passes] = done[OPS]
    return passes


@kernel(INTS2, INT, REALS)
def weigh(blocks, size, work):  # type: ignore[no-untyped-def]
    """What each block costs, and something for its being done."""
    for b in range(size):
        kind = blocks[b, KIND]
        work[b] = DONE + cost(kind, blocks[b, MOVES], blocks[b, CONDITION], blocks[b, IS_REAL])
