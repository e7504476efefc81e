"""Rows on their way between the state and the scratch while another tile is computed there.

Processors compute on tiles as fast as they bring them from memory, or slower; so both go on at
once. There are two tiles in the scratch. While the operations of a pass work on one, the rows of
the other go back to the state, each making room for a row of the tile that comes next: few rows
after every little work, so that memory is asked steadily.
"""

from __future__ import annotations

from simulators.jit import part
from simulators.statevector.sweeps import LANES
from simulators.statevector.tiles.choice import rows

ROW = 2 * LANES  # numbers of a row
# What is known of a stream: where the tiles that leave and come begin in the state (NONE: there is
# no such tile); which wires may be 1 where something is not 0; how many rows have gone their way;
# the work done since the last ones, and for how much work the next go.
LEAVES, COMES, KNOWN, GONE, DONE, PRICE = range(6)
WORDS = 6
NONE = -1
TOGETHER = 2  # rows that go their way one behind the other
_AHEAD = 2  # rows: so far ahead memory is asked for; for more it would be asked in vain


@part
def place(number):  # type: ignore[no-untyped-def]
    """Where a row of this number begins in the scratch at first: rows that are computed together
    share no place in the first cache."""
    return (number + (number >> 3) + (number >> 6)) * ROW


@part
def begin(stream, leaves, comes):  # type: ignore[no-untyped-def]
    """Other tiles are to leave and to come."""
    stream[LEAVES], stream[COMES], stream[GONE] = leaves, comes, 0


@part
def flow(stream, until, offsets, numbers, amplitudes, tile, order, norms):  # type: ignore[no-untyped-def]
    """Rows before `until` go their way, in the order of memory.

    `offsets`: of each, from where its tile begins; `numbers`: which row of the tile it is;
    order[number]: where that one begins in `tile`. The norms of those that leave are written where
    `norms` has room. Rows that must be 0 are not looked at.
    """
    leaves, comes, known = stream[LEAVES], stream[COMES], stream[KNOWN]
    last = offsets.size - 1
    for k in range(stream[GONE], until):
        row = order[numbers[k]]
        ahead = offsets[min(k + _AHEAD, last)]
        if leaves != NONE:
            at = leaves | offsets[k]
            rows.store_row(amplitudes, 2 * at, tile, row)
            if norms.size:
                norms[at // LANES] = rows.norm_row(tile, row)
        if comes != NONE:
            at = comes | offsets[k]
            if at & ~known:
                rows.clear_row(tile, row)
            else:
                rows.prefetch_row(amplitudes, 2 * (comes | ahead))
                rows.load_row(amplitudes, 2 * at, tile, row)
    stream[GONE] = until


@part
def some(stream, offsets, numbers, amplitudes, tile, order, norms):  # type: ignore[no-untyped-def]
    """The next few rows go their way, if there are any left; see `flow`."""
    until = min(stream[GONE] + TOGETHER, offsets.size)
    flow(stream, until, offsets, numbers, amplitudes, tile, order, norms)
