"""One tile: from the state into the scratch, all operations of a pass, and back."""

from __future__ import annotations

from simulators.jit import part
from simulators.statevector.sweeps import (
    AT,
    DENSE,
    KIND,
    LANES,
    MAP,
    OUTER_MASK,
    OUTER_VALUE,
    PHASE,
    REAL,
    ROW_MASK,
    ROW_OTHER,
    ROW_VALUE,
    SWAP_LANE,
    A,
    B,
    C,
)
from simulators.statevector.tiles.choice import rows
from simulators.statevector.tiles.phases import turn

ROW = 2 * LANES  # numbers of a row
_AHEAD = 12  # rows: so far ahead memory is asked for what will be loaded
_D1, _D2, _D3, _R1, _R2 = DENSE + 1, DENSE + 2, DENSE + 3, REAL + 1, REAL + 2


@part
def _fits(ops, o, base):  # type: ignore[no-untyped-def]
    return base & ops[o, OUTER_MASK] == ops[o, OUTER_VALUE]


@part
def concerned(ops, first, last, base):  # type: ignore[no-untyped-def]
    """Whether any operation changes the tile: swaps of lanes alone cancel."""
    o = first
    while o < last and (ops[o, KIND] == SWAP_LANE or not _fits(ops, o, base)):
        o += 1
    return o < last


@part
def load(amplitudes, base, offsets, numbers, known, tile, order):  # type: ignore[no-untyped-def]
    """The tile's rows, in the order of memory; those that must be 0 are not looked at.

    offsets: of each row, from the base; numbers: which row of the tile it is.
    """
    last = offsets.size - 1
    for k in range(offsets.size):
        number = numbers[k]
        order[number] = number * ROW
        at = base | offsets[k]
        if at & ~known:
            rows.clear_row(tile, number * ROW)
        else:
            rows.prefetch_row(amplitudes, 2 * (base | offsets[min(k + _AHEAD, last)]))
            rows.load_row(amplitudes, 2 * at, tile, number * ROW)


@part
def store(amplitudes, base, offsets, numbers, tile, order, norms):  # type: ignore[no-untyped-def]
    """The inverse of `load`; and the norm of each row, where `norms` has room for them."""
    for k in range(offsets.size):
        at = base | offsets[k]
        row = order[numbers[k]]
        rows.store_row(amplitudes, 2 * at, tile, row)
        if norms.size:
            norms[at // LANES] = rows.norm_row(tile, row)


@part
def _swap_lanes(tile, order, whole, lane, bit):  # type: ignore[no-untyped-def]
    free = whole & ~bit
    row = 0
    while True:
        rows.swap_lane(tile, order[row], order[row | bit], lane)
        row = (row - free) & free
        if not row:
            break


@part
def _map(order, free, value, other):  # type: ignore[no-untyped-def]
    rest = 0
    while True:
        here = order[rest | value]
        order[rest | value] = order[rest | other]
        order[rest | other] = here
        rest = (rest - free) & free
        if not rest:
            break


@part
def _multiply(tile, order, whole, kind, a, b, c, mask, value, numbers, at):  # type: ignore[no-untyped-def]
    """A matrix on the rows with that value under the mask."""
    if kind in (_D1, _R1):
        b = c = 0
    elif kind in (_D2, _R2):
        c = 0
    free = whole & ~(mask | a | b | c)
    rest = 0
    while True:
        row = rest | value
        if kind == _D1:
            rows.dense_1(tile, order, row, a, b, c, numbers, at)
        elif kind == _D2:
            rows.dense_2(tile, order, row, a, b, c, numbers, at)
        elif kind == _D3:
            rows.dense_3(tile, order, row, a, b, c, numbers, at)
        elif kind == _R1:
            rows.real_1(tile, order, row, a, b, c, numbers, at)
        elif kind == _R2:
            rows.real_2(tile, order, row, a, b, c, numbers, at)
        else:
            rows.real_3(tile, order, row, a, b, c, numbers, at)
        rest = (rest - free) & free
        if not rest:
            break


@part
def operate(  # type: ignore[no-untyped-def]
    tile, order, height, ops, first, last, terms, floats, numbers, base, factors, products
):
    """Operations first .. last - 1 on a tile of 2**height rows that has been loaded."""
    whole = (1 << height) - 1
    for o in range(first, last):
        kind = ops[o, KIND]
        if kind == SWAP_LANE:
            _swap_lanes(tile, order, whole, ops[o, A], 1 << ops[o, B])
        elif not _fits(ops, o, base):
            continue
        elif kind == MAP:
            free = whole & ~ops[o, ROW_MASK]
            _map(order, free, ops[o, ROW_VALUE], ops[o, ROW_OTHER])
        elif kind == PHASE:
            turn(tile, order, height, ops, o, terms, floats, numbers, base, factors, products)
        else:
            a, b, c = 1 << ops[o, A], 1 << ops[o, B], 1 << ops[o, C]
            mask, value = ops[o, ROW_MASK], ops[o, ROW_VALUE]
            _multiply(tile, order, whole, kind, a, b, c, mask, value, numbers, ops[o, AT])
