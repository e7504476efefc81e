"""Compiled execution of a program of sweeps, for eight shots at once, one in each lane, or for
fewer shots in slices, one in each lane: then the amplitudes of a shot's draws are summed over its
lanes, which hold the same values but for those that are sliced."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import LANES, add_product, load, splat, store, subtract_product
from simulators.execution.philox import shot_uniform
from simulators.lines import lowering as circuit_lines
from simulators.lines.control import WORD
from simulators.lines.lowering import Lines
from simulators.lines.program import (
    DRAW,
    INVERSE,
    KEEP,
    MULTIPLY,
    SCALE,
    SELECT,
    SUM,
    UNITARY,
    Program,
)  # fmt: skip

_WITHIN, _DRAWN_WITHIN = circuit_lines.WITHIN, circuit_lines.DRAWN_WITHIN
_ON_SEGMENT, _DRAWN_ON_PAIR = circuit_lines.ON_SEGMENT, circuit_lines.DRAWN_ON_PAIR
_DRAWN_ON_SEGMENT = circuit_lines.DRAWN_ON_SEGMENT
_MEASURED, _RECORDED = circuit_lines.MEASURED, circuit_lines.RECORDED

FIRST_DRAW = 2**61  # number of the draw of an operator at location 0
TABLE = 64  # entries of a table
_LEAST_FACTOR = 1e-9  # magnitude of a diagonal gate's factors, in place of smaller ones
_LOW_BITS = 8  # of an index, in the lookup of its entry of a table

# Integers of a program: a header, then tables.
(
    _LINES, _SEGMENTS, _PAIRS, _LAYERS, _CODE, _CODE_BEGINS, _FIRSTS, _FIRST_BEGINS, _DRAWS,
    _PAIRS_OF, _PAIRS_BEGINS, _ERRORS, _ERRORS_WITHIN, _ERRORS_AFTER, _ENDS, _FLIPS, _RECORDS,
    _COLUMNS, _SLICES, _SLICED, _SLICED_BEGINS, _SIZE,
) = range(22)  # fmt: skip
# Fields of an error: kind, segment, gates before it there, the same of a second segment, the gate
# of both, number of its operators, first number of them, draw, flag. Of a measurement: kind,
# segment, flip, segment that begins (-1: none), column, -, -, first number of its rates, draw,
# flag. Of an event: kind, place of its integers, and the flag.
_FIELDS = 10
# A matrix within a unitary has eight numbers; an operator on a segment the mask of its flips, and
# its factors: two, or four of a pair, [value of the second, value of the first].
_WITHIN_SIZE, _ON_SIZE, _PAIR_SIZE = 8, 5, 9


class Packed(msgspec.Struct, frozen=True, eq=False):
    """Program and lines as the kernel reads them."""

    ints: NDArray[np.int64]
    reals: NDArray[np.float64]
    own: int  # numbers of a shot's own unitaries, gates and values
    rows: int  # of those of all lanes, and of their tables
    ranks: NDArray[np.int64]  # errors of each insert of the noise table: begin of its part
    errors: NDArray[np.int64]  # their ranks
    certain: NDArray[np.int64]  # ranks of the errors of every shot, ascending
    span: int  # number of ranks


def pack(lines: Lines, program: Program) -> Packed:
    """Arrays of the kernel."""
    segments, pairs = len(lines.unitaries), len(lines.pairs)
    header = np.zeros(_SIZE, np.int64)
    parts: list[NDArray[np.int64]] = [header]
    size = _SIZE

    def add(where: int, values: list[int]) -> None:
        nonlocal size
        header[where] = size
        parts.append(np.array(values, np.int64))
        size += len(values)

    header[_LINES], header[_SEGMENTS] = len(lines.first) - 1, segments
    header[_PAIRS], header[_LAYERS] = pairs, len(program.layers)
    add(_CODE_BEGINS, np.cumsum([0, *(len(each.code) for each in program.layers)]).tolist())
    add(_CODE, [word for each in program.layers for word in each.code])
    add(_FIRST_BEGINS, np.cumsum([0, *(len(each.firsts) for each in program.layers)]).tolist())
    add(_FIRSTS, [segment for each in program.layers for segment in each.firsts])
    header[_SLICES] = program.slices
    add(_SLICED_BEGINS, np.cumsum([0, *(len(each.sliced) for each in program.layers)]).tolist())
    add(_SLICED, [segment for each in program.layers for segment in each.sliced])
    add(_DRAWS, list(lines.draws))
    of: list[list[int]] = [[] for _ in range(segments)]
    for number, pair in enumerate(lines.pairs):
        for side, segment in enumerate(pair.segments):
            of[segment].append(2 * number + side)
    add(_PAIRS_BEGINS, np.cumsum([0, *map(len, of)]).tolist())
    add(_PAIRS_OF, [each for own in of for each in own])
    add(_ENDS, [lines.first[n + 1] - 1 for n in range(len(lines.first) - 1)])
    add(_FLIPS, [int(flip) for flip in lines.flips])

    reals = [np.array(lines.unitaries).view(np.float64).ravel()]
    reals.append(np.array([pair.factor for pair in lines.pairs]).view(np.float64).ravel())
    at = sum(map(len, reals))
    is_within = [error.kind <= _DRAWN_WITHIN for error in lines.errors]
    order = sorted(
        range(len(lines.errors)),
        key=lambda k: (
            lines.errors[k].layer, not is_within[k],
            lines.errors[k].segments[0] if is_within[k] else 0, k,
        ),
    )  # fmt: skip
    table: list[int] = []
    records: list[int] = []
    known: dict[tuple[int, bytes], int] = {}
    placed: dict[tuple[int, int], int] = {}  # first number of each array of operators
    rank_of = [0] * len(order)
    for rank, k in enumerate(order):
        error = lines.errors[k]
        rank_of[k] = rank
        group = min(error.kind, _ON_SEGMENT)  # of the same numbers
        same = group, id(error.operators)
        if same not in placed:
            numbers = _numbers(error)
            key = group, numbers.tobytes()
            if key not in known:
                known[key] = at
                reals.append(numbers)
                at += len(numbers)
            placed[same] = known[key]
        if error.kind == _RECORDED:
            table += [error.kind, len(records), 0, 0, 0, 0, 0, 0, 0, error.flag]
            records += error.record
            continue
        if error.kind == _MEASURED:
            column, flip = error.record
            begun = error.segments[1] if len(error.segments) > 1 else -1
            table += [
                error.kind, error.segments[0], flip, begun, column, 0, 0, placed[same], error.draw,
                error.flag,
            ]  # fmt: skip
            continue
        one, two = error.segments[0], error.segments[-1]
        before = (*error.pairs, 0, 0)[:2]
        gate = error.gate
        table += [
            error.kind, one, before[0], two, before[1], gate, len(error.operators), placed[same],
            error.draw, error.flag,
        ]  # fmt: skip
    add(_ERRORS, table)
    add(_RECORDS, records)
    header[_COLUMNS] = lines.columns
    # Ranks of the errors within the unitary of each segment, and of those after each layer's draws.
    first_within, last_within = np.zeros(segments, np.int64), np.zeros(segments, np.int64)
    first_after = np.full(len(program.layers) + 1, 0, np.int64)
    last_after = np.full(len(program.layers) + 1, 0, np.int64)
    for rank, k in enumerate(order):
        error = lines.errors[k]
        if is_within[k]:
            s = error.segments[0]
            if last_within[s] == 0:
                first_within[s] = rank
            last_within[s] = rank + 1
        else:
            if last_after[error.layer] == 0:
                first_after[error.layer] = rank
            last_after[error.layer] = rank + 1
    add(_ERRORS_WITHIN, np.column_stack((first_within, last_within)).ravel().tolist())
    add(_ERRORS_AFTER, np.column_stack((first_after, last_after)).ravel().tolist())

    own = [[rank_of[k] for k in errors] for errors in lines.inserts]
    ranks = np.cumsum([0, *map(len, own)])
    each = segments * (8 + 1 + 1 + 4) + 8 * pairs
    rows = LANES * (each + 2 * TABLE + 16)
    return Packed(
        np.concatenate(parts), np.concatenate(reals), each, rows, ranks,
        np.array([rank for each in own for rank in each], np.int64),
        np.array(sorted(rank_of[k] for k in lines.certain), np.int64), len(order),
    )  # fmt: skip


def _numbers(error: circuit_lines.Error) -> NDArray[np.float64]:
    """Numbers of an error's operators, as the kernel reads them."""
    if error.kind <= _DRAWN_WITHIN:
        return np.ascontiguousarray(error.operators).view(np.float64).ravel()
    if error.kind >= _MEASURED:
        return np.ascontiguousarray(error.operators.real).ravel()
    results = []
    for operator in error.operators:
        size = len(operator)
        rows, columns = np.nonzero(operator)
        mask = int(rows[0] ^ columns[0])
        values = np.arange(size)
        factors = operator[values ^ mask, values]
        results += [np.array([float(mask)]), factors.view(np.float64)]
    return np.concatenate(results)


# Parts of `rows`: eight numbers, one for each shot, at each place.


@device_function
def _select(rows, low, high, bit):  # type: ignore[no-untyped-def]
    """Number at `low`, or at `high` where the bit is 1."""
    zero, one = load(rows, np.uint64(low)), load(rows, np.uint64(high))
    return add_product(load(rows, np.uint64(bit)), one - zero, zero)


@device_function
def _tabulate(ints, at, entries, rows, segments, pairs):  # type: ignore[no-untyped-def]
    """Table of the product of the factors at `at`, for all values of its axes; returns the end of
    the factors."""
    unitaries = 0
    gates = unitaries + 8 * LANES * segments
    bits = gates + 8 * LANES * pairs
    table = bits + (1 + 1 + 4) * LANES * segments
    factor = table + 2 * TABLE * LANES
    count = ints[at]
    at += 1
    for e in range(entries):
        store(rows, np.uint64(table + 2 * LANES * e), splat(1.0))
        store(rows, np.uint64(table + 2 * LANES * e + LANES), splat(0.0))
    for _ in range(count):
        kind, number, first, second = ints[at], ints[at + 1], ints[at + 2], ints[at + 3]
        at += 4
        base = (unitaries if kind == UNITARY else gates) + 8 * LANES * number
        for a in range(2):
            for b in range(2):
                for c in range(2):  # real, imaginary
                    if first < 0 and second < 0:
                        low = _select(
                            rows,
                            base + (0 + c) * LANES,
                            base + (4 + c) * LANES,
                            bits + LANES * (-1 - first),
                        )
                        high = _select(
                            rows,
                            base + (2 + c) * LANES,
                            base + (6 + c) * LANES,
                            bits + LANES * (-1 - first),
                        )
                        value = add_product(
                            load(rows, np.uint64(bits + LANES * (-1 - second))), high - low, low
                        )
                    elif first < 0:
                        value = _select(
                            rows,
                            base + (2 * b + c) * LANES,
                            base + (4 + 2 * b + c) * LANES,
                            bits + LANES * (-1 - first),
                        )
                    elif second < 0:
                        value = _select(
                            rows,
                            base + (4 * a + c) * LANES,
                            base + (4 * a + 2 + c) * LANES,
                            bits + LANES * (-1 - second),
                        )
                    else:
                        value = load(rows, np.uint64(base + (4 * a + 2 * b + c) * LANES))
                    store(rows, np.uint64(factor + (4 * a + 2 * b + c) * LANES), value)
        if kind == INVERSE:
            for k in range(0, 8 * LANES, 2 * LANES):
                for lane in range(factor + k, factor + k + LANES):
                    re, im = rows[lane], rows[lane + LANES]
                    size = re * re + im * im
                    rows[lane], rows[lane + LANES] = re / size, -im / size
        for e in range(entries):
            a = (e >> first & 1) if first >= 0 else 0
            b = (e >> second & 1) if second >= 0 else 0
            where = np.uint64(factor + (4 * a + 2 * b) * LANES)
            x, y = load(rows, where), load(rows, where + np.uint64(LANES))
            to = np.uint64(table + 2 * LANES * e)
            re, im = load(rows, to), load(rows, to + np.uint64(LANES))
            store(rows, to, subtract_product(im, y, re * x))
            store(rows, to + np.uint64(LANES), add_product(im, x, re * y))
    return at


@device_function
def _lookup(places, count, first_bit, axes, scratch, ints):  # type: ignore[no-untyped-def]
    """Entries of a table by the lower and the upper bits of an index: scratch[: 256] and after it.
    The axis at ints[places + k] is bit first_bit + k of an entry."""
    low = min(axes, _LOW_BITS)
    for part in range(2):
        size = 1 << (low if part == 0 else axes - low)
        begin = 0 if part == 0 else 1 << _LOW_BITS
        shift = 0 if part == 0 else low
        for i in range(size):
            entry = np.int64(0)
            for k in range(count):
                axis = ints[places + k] - shift
                if axis >= 0 and (part == 1 or axis < low):
                    entry |= (i >> axis & 1) << (first_bit + k)
            scratch[begin + i] = entry
    return low


@device_function
def _multiply(ints, at, tensor, rows, scratch, segments, pairs):  # type: ignore[no-untyped-def]
    axes, fresh, count = ints[at], ints[at + 1], ints[at + 2]
    end = _tabulate(ints, at + 3 + count, 1 << (count + fresh), rows, segments, pairs)
    table = LANES * (segments * (8 + 1 + 1 + 4) + 8 * pairs)
    low = _lookup(at + 3, count, fresh, axes, scratch, ints)
    upper = np.int64(2 * LANES) << axes
    for high in range(1 << (axes - low)):
        base = scratch[(1 << _LOW_BITS) + high]
        for i in range(1 << low):
            entry = table + 2 * LANES * (base | scratch[i])
            here = np.uint64(2 * LANES * (high << low | i))
            re, im = load(tensor, here), load(tensor, here + np.uint64(LANES))
            x, y = load(rows, np.uint64(entry)), load(rows, np.uint64(entry + LANES))
            store(tensor, here, subtract_product(im, y, re * x))
            store(tensor, here + np.uint64(LANES), add_product(im, x, re * y))
            if fresh:
                x = load(rows, np.uint64(entry + 2 * LANES))
                y = load(rows, np.uint64(entry + 3 * LANES))
                there = here + np.uint64(upper)
                store(tensor, there, subtract_product(im, y, re * x))
                store(tensor, there + np.uint64(LANES), add_product(im, x, re * y))
    return end


@device_function
def _sum(ints, at, tensor, rows, segments, pairs):  # type: ignore[no-untyped-def]
    axes, axis = ints[at], ints[at + 1]
    table = LANES * (segments * (8 + 1 + 1 + 4) + 8 * pairs)
    has_factors = ints[at + 2] > 0
    end = at + 3
    if has_factors:
        end = _tabulate(ints, at + 2, 2, rows, segments, pairs)
    x0, y0 = load(rows, np.uint64(table)), load(rows, np.uint64(table + LANES))
    x1, y1 = load(rows, np.uint64(table + 2 * LANES)), load(rows, np.uint64(table + 3 * LANES))
    step = np.int64(2 * LANES) << axis
    for high in range(1 << (axes - 1 - axis)):
        for i in range(1 << axis):
            to = np.uint64(2 * LANES * (high << axis | i))
            one = np.uint64(2 * LANES * (high << (axis + 1) | i))
            two = one + np.uint64(step)
            re, im = load(tensor, one), load(tensor, one + np.uint64(LANES))
            ra, ia = load(tensor, two), load(tensor, two + np.uint64(LANES))
            if has_factors:
                real = subtract_product(im, y0, re * x0)
                imag = add_product(im, x0, re * y0)
                store(tensor, to, add_product(ra, x1, subtract_product(ia, y1, real)))
                store(tensor, to + np.uint64(LANES), add_product(ra, y1, add_product(ia, x1, imag)))
            else:
                store(tensor, to, re + ra)
                store(tensor, to + np.uint64(LANES), im + ia)
    return end


@device_function
def _take(ints, at, tensor, rows, segments, pairs):  # type: ignore[no-untyped-def]
    """Part of a tensor with the known value of an axis."""
    axes, axis, segment = ints[at], ints[at + 1], ints[at + 2]
    bit = load(rows, np.uint64(LANES * (8 * segments + 8 * pairs + segment)))
    step = np.int64(2 * LANES) << axis
    for high in range(1 << (axes - 1 - axis)):
        for i in range(1 << axis):
            to = np.uint64(2 * LANES * (high << axis | i))
            one = np.uint64(2 * LANES * (high << (axis + 1) | i))
            for c in range(2):
                zero = load(tensor, one + np.uint64(c * LANES))
                other = load(tensor, one + np.uint64(step + c * LANES))
                store(tensor, to + np.uint64(c * LANES), add_product(bit, other - zero, zero))
    return at + 3


@device_function
def _scale(ints, at, tensor, rows, segments, pairs):  # type: ignore[no-untyped-def]
    """Divide the values of each shot by the root of their mean square."""
    axes = ints[at]
    slices = np.int64(1) << ints[_SLICES]
    total = splat(0.0)
    for i in range(np.int64(2) << axes):
        value = load(tensor, np.uint64(LANES * i))
        total = add_product(value, value, total)
    where = LANES * (segments * (8 + 1 + 1 + 4) + 8 * pairs)
    store(rows, np.uint64(where), total)
    for lane in range(0, LANES, slices):
        size = 0.0
        for each in range(slices):
            size += rows[where + lane + each]
        scale = math.sqrt((slices << axes) / size) if size > 0.0 else 1.0
        for each in range(slices):
            rows[where + lane + each] = scale
    factor = load(rows, np.uint64(where))
    for i in range(np.int64(2) << axes):
        value = load(tensor, np.uint64(LANES * i))
        store(tensor, np.uint64(LANES * i), value * factor)
    return at + 1


@device_function
def _keep(ints, at, tensor, kept):  # type: ignore[no-untyped-def]
    axes, room = ints[at], ints[at + 1]
    for i in range(np.int64(2) << axes):
        to = np.uint64(kept + LANES * (2 * room + i))
        store(tensor, to, load(tensor, np.uint64(LANES * i)))
    return at + 2


@device_function
def _contract(ints, at, tensor, rows, scratch, kept, factor):  # type: ignore[no-untyped-def]
    """Amplitudes of the two values of the axis that is drawn, at `factor`: products of L and R."""
    axes, axis, where, count = ints[at], ints[at + 1], ints[at + 3], ints[at + 4]
    has_right = where >= 0 and (count > 0 or ints[_SLICES] > 0)  # else common to both
    low = _lookup(at + 5, count, 0, axes, scratch, ints)
    mask = (np.int64(1) << axis) - 1
    lower = (np.int64(1) << low) - 1
    right = kept + 2 * LANES * where
    for value in range(2):
        total_re, total_im = splat(0.0), splat(0.0)
        for j in range(np.int64(1) << (axes - 1)):
            i = (j & ~mask) << 1 | j & mask | value << axis
            here = np.uint64(2 * LANES * i)
            re, im = load(tensor, here), load(tensor, here + np.uint64(LANES))
            if has_right:
                entry = scratch[i & lower] | scratch[(1 << _LOW_BITS) + (i >> low)]
                there = np.uint64(right + 2 * LANES * entry)
                x, y = load(tensor, there), load(tensor, there + np.uint64(LANES))
                total_re = subtract_product(im, y, add_product(re, x, total_re))
                total_im = add_product(im, x, add_product(re, y, total_im))
            else:
                total_re = total_re + re
                total_im = total_im + im
        store(rows, np.uint64(factor + 2 * LANES * value), total_re)
        store(rows, np.uint64(factor + 2 * LANES * value + LANES), total_im)
    slices = np.int64(1) << ints[_SLICES]
    if slices > 1:
        for first in range(factor, factor + 4 * LANES, slices):
            total = 0.0
            for each in range(slices):
                total += rows[first + each]
            for each in range(slices):
                rows[first + each] = total


@device_function
def _lower_bound(entries, begin, end, rank):  # type: ignore[no-untyped-def]
    """First place in ascending entries[begin : end] with an entry of at least `rank`."""
    while begin < end:
        middle = (begin + end) // 2
        if entries[middle] < rank:
            begin = middle + 1
        else:
            end = middle
    return begin


@device_function
def _rotated(matrix, reals, at):  # type: ignore[no-untyped-def]
    """Matrix [2, 2] multiplied from the left by that at reals[at]."""
    m00, m01, m10, m11 = matrix
    a = complex(reals[at], reals[at + 1])
    b = complex(reals[at + 2], reals[at + 3])
    c = complex(reals[at + 4], reals[at + 5])
    d = complex(reals[at + 6], reals[at + 7])
    return a * m00 + b * m10, a * m01 + b * m11, c * m00 + d * m10, c * m01 + d * m11


@device_function
def _square(z):  # type: ignore[no-untyped-def]
    return z.real * z.real + z.imag * z.imag


@device_function
def _acts(ints, error, row, out):  # type: ignore[no-untyped-def]
    """Return whether the flag of an error is 1, or it has none."""
    flag = ints[error + 9]
    if flag < 0:
        return True
    return out[row * (ints[_LINES] + ints[_COLUMNS]) + ints[_LINES] + flag] > 0


@device_function
def _draw(ints, reals, rows, segment, amplitudes, lane, shot, entries, ends, row, keys, out):  # type: ignore[no-untyped-def]
    """Draw the value of a segment that begins, and the operators within its unitary, for one shot;
    write its own unitary. `amplitudes`: place of those of the value before."""
    seed, binding = keys
    segments, pairs = ints[_SEGMENTS], ints[_PAIRS]
    bits = LANES * (8 * segments + 8 * pairs)
    flips, factors = bits + LANES * segments, bits + 2 * LANES * segments
    # The own unitary: errors after the plain one, and what acted on the segment before it.
    u = 8 * segment
    matrix = (
        complex(reals[u], reals[u + 1]), complex(reals[u + 2], reals[u + 3]),
        complex(reals[u + 4], reals[u + 5]), complex(reals[u + 6], reals[u + 7]),
    )  # fmt: skip
    before = segment - 1
    if rows[flips + LANES * before + lane] > 0.5:
        matrix = matrix[1], matrix[0], matrix[3], matrix[2]
    f = factors + 4 * LANES * before + lane
    zero = complex(rows[f], rows[f + LANES])
    one = complex(rows[f + 2 * LANES], rows[f + 3 * LANES])
    matrix = matrix[0] * zero, matrix[1] * one, matrix[2] * zero, matrix[3] * one
    amplitude0 = complex(rows[amplitudes + lane], rows[amplitudes + LANES + lane])
    amplitude1 = complex(rows[amplitudes + 2 * LANES + lane], rows[amplitudes + 3 * LANES + lane])
    draw = shot_uniform(shot, ints[ints[_DRAWS] + segment], seed, binding)
    low, high = np.int64(0), np.int64(0)
    within = ints[_ERRORS_WITHIN] + 2 * segment
    if ints[within + 1] > ints[within] and row >= 0:
        low = _lower_bound(entries, ends[row], ends[row + 1], ints[within])
        high = low
        while high < ends[row + 1] and entries[high] < ints[within + 1]:
            high += 1
    choices = np.int64(1)
    for k in range(low, high):
        error = ints[_ERRORS] + _FIELDS * entries[k]
        if _acts(ints, error, row, out):
            choices *= ints[error + 6]
    # All combinations of the operators and both values, drawn together.
    total = 0.0
    result, value = matrix, 0
    for attempt in range(2):
        left = draw * total
        done = False
        for choice in range(choices):
            product = matrix
            rest = choice
            for k in range(low, high):
                error = ints[_ERRORS] + _FIELDS * entries[k]
                if not _acts(ints, error, row, out):
                    continue
                count = ints[error + 6]
                product = _rotated(product, reals, ints[error + 7] + _WITHIN_SIZE * (rest % count))
                rest //= count
            for bit in range(2):
                part = product[2 * bit] * amplitude0 + product[2 * bit + 1] * amplitude1
                weight = _square(part)
                if attempt == 0:
                    total += weight
                elif not done and weight > 0.0:
                    result, value = product, bit
                    left -= weight
                    done = left < 0.0
    size = math.sqrt(
        max(
            _square(result[0]) + _square(result[2]), _square(result[1]) + _square(result[3]), 1e-300
        )
    )
    place = 8 * LANES * segment + lane
    for k in range(4):
        entry = result[k]
        rows[place + 2 * k * LANES] = entry.real / size
        rows[place + (2 * k + 1) * LANES] = entry.imag / size
    rows[bits + LANES * segment + lane] = float(value)


@device_function
def _flip_gates(ints, rows, segment, first, lane):  # type: ignore[no-untyped-def]
    """Flip the value of a segment in its diagonal gates from the one with this number on."""
    segments = ints[_SEGMENTS]
    begins = ints[_PAIRS_BEGINS] + segment
    for k in range(ints[begins] + first, ints[begins + 1]):
        number, side = ints[ints[_PAIRS_OF] + k] >> 1, ints[ints[_PAIRS_OF] + k] & 1
        place = 8 * LANES * (segments + number) + lane
        for other in range(2):
            one = place + LANES * (2 * other if side == 0 else 4 * other)
            two = one + LANES * (4 if side == 0 else 2)
            for c in range(2):
                at, to = one + c * LANES, two + c * LANES
                kept = rows[at]
                rows[at] = rows[to]
                rows[to] = kept


@device_function
def _apply(ints, reals, rows, error, operator, lane):  # type: ignore[no-untyped-def]
    """Apply an operator of an error on segments to one shot."""
    segments, pairs = ints[_SEGMENTS], ints[_PAIRS]
    bits = LANES * (8 * segments + 8 * pairs)
    flips, factors = bits + LANES * segments, bits + 2 * LANES * segments
    kind, one, first = ints[error], ints[error + 1], ints[error + 2]
    two, second, gate = ints[error + 3], ints[error + 4], ints[error + 5]
    flip = flips + LANES * one + lane
    is_flipped = np.int64(rows[flip])
    if kind != _DRAWN_ON_PAIR:
        at = ints[error + 7] + _ON_SIZE * operator
        mask = np.int64(reals[at])
        for value in range(2):
            f = factors + LANES * (4 * one + 2 * value) + lane
            own = complex(rows[f], rows[f + LANES])
            g = at + 1 + 2 * (value ^ is_flipped)
            own *= complex(reals[g], reals[g + 1])
            rows[f], rows[f + LANES] = own.real, own.imag
        if mask:
            rows[flip] = 1.0 - rows[flip]
            _flip_gates(ints, rows, one, first, lane)
        return
    at = ints[error + 7] + _PAIR_SIZE * operator
    mask = np.int64(reals[at])
    other = flips + LANES * two + lane
    is_other = np.int64(rows[other])
    place = 8 * LANES * (segments + (gate >> 1)) + lane
    for a in range(2):
        for b in range(2):
            g = at + 1 + 2 * ((a ^ is_flipped) | (b ^ is_other) << 1)
            to = place + LANES * (4 * a + 2 * b if gate & 1 == 0 else 4 * b + 2 * a)
            own = complex(rows[to], rows[to + LANES]) * complex(reals[g], reals[g + 1])
            if abs(own) < _LEAST_FACTOR:  # it may have to be divided by
                own = complex(_LEAST_FACTOR, 0.0)
            rows[to], rows[to + LANES] = own.real, own.imag
    if mask & 1:
        rows[flip] = 1.0 - rows[flip]
        _flip_gates(ints, rows, one, first, lane)
    if mask & 2:
        rows[other] = 1.0 - rows[other]
        _flip_gates(ints, rows, two, second, lane)


@device_function
def _measure(ints, reals, rows, error, lane, shot, record, keys, out):  # type: ignore[no-untyped-def]
    """Measure a segment: write the bit that is read, and begin another segment with the true one,
    or let only the known value of this one go on. `record`: place in `out`; -1: in a slice after
    the first one, which writes nothing."""
    segments, pairs = ints[_SEGMENTS], ints[_PAIRS]
    bits = LANES * (8 * segments + 8 * pairs)
    flips, factors = bits + LANES * segments, bits + 2 * LANES * segments
    segment, begun = ints[error + 1], ints[error + 3]
    known = np.int64(rows[bits + LANES * segment + lane])
    value = known ^ np.int64(rows[flips + LANES * segment + lane]) ^ ints[error + 2]
    if begun >= 0:
        rows[bits + LANES * begun + lane] = float(value)
    else:
        other = factors + LANES * (4 * segment + 2 * (1 - known)) + lane
        rows[other] = rows[other + LANES] = 0.0
    if record < 0:
        return
    wrong = reals[ints[error + 7] + value]
    if wrong > 0.0 and shot_uniform(shot, ints[error + 8], keys[0], keys[1]) < wrong:
        value ^= 1
    out[record + ints[error + 4]] = np.uint8(value)


@device_function
def _write(ints, error, record, out):  # type: ignore[no-untyped-def]
    """Write columns of a record by the table of an event."""
    at = ints[_RECORDS] + ints[error + 1]
    reads = ints[at]
    setting = np.int64(0)
    for j in range(reads):
        setting |= np.int64(out[record + ints[at + 1 + j]]) << j
    at += 1 + reads
    writes = ints[at]
    table = at + 1 + writes + setting * ((writes + WORD - 1) // WORD)
    for j in range(writes):
        out[record + ints[at + 1 + j]] = np.uint8(ints[table + j // WORD] >> (j % WORD) & 1)


@device_function
def _errors_after(ints, reals, rows, layer, lane, shot, entries, ends, row, keys, out):  # type: ignore[no-untyped-def]
    """Apply a shot's errors on segments after the draws of a layer, and what acts on its record.
    They permute values, so their operators depend on the values alone."""
    seed, binding = keys
    segments, pairs = ints[_SEGMENTS], ints[_PAIRS]
    bits = LANES * (8 * segments + 8 * pairs)
    flips = bits + LANES * segments
    begins = ints[_ERRORS_AFTER] + 2 * layer
    if ints[begins + 1] <= ints[begins]:
        return
    k = _lower_bound(entries, ends[row], ends[row + 1], ints[begins])
    while k < ends[row + 1] and entries[k] < ints[begins + 1]:
        error = ints[_ERRORS] + _FIELDS * entries[k]
        k += 1
        kind, count = ints[error], ints[error + 6]
        if not _acts(ints, error, row, out):
            continue
        if kind >= _MEASURED:
            record = row * (ints[_LINES] + ints[_COLUMNS]) + ints[_LINES]
            if lane & ((np.int64(1) << ints[_SLICES]) - 1):
                record = np.int64(-1)
            if kind == _MEASURED:
                _measure(ints, reals, rows, error, lane, shot, record, keys, out)
            elif record >= 0:
                _write(ints, error, record, out)
            continue
        if kind == _ON_SEGMENT:
            _apply(ints, reals, rows, error, 0, lane)
            continue
        one, two = ints[error + 1], ints[error + 3]
        value = np.int64(rows[bits + LANES * one + lane]) ^ np.int64(
            rows[flips + LANES * one + lane]
        )
        size = _ON_SIZE
        if kind == _DRAWN_ON_PAIR:
            other = np.int64(rows[bits + LANES * two + lane])
            value |= (other ^ np.int64(rows[flips + LANES * two + lane])) << 1
            size = _PAIR_SIZE
        total = 0.0
        for operator in range(count):
            at = ints[error + 7] + size * operator + 1 + 2 * value
            total += reals[at] * reals[at] + reals[at + 1] * reals[at + 1]
        left = total * shot_uniform(shot, FIRST_DRAW + ints[error + 8], seed, binding)
        chosen = 0
        for operator in range(count):
            at = ints[error + 7] + size * operator + 1 + 2 * value
            weight = reals[at] * reals[at] + reals[at + 1] * reals[at + 1]
            if weight > 0.0:
                chosen = operator
                left -= weight
                if left < 0.0:
                    break
        _apply(ints, reals, rows, error, chosen, lane)


def _shots(ints, reals, entries, ends, span, tensor, rows, scratch, out, flag):  # type: ignore[no-untyped-def]
    """Values of the lines of shots span[0] .. span[1] - 1, of which span[4] is row 0 of `ends` and
    `out`: uint8 [shots, lines + columns of their records]. entries[ends[i] : ends[i + 1]]: ranks of
    the errors of row i, ascending. span[5]: place of the kept tensors."""
    keys = np.uint64(span[2]), np.uint64(span[3])
    lines, segments, pairs, layers = ints[_LINES], ints[_SEGMENTS], ints[_PAIRS], ints[_LAYERS]
    bits = LANES * (8 * segments + 8 * pairs)
    flips, factors = bits + LANES * segments, bits + 2 * LANES * segments
    factor = LANES * (segments * (8 + 1 + 1 + 4) + 8 * pairs + 2 * TABLE)
    slices = ints[_SLICES]
    for begin in range(span[0], span[1], LANES >> slices):
        if flag[0]:
            return
        for k in range(segments):
            for c in range(8):
                store(rows, np.uint64(LANES * (8 * k + c)), splat(reals[8 * k + c]))
            store(rows, np.uint64(bits + LANES * k), splat(0.0))
            store(rows, np.uint64(flips + LANES * k), splat(0.0))
            for c in range(4):
                one = 0.0 if c & 1 else 1.0
                store(rows, np.uint64(factors + LANES * (4 * k + c)), splat(one))
        for k in range(pairs):
            for c in range(8):
                number = reals[8 * (segments + k) + c]
                store(rows, np.uint64(LANES * (8 * (segments + k) + c)), splat(number))
        for layer in range(layers + 1):
            if layer:
                first = ints[ints[_SLICED_BEGINS] + layer - 1]
                for k in range(first, ints[ints[_SLICED_BEGINS] + layer]):
                    where = bits + LANES * ints[ints[_SLICED] + k]
                    for lane in range(LANES):
                        rows[where + lane] = float(lane >> (k - first) & 1)
                for k in range(
                    ints[ints[_FIRST_BEGINS] + layer - 1], ints[ints[_FIRST_BEGINS] + layer]
                ):
                    segment = ints[ints[_FIRSTS] + k]
                    known = load(rows, np.uint64(bits + LANES * (segment - 1)))
                    for c in range(4):
                        store(rows, np.uint64(factor + LANES * c), splat(0.0))
                    store(rows, np.uint64(factor), splat(1.0) - known)
                    store(rows, np.uint64(factor + 2 * LANES), known)
                    for lane in range(LANES):
                        shot = begin + (lane >> slices)
                        row = shot - span[4] if shot < span[1] else np.int64(-1)
                        _draw(
                            ints, reals, rows, segment, factor, lane, shot, entries, ends, row,
                            keys, out,
                        )  # fmt: skip
                at = ints[_CODE] + ints[ints[_CODE_BEGINS] + layer - 1]
                end = ints[_CODE] + ints[ints[_CODE_BEGINS] + layer]
                while at < end:
                    if flag[0]:
                        return
                    kind = ints[at]
                    at += 1
                    if kind == MULTIPLY:
                        at = _multiply(ints, at, tensor, rows, scratch, segments, pairs)
                    elif kind == SUM:
                        at = _sum(ints, at, tensor, rows, segments, pairs)
                    elif kind == SELECT:
                        at = _take(ints, at, tensor, rows, segments, pairs)
                    elif kind == KEEP:
                        at = _keep(ints, at, tensor, span[5])
                    elif kind == SCALE:
                        at = _scale(ints, at, tensor, rows, segments, pairs)
                    elif kind == DRAW:
                        _contract(ints, at, tensor, rows, scratch, span[5], factor)
                        for lane in range(LANES):
                            shot = begin + (lane >> slices)
                            row = shot - span[4] if shot < span[1] else np.int64(-1)
                            _draw(
                                ints, reals, rows, ints[at + 2], factor, lane, shot, entries, ends,
                                row, keys, out,
                            )  # fmt: skip
                        at += 5 + ints[at + 4]
                    else:  # BEGIN
                        store(tensor, np.uint64(0), splat(1.0))
                        store(tensor, np.uint64(LANES), splat(0.0))
            for lane in range(LANES):
                shot = begin + (lane >> slices)
                if shot < span[1]:
                    _errors_after(
                        ints,
                        reals,
                        rows,
                        layer,
                        lane,
                        shot,
                        entries,
                        ends,
                        shot - span[4],
                        keys,
                        out,
                    )
        for line in range(lines):
            last = ints[ints[_ENDS] + line]
            flip = ints[ints[_FLIPS] + line]
            for lane in range(LANES):
                shot = begin + (lane >> slices)
                if shot >= span[1]:
                    break
                value = np.int64(rows[bits + LANES * last + lane])
                value ^= np.int64(rows[flips + LANES * last + lane]) ^ flip
                out[(shot - span[4]) * (lines + ints[_COLUMNS]) + line] = np.uint8(value)


_SIGNATURE = "I64 REALS I64 I64 I64 {} REALS I64 U8 I64"
double = kernel(_SIGNATURE.format("REALS"), group="sweeps", precision="double")(_shots)
single = kernel(_SIGNATURE.format("SINGLES"), group="sweeps", precision="single")(_shots)
