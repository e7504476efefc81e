"""PHASE operations on a tile, and norms of rows."""

import numpy as np

from simulators.compiler import simd
from simulators.compiler.kernel import device_function, kernel
from simulators.statevector.planning import tables as t
from simulators.statevector.planning.tables import LANES
from simulators.statevector.tiles import row_ops as rows

# PHASE operations on a tile: factors of the tile's position, then scaling of the rows.

_TABLE = 2 * t.LANES  # numbers of a table of lanes
_SCALAR = t.MOST_WIDTH  # index of the products of terms without a place
NOTES = 3  # words for one operation
PRODUCTS = 2 * (t.MOST_WIDTH + 1)  # float64: products of all places
FACTORS = (_TABLE << t.MOST_CROSS) + _TABLE + 2  # numbers in addition to two for each row
_FEW = 3  # with fewer row bits, the numbers fill no vector


@device_function
def spread(number, mask):  # type: ignore[no-untyped-def]
    """The lowest bits of `number` moved to the positions of `mask`."""
    result = 0
    while mask:
        low = mask & -mask
        if number & 1:
            result |= low
        number >>= 1
        mask ^= low
    return result


@device_function
def _products(terms, first, count, floats, at, base, fixed, value, into):  # type: ignore[no-untyped-def]
    """Multiply the terms that apply in this tile, by place; returns the mask of the places. Row
    bits under `fixed` have their `value` in all affected rows, so their terms have no place."""
    for place in range(t.MOST_WIDTH + 1):
        into[2 * place] = 1.0
        into[2 * place + 1] = 0.0
    result = 0
    for term in range(count):
        mask = terms[first + term, t.MASK]
        if base & mask != mask:
            continue
        place = terms[first + term, t.PLACE]
        if place == t.SCALAR:
            place = _SCALAR
        elif place >= t.LANE_WIRES and fixed >> (place - t.LANE_WIRES) & 1:
            if not value >> (place - t.LANE_WIRES) & 1:
                continue
            place = _SCALAR
        u, v = floats[at + 2 * term], floats[at + 2 * term + 1]
        x, y = into[2 * place], into[2 * place + 1]
        into[2 * place] = x * u - y * v
        into[2 * place + 1] = x * v + y * u
        result |= 1 << place
    return result


@device_function
def _double(into, at, size, products, place):  # type: ignore[no-untyped-def]
    """Set into[size .. 2 * size - 1] to into[0 .. size - 1] times the product of a place, by
    pairs."""
    u, v = products[2 * place], products[2 * place + 1]
    for k in range(at, at + 2 * size, 2):
        x, y = into[k], into[k + 1]
        into[k + 2 * size] = x * u - y * v
        into[k + 2 * size + 1] = x * v + y * u


@device_function
def _row_factors(rounded, at, height, products, touched, factors):  # type: ignore[no-untyped-def]
    """Set factors[0 ..] to the table at rounded[at], of 2**height rows, times the products of the
    terms."""
    factors[0] = products[2 * _SCALAR]
    factors[1] = products[2 * _SCALAR + 1]
    if not touched & (((1 << height) - 1) << t.LANE_WIRES) and height >= _FEW:
        scalar = factors.size - 2
        factors[scalar], factors[scalar + 1] = factors[0], factors[1]
        rows.complex_scale(factors, 0, rounded, at, factors, scalar, 2 << height)
        return
    for j in range(height):
        if j < _FEW:
            _double(factors, 0, 1 << j, products, t.LANE_WIRES + j)
        else:
            scalar = factors.size - 2
            factors[scalar] = products[2 * (t.LANE_WIRES + j)]
            factors[scalar + 1] = products[2 * (t.LANE_WIRES + j) + 1]
            rows.complex_scale(factors, 2 << j, factors, 0, factors, scalar, 2 << j)
    if height >= _FEW:
        rows.complex_multiply(factors, 0, rounded, at, 2 << height)
    else:
        for k in range(0, 2 << height, 2):
            x, y, u, v = factors[k], factors[k + 1], rounded[at + k], rounded[at + k + 1]
            factors[k] = x * u - y * v
            factors[k + 1] = x * v + y * u


@device_function
def _lane_factors(rounded, at, num_tables, products, factors, to):  # type: ignore[no-untyped-def]
    """Set factors[to ..] to the lanes' tables at rounded[at], times the products of the terms."""
    own = to + _TABLE * num_tables  # pairs, one table's
    factors[own] = 1.0
    factors[own + 1] = 0.0
    for j in range(t.LANE_WIRES):
        _double(factors, own, 1 << j, products, j)
    for c in range(num_tables):
        for k in range(t.LANES):
            u, v = factors[own + 2 * k], factors[own + 2 * k + 1]
            place = _TABLE * c + k
            x, y = rounded[at + place], rounded[at + place + t.LANES]
            factors[to + place] = x * u - y * v
            factors[to + place + t.LANES] = x * v + y * u


@device_function
def _is_one(table, at):  # type: ignore[no-untyped-def]
    k = at
    while k < at + t.LANES and table[k] == 1.0 and table[k + t.LANES] == 0.0:
        k += 1
    return np.int64(k == at + t.LANES)


@device_function
def prepare(ops, o, height, terms, floats, rounded, base, factors, products, notes):  # type: ignore[no-untyped-def]
    """Prepare operation o, a PHASE, for one tile of 2**height rows. `floats` are the numbers in
    double precision, `rounded` in the tile's own. `factors`: scratch of that type, FACTORS and two
    for each row; `products`: float64 [PRODUCTS]. notes[0], notes[1]: whether there are factors of
    rows, and of lanes; notes[2]: the lanes' tables that are all 1."""
    at = ops[o, t.AT]
    num_tables = 1 << simd.count(ops[o, t.CROSS])
    lanes = at + (2 << height)
    table, start = rounded, lanes
    notes[0] = notes[1] = 0
    if ops[o, t.TERMS]:
        result = _products(
            terms, ops[o, t.FIRST_TERM], ops[o, t.TERMS], floats, lanes + _TABLE * num_tables, base,
            ops[o, t.ROW_MASK], ops[o, t.ROW_VALUE], products,
        )  # fmt: skip
        if result >> t.LANE_WIRES:
            _row_factors(rounded, at, height, products, result, factors)
            notes[0] = 1
        if result & ((1 << t.LANE_WIRES) - 1):
            table, start = factors, 2 << height
            _lane_factors(rounded, lanes, num_tables, products, factors, start)
            notes[1] = 1
    notes[2] = 0
    for c in range(num_tables):
        notes[2] |= _is_one(table, start + _TABLE * c) << c


@device_function
def turn(tile, order, height, ops, o, strip, at, rounded, factors, notes):  # type: ignore[no-untyped-def]
    """Apply the prepared operation o to the rows at | some of the bits `strip`."""
    mask, value, cross = ops[o, t.ROW_MASK], ops[o, t.ROW_VALUE], ops[o, t.CROSS]
    begin = ops[o, t.AT]
    by, first = rounded, begin
    if notes[0]:
        by, first = factors, begin - begin
    table, start = rounded, begin + (2 << height)
    if notes[1]:
        table, start = factors, begin - begin + (2 << height)
    free = strip & ~(mask | cross)
    for c in range(1 << simd.count(cross)):
        crossing = spread(c, cross)
        if (crossing ^ value) & mask & cross or (crossing ^ at) & cross & ~strip:
            continue
        fixed = at | (value | crossing) & strip
        own = start + _TABLE * c
        rest = begin - begin
        while True:
            row = rest | fixed
            if notes[2] >> c & 1:
                rows.scale_row(tile, order[row], by, first + 2 * row)
            else:
                rows.scale_row_by_lane(tile, order[row], by, first + 2 * row, table, own)
            rest = (rest - free) & free
            if not rest:
                break


# Norms of a state's rows, and basis states of sorted uniforms, in kernels of both precisions.
#
# The norm of a row has the same bits whether a sweep wrote it or it is computed afterwards. Sums of
# norms run over blocks, row by row, so they do not depend on the number of threads or ranks.


@device_function
def fill(amplitudes, first, last, norms):  # type: ignore[no-untyped-def]
    """Fill norms[r] with the sum of the squares of row r, for rows first .. last - 1."""
    for row in range(first, last):
        norms[row] = rows.norm_stored(amplitudes, 2 * LANES * row)


@kernel("REALS INT INT INT REALS2", group="wide")
def add_up(norms, rows_each, first, last, sums):  # type: ignore[no-untyped-def]
    """Fill sums[b, 0] with the sum of the norms of block b, for blocks first .. last - 1."""
    for block in range(first, last):
        result = 0.0
        for row in range(block * rows_each, (block + 1) * rows_each):
            result += norms[row]
        sums[block, 0] = result
        sums[block, 1] = 0.0


@device_function
def _square(amplitudes, at):  # type: ignore[no-untyped-def]
    x, y = np.float64(amplitudes[at]), np.float64(amplitudes[at + 1])
    return x * x + y * y


@device_function
def locate(amplitudes, norms, rows_each, places, first, last, edges, begins, draws, indices):  # type: ignore[no-untyped-def]
    """Fill indices[s] with the basis state of draws[s], for ascending draws of blocks first .. last
    - 1: block b of the whole state has draws begins[b] .. begins[b + 1] - 1, and begins at
    edges[b].

    A draw that rounding moves beyond the end of its row takes the last lane that is not 0.
    """
    for block in range(first, last):
        number = places[block]
        if begins[number] == begins[number + 1]:
            continue
        edge = edges[number]
        first_row = row = block * rows_each
        end = row + rows_each - 1
        while end > row and norms[end] == 0.0:
            end -= 1
        before = 0.0
        for s in range(begins[number], begins[number + 1]):  # draws are far apart in memory
            while row < end and edge + (before + norms[row]) <= draws[s]:
                before += norms[row]
                row += 1
            rows.prefetch_row(amplitudes, 2 * LANES * row)
        row = first_row
        before = within = 0.0  # the rows before this one; the lanes before `lane`
        lane = last_lane = 0
        for s in range(begins[number], begins[number + 1]):
            while row < end and edge + (before + norms[row]) <= draws[s]:
                before += norms[row]
                row += 1
                lane = last_lane = 0
                within = 0.0
            while lane < LANES:
                weight = _square(amplitudes, 2 * (row * LANES + lane))
                if weight > 0.0:
                    last_lane = lane
                    if edge + (before + (within + weight)) > draws[s]:
                        break
                within += weight
                lane += 1
            indices[s] = ((number - block) * rows_each + row) * LANES + last_lane


@kernel("REALS INT I64 INT INT INT REALS2", group="wide")
def part_up(norms, rows_each, places, bit, first, last, sums):  # type: ignore[no-untyped-def]
    """Fill sums[b] with the sums of the norms of block b's rows that have a 0 and that have a 1 at
    `bit` of their number in the whole state; places[b]: index of the block there."""
    for block in range(first, last):
        zeros = ones = 0.0
        for k in range(rows_each):
            if (places[block] * rows_each + k) >> bit & 1:
                ones += norms[block * rows_each + k]
            else:
                zeros += norms[block * rows_each + k]
        sums[block, 0] = zeros
        sums[block, 1] = ones
