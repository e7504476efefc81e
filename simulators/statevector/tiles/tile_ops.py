"""Operations on one tile: load from the state, apply all operations of a sweep, store."""

from simulators.compiler.kernel import device_function
from simulators.compiler.simd import count
from simulators.statevector.planning import tables as t
from simulators.statevector.tiles import row_ops as rows
from simulators.statevector.tiles.phase_ops import NOTES, prepare, turn

ROW = 2 * t.LANES  # numbers of a row
PHASES = 4  # operations of that kind that are prepared together
_AHEAD = 12  # prefetch distance in rows
_D1, _D2, _D3, _R1, _R2 = t.DENSE + 1, t.DENSE + 2, t.DENSE + 3, t.REAL + 1, t.REAL + 2


@device_function
def _fits(ops, o, base):  # type: ignore[no-untyped-def]
    return base & ops[o, t.OUTER_MASK] == ops[o, t.OUTER_VALUE]


@device_function
def concerned(ops, first, last, base):  # type: ignore[no-untyped-def]
    """Return whether any operation changes the tile: lane swaps alone cancel."""
    o = first
    while o < last and (ops[o, t.KIND] == t.SWAP_LANE_ROW or not _fits(ops, o, base)):
        o += 1
    return o < last


@device_function
def load(amplitudes, base, offsets, tile_rows, alive, tile, order):  # type: ignore[no-untyped-def]
    """Load the tile's rows, in the order of memory; rows that must be 0 are not read. offsets: of
    each row, from the base; tile_rows: index of each row in the tile."""
    last = offsets.size - 1
    for k in range(offsets.size):
        number = tile_rows[k]
        row = order[number] = (number + (number >> 3) + (number >> 6)) * ROW
        at = base | offsets[k]
        if at & ~alive:
            rows.clear_row(tile, row)
        else:
            rows.prefetch_row(amplitudes, 2 * (base | offsets[min(k + _AHEAD, last)]))
            rows.load_row(amplitudes, 2 * at, tile, row)


@device_function
def store(amplitudes, base, offsets, tile_rows, tile, order, norms):  # type: ignore[no-untyped-def]
    """Store the rows, the inverse of `load`; and write the norm of each row, if `norms` is not
    empty."""
    last = offsets.size - 1
    for k in range(offsets.size):
        at = base | offsets[k]
        row = order[tile_rows[k]]
        rows.prefetch_row(amplitudes, 2 * (base | offsets[min(k + _AHEAD, last)]))
        rows.store_row(amplitudes, 2 * at, tile, row)
        if norms.size:
            norms[at // t.LANES] = rows.norm_row(tile, row)


@device_function
def _swap_lanes(tile, order, strip, at, lane, bit):  # type: ignore[no-untyped-def]
    free = strip & ~bit
    rest = free - free
    while True:
        row = rest | at
        rows.swap_lane(tile, order[row], order[row | bit], lane)
        rest = (rest - free) & free
        if not rest:
            break


@device_function
def _map(order, free, value, other):  # type: ignore[no-untyped-def]
    rest = free - free
    while True:
        row = order[rest | value]
        order[rest | value] = order[rest | other]
        order[rest | other] = row
        rest = (rest - free) & free
        if not rest:
            break


@device_function
def _multiply(tile, order, kind, free, value, a, b, c, rounded, at):  # type: ignore[no-untyped-def]
    """Apply a matrix on row bits a, b, c to all rows value | some of `free`."""
    rest = free - free
    while True:
        row = rest | value
        if kind == _D1:
            rows.dense_1(tile, order, row, a, b, c, rounded, at)
        elif kind == _D2:
            rows.dense_2(tile, order, row, a, b, c, rounded, at)
        elif kind == _D3:
            rows.dense_3(tile, order, row, a, b, c, rounded, at)
        elif kind == _R1:
            rows.real_1(tile, order, row, a, b, c, rounded, at)
        elif kind == _R2:
            rows.real_2(tile, order, row, a, b, c, rounded, at)
        else:
            rows.real_3(tile, order, row, a, b, c, rounded, at)
        rest = (rest - free) & free
        if not rest:
            break


@device_function
def _moves(ops, o):  # type: ignore[no-untyped-def]
    """Row bits of which an operation needs both values at once."""
    kind = ops[o, t.KIND]
    if kind == t.PHASE:
        return kind - kind
    if kind == t.PERMUTE_ROWS:
        return ops[o, t.ROW_VALUE] ^ ops[o, t.ROW_OTHER]
    if kind == t.SWAP_LANE_ROW:
        return 1 << ops[o, t.B]
    result = 1 << ops[o, t.A]
    if kind not in (_D1, _R1):
        result |= 1 << ops[o, t.B]
        if kind not in (_D2, _R2):
            result |= 1 << ops[o, t.C]
    return result


@device_function
def _filled(strip, full, limit):  # type: ignore[no-untyped-def]
    """Extend the strip by the lowest row bits to `limit` in all; the whole tile if it has more."""
    result = count(strip)
    if result > limit:
        return full
    rest = full & ~strip
    while result < limit and rest:
        strip |= rest & -rest
        rest &= rest - 1
        result += 1
    return strip


@device_function
def _act(tile, order, height, ops, o, strip, at, rounded, factors, notes):  # type: ignore[no-untyped-def]
    """Apply operation o to the rows at | some of the bits `strip`."""
    kind = ops[o, t.KIND]
    mask, value = ops[o, t.ROW_MASK], ops[o, t.ROW_VALUE]
    if kind == t.SWAP_LANE_ROW:
        _swap_lanes(tile, order, strip, at, ops[o, t.A], 1 << ops[o, t.B])
    elif (at ^ value) & mask & ~strip:
        return
    elif kind == t.PERMUTE_ROWS:
        row, other = at | value & strip, at | ops[o, t.ROW_OTHER] & strip
        _map(order, strip & ~mask, row, other)
    elif kind == t.PHASE:
        turn(tile, order, height, ops, o, strip, at, rounded, factors, notes)
    else:
        free = strip & ~(mask | _moves(ops, o))
        a, b, c = 1 << ops[o, t.A], 1 << ops[o, t.B], 1 << ops[o, t.C]
        _multiply(tile, order, kind, free, at | value & strip, a, b, c, rounded, ops[o, t.AT])


@device_function
def operate(  # type: ignore[no-untyped-def]
    tile, order, limit, sweeps, first, last, rounded, base, factors, products, notes
):
    """Apply operations first .. last - 1 of `sweeps` to a loaded tile. Consecutive operations are
    applied together to strips of 2**limit rows, which stay in the first cache. `rounded`: the
    sweeps' floats in the precision of the tile; `factors` and `notes`: room for PHASES
    operations."""
    ops, terms, floats = sweeps.ops, sweeps.terms, sweeps.floats
    height = sweeps.width - t.LANE_WIRES
    full = (1 << height) - 1
    room = factors.size // PHASES
    o = first
    while o < last:
        strip = phases = acting = o - o
        end = o
        while end < last:
            if ops[end, t.KIND] == t.SWAP_LANE_ROW or _fits(ops, end, base):
                wider = strip | _moves(ops, end)
                if acting and count(wider) > limit:
                    break
                if ops[end, t.KIND] == t.PHASE:
                    if phases == PHASES:
                        break
                    own = factors[phases * room : (phases + 1) * room]
                    its = notes[phases * NOTES : (phases + 1) * NOTES]
                    prepare(ops, end, height, terms, floats, rounded, base, own, products, its)
                    phases += 1
                strip = wider
                acting += 1
            end += 1
        strip = _filled(strip, full, limit) if acting > 1 else full
        outside = full & ~strip
        at = o - o
        while acting:
            phases = 0
            for k in range(o, end):
                if ops[k, t.KIND] == t.SWAP_LANE_ROW or _fits(ops, k, base):
                    own = factors[phases * room : (phases + 1) * room]
                    its = notes[phases * NOTES : (phases + 1) * NOTES]
                    _act(tile, order, height, ops, k, strip, at, rounded, own, its)
                    phases += ops[k, t.KIND] == t.PHASE
            at = (at - outside) & outside
            if not at:
                break
        o = end
