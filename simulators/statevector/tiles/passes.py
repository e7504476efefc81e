"""Passes over a state, tile by tile, by as many threads as come."""

from __future__ import annotations

from simulators.circuit.masks import count
from simulators.jit import part
from simulators.statevector.sweeps import LANE_WIRES
from simulators.statevector.tiles.claims import add, look, wait
from simulators.statevector.tiles.phases import FACTORS, spread
from simulators.statevector.tiles.tile import PHASES, concerned, load, operate, store


@part
def _arrange(places, p, width, offsets, numbers):  # type: ignore[no-untyped-def]
    """The rows of a pass's tiles in the order of memory; returns the tile's wires, as a mask."""
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
        numbers[k] = number
        at = (at - above) & above
    return inside


@part
def run(  # type: ignore[no-untyped-def]
    amplitudes, n, width, starts, places, live, ops, terms, floats, numbers, first, last, high,
    known, most, me, threads, marks, control, scratch, words, products, norms,
):  # fmt: skip
    """Passes first .. last - 1, as far as other threads do not do them; 0, or 1 if stopped.

    Each of `threads` threads calls this with its number `me`, scratch, words and products of its
    own, and the same of all else; it returns when all is done. Control flag and `marks`: int64,
    marks [(last - first) * (threads + 1)] and 0 at the begin. `known`: wires that may be 1 where an
    amplitude is not 0. `most`: see `tile.operate`. `high`: added to every base. norms: float64
    [2**(n - LANE_WIRES)], written by the last pass; or empty.
    """
    height = width - LANE_WIRES
    size = 1 << height
    offsets, order, which = words[:size], words[size : 2 * size], words[2 * size : 3 * size]
    own = scratch.size - PHASES * (2 * size + FACTORS)
    tile, factors, notes = scratch[:own], scratch[own:], words[3 * size :]
    none = norms[:0]
    for p in range(first, last):
        inside = _arrange(places, p, width, offsets, which)
        outside = live[p] & ~inside & ((1 << n) - 1)
        tiles = 1 << count(outside)
        if high & ~live[p]:
            tiles = 0
        filled = norms if p == last - 1 else none
        all_tiles = filled.size > 0 or live[p] & ~known != 0  # new amplitudes are to be written
        mark = (p - first) * (threads + 1)
        done = 0
        for turn in range(threads):
            owner = (me + turn) % threads
            begin, end = tiles * owner // threads, tiles * (owner + 1) // threads
            while True:
                mine = begin + add(marks, mark + owner, 1)
                if mine >= end:
                    break
                if look(control, 0):
                    return 1
                here = spread(mine, outside)
                base = here | high
                if all_tiles or concerned(ops, starts[p], starts[p + 1], base):
                    load(amplitudes, here, offsets, which, known, tile, order)
                    operate(
                        tile, order, height, most, ops, starts[p], starts[p + 1], terms, floats,
                        numbers, base, factors, products, notes,
                    )  # fmt: skip
                    store(amplitudes, here, offsets, which, tile, order, filled)
                done += 1
        if threads > 1:
            add(marks, mark + threads, done)
            if not wait(marks, mark + threads, tiles, control):
                return 1
        known = live[p]
    return 0
