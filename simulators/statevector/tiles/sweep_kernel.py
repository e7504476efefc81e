"""Sweep kernels of both precisions: cache-blocked, tile by tile, by any number of threads."""

from __future__ import annotations

from simulators.compiler.bit_ops import count
from simulators.compiler.kernel import I64, INT, INTS2, REALS, SINGLES, device_function, kernel
from simulators.statevector.planning.tables import LANE_WIRES
from simulators.statevector.tiles.norms import fill, locate
from simulators.statevector.tiles.phase_ops import FACTORS, spread
from simulators.statevector.tiles.tile_ops import PHASES, concerned, load, operate, store
from simulators.statevector.tiles.work_sharing import fetch_add, load_acquire, spin_wait


@device_function
def _arrange(places, p, width, offsets, tile_rows):  # type: ignore[no-untyped-def]
    """Order the rows of a pass's tiles by memory; returns the mask of the tile's wires."""
    inside = 0
    for j in range(width):
        inside |= 1 << places[p, j]
    above = inside >> LANE_WIRES << LANE_WIRES
    at = 0
    for k in range(offsets.size):
        offsets[k] = at
        number = 0
        for j in range(LANE_WIRES, width):
            number |= (at >> places[p, j] & 1) << (j - LANE_WIRES)
        tile_rows[k] = number
        at = (at - above) & above
    return inside


@device_function
def run(  # type: ignore[no-untyped-def]
    amplitudes, n, width, starts, places, live, ops, terms, floats, rounded, first, last, high,
    alive, limit, me, threads, marks, control, scratch, int_scratch, products, norms,
):  # fmt: skip
    """Run passes first .. last - 1, shared with other threads; returns 0, or 1 if stopped.

    Each of `threads` threads calls this with its number `me`, its own scratch, words and products,
    and the same other arguments; it returns when all passes are done. Control flag and `marks`:
    int64, marks [(last - first) * (threads + 1)], initially 0. `alive`: wires that may be 1 in an
    amplitude that is not 0. `limit`: see `tile_ops.operate`. `high`: added to every base. norms:
    float64 [2**(n - LANE_WIRES)], written by the last pass; or empty.
    """
    height = width - LANE_WIRES
    size = 1 << height
    offsets, order, which = (
        int_scratch[:size],
        int_scratch[size : 2 * size],
        int_scratch[2 * size : 3 * size],
    )
    own = scratch.size - PHASES * (2 * size + FACTORS)
    tile, factors, notes = scratch[:own], scratch[own:], int_scratch[3 * size :]
    none = norms[:0]
    for p in range(first, last):
        inside = _arrange(places, p, width, offsets, which)
        outside = live[p] & ~inside & ((1 << n) - 1)
        tiles = 1 << count(outside)
        if high & ~live[p]:
            tiles = 0
        filled = norms if p == last - 1 else none
        all_tiles = filled.size > 0 or live[p] & ~alive != 0  # new amplitudes must be written
        mark = (p - first) * (threads + 1)
        done = 0
        for turn in range(threads):
            owner = (me + turn) % threads
            begin, end = tiles * owner // threads, tiles * (owner + 1) // threads
            while True:
                mine = begin + fetch_add(marks, mark + owner, 1)
                if mine >= end:
                    break
                if load_acquire(control, 0):
                    return 1
                local_base = spread(mine, outside)
                base = local_base | high
                if all_tiles or concerned(ops, starts[p], starts[p + 1], base):
                    load(amplitudes, local_base, offsets, which, alive, tile, order)
                    operate(
                        tile, order, height, limit, ops, starts[p], starts[p + 1], terms, floats,
                        rounded, base, factors, products, notes,
                    )  # fmt: skip
                    store(amplitudes, local_base, offsets, which, tile, order, filled)
                done += 1
        if threads > 1:
            fetch_add(marks, mark + threads, done)
            if not spin_wait(marks, mark + threads, tiles, control):
                return 1
        alive = live[p]
    return 0


run_double = kernel(
    REALS, INT, INT, I64, INTS2, I64, INTS2, INTS2, REALS, REALS, INT, INT, INT, INT, INT, INT, INT,
    I64, I64, REALS, I64, REALS, REALS, returns=INT, group="wide", precision="double",
)(run)  # fmt: skip
fill_double = kernel(REALS, INT, INT, REALS, group="wide", precision="double")(fill)
locate_double = kernel(
    REALS, REALS, INT, I64, INT, INT, REALS, I64, REALS, I64, group="wide", precision="double"
)(locate)
run_single = kernel(
    SINGLES, INT, INT, I64, INTS2, I64, INTS2, INTS2, REALS, SINGLES, INT, INT, INT, INT, INT, INT,
    INT, I64, I64, SINGLES, I64, REALS, REALS, returns=INT, group="deferred", precision="single",
)(run)  # fmt: skip
fill_single = kernel(SINGLES, INT, INT, REALS, group="deferred", precision="single")(fill)
locate_single = kernel(
    SINGLES, REALS, INT, I64, INT, INT, REALS, I64, REALS, I64, group="deferred", precision="single"
)(locate)
