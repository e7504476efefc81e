"""All operations of a pass on one tile in the scratch, while the rows of another come and go."""

from __future__ import annotations

from simulators.circuit.masks import count
from simulators.jit import part
from simulators.statevector.sweeps import (
    AT,
    DENSE,
    KIND,
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
from simulators.statevector.tiles.phases import NOTES, prepare, turn
from simulators.statevector.tiles.stream import DONE, PRICE, TOGETHER, flow, some

PHASES = 4  # operations of that kind that are made ready together
_WHOLE = 16  # what is counted as work: so much is a multiplication of all rows by one number
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
def _swap_lanes(  # type: ignore[no-untyped-def]
    tile, order, strip, at, lane, bit, unit, stream, offsets, which, amplitudes, other, seats,
    norms,
):  # fmt: skip
    free = strip & ~bit
    rest = free - free
    done, price = stream[DONE], stream[PRICE]
    while True:
        row = rest | at
        rows.swap_lane(tile, order[row], order[row | bit], lane)
        done += unit
        if done >= price:
            done -= price
            some(stream, offsets, which, amplitudes, other, seats, norms)
        rest = (rest - free) & free
        if not rest:
            break
    stream[DONE] = done


@part
def _map(order, free, value, other):  # type: ignore[no-untyped-def]
    rest = free - free
    while True:
        here = order[rest | value]
        order[rest | value] = order[rest | other]
        order[rest | other] = here
        rest = (rest - free) & free
        if not rest:
            break


@part
def _multiply(  # type: ignore[no-untyped-def]
    tile, order, kind, free, value, a, b, c, numbers, at, unit, stream, offsets, which, amplitudes,
    other, seats, norms,
):  # fmt: skip
    """A matrix on row bits a, b, c, in all rows value | some of `free`."""
    rest = free - free
    done, price = stream[DONE], stream[PRICE]
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
        done += unit
        if done >= price:
            done -= price
            some(stream, offsets, which, amplitudes, other, seats, norms)
        rest = (rest - free) & free
        if not rest:
            break
    stream[DONE] = done


@part
def _moves(ops, o):  # type: ignore[no-untyped-def]
    """The row bits of which an operation needs both values at once."""
    kind = ops[o, KIND]
    if kind == PHASE:
        return kind - kind
    if kind == MAP:
        return ops[o, ROW_VALUE] ^ ops[o, ROW_OTHER]
    if kind == SWAP_LANE:
        return 1 << ops[o, B]
    found = 1 << ops[o, A]
    if kind not in (_D1, _R1):
        found |= 1 << ops[o, B]
        if kind not in (_D2, _R2):
            found |= 1 << ops[o, C]
    return found


@part
def _work(kind):  # type: ignore[no-untyped-def]
    """Of an operation on one row, about."""
    if kind == SWAP_LANE:
        return _WHOLE // 2
    if kind == MAP:
        return 0
    if kind == PHASE:
        return _WHOLE
    if kind > REAL:
        return _WHOLE << (kind - REAL) >> 1
    return _WHOLE << kind


@part
def _all_work(ops, first, last, base):  # type: ignore[no-untyped-def]
    """Of operations on a tile, for each of its rows."""
    found = 0
    for o in range(first, last):
        if ops[o, KIND] == SWAP_LANE or _fits(ops, o, base):
            found += _work(ops[o, KIND]) >> min(count(ops[o, ROW_MASK]), 4)
    return found


@part
def _filled(strip, whole, most):  # type: ignore[no-untyped-def]
    """The strip with more of the lowest row bits, `most` in all; the whole tile if it has more."""
    found = count(strip)
    if found > most:
        return whole
    rest = whole & ~strip
    while found < most and rest:
        strip |= rest & -rest
        rest &= rest - 1
        found += 1
    return strip


@part
def _act(  # type: ignore[no-untyped-def]
    tile, order, height, ops, o, strip, at, numbers, factors, notes, stream, offsets, which,
    amplitudes, other, seats, norms,
):  # fmt: skip
    """Operation o on the rows at | some of the bits `strip`."""
    kind = ops[o, KIND]
    mask, value, unit = ops[o, ROW_MASK], ops[o, ROW_VALUE], _work(kind)
    if kind == SWAP_LANE:
        _swap_lanes(
            tile, order, strip, at, ops[o, A], 1 << ops[o, B], 2 * unit, stream, offsets, which,
            amplitudes, other, seats, norms,
        )  # fmt: skip
    elif (at ^ value) & mask & ~strip:
        return
    elif kind == MAP:
        here, there = at | value & strip, at | ops[o, ROW_OTHER] & strip
        _map(order, strip & ~mask, here, there)
    elif kind == PHASE:
        turn(
            tile, order, height, ops, o, strip, at, numbers, factors, notes, unit, stream, offsets,
            which, amplitudes, other, seats, norms,
        )  # fmt: skip
    else:
        free = strip & ~(mask | _moves(ops, o))
        a, b, c = 1 << ops[o, A], 1 << ops[o, B], 1 << ops[o, C]
        _multiply(
            tile, order, kind, free, at | value & strip, a, b, c, numbers, ops[o, AT],
            unit << count(_moves(ops, o)), stream, offsets, which, amplitudes, other, seats, norms,
        )  # fmt: skip


@part
def operate(  # type: ignore[no-untyped-def]
    tile, order, height, most, ops, first, last, terms, floats, numbers, base, factors, products,
    notes, stream, offsets, which, amplitudes, other, seats, norms,
):  # fmt: skip
    """Operations first .. last - 1 on a tile of 2**height rows that has been loaded.

    Operations that follow one another go together over strips of 2**most rows, which stay in the
    first cache. `factors` and `notes`: room for PHASES operations. Meanwhile the rows of the
    `other` tile, which are at `seats`, go their way: see `stream.flow`.
    """
    stream[DONE] = 0
    stream[PRICE] = TOGETHER * _all_work(ops, first, last, base)
    whole = (1 << height) - 1
    room = factors.size // PHASES
    o = first
    while o < last:
        strip = phases = acting = o - o
        end = o
        while end < last:
            if ops[end, KIND] == SWAP_LANE or _fits(ops, end, base):
                wider = strip | _moves(ops, end)
                if acting and count(wider) > most:
                    break
                if ops[end, KIND] == PHASE:
                    if phases == PHASES:
                        break
                    own = factors[phases * room : (phases + 1) * room]
                    said = notes[phases * NOTES : (phases + 1) * NOTES]
                    prepare(ops, end, height, terms, floats, numbers, base, own, products, said)
                    phases += 1
                strip = wider
                acting += 1
            end += 1
        strip = _filled(strip, whole, most) if acting > 1 else whole
        outside = whole & ~strip
        at = o - o
        while acting:
            phases = 0
            for k in range(o, end):
                if ops[k, KIND] == SWAP_LANE or _fits(ops, k, base):
                    own = factors[phases * room : (phases + 1) * room]
                    said = notes[phases * NOTES : (phases + 1) * NOTES]
                    _act(
                        tile, order, height, ops, k, strip, at, numbers, own, said, stream, offsets,
                        which, amplitudes, other, seats, norms,
                    )  # fmt: skip
                    phases += ops[k, KIND] == PHASE
            at = (at - outside) & outside
            if not at:
                break
        o = end
    flow(stream, offsets.size, offsets, which, amplitudes, other, seats, norms)
