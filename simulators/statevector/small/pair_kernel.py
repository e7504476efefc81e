"""Small matrices, and a 4x4 matrix applied to a block of amplitudes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from simulators.circuit.gates import PERMUTATION, PHASE, REAL
from simulators.compiler import simd
from simulators.compiler.kernel import F64_2, I32, device_function, inline_function, record
from simulators.statevector.small.gate_kernels import (
    load_matrix,
    matrices,
    matrices_of_eight,
    multiply,
    step_at,
)

# A 4x4 matrix applied to a block of amplitudes, held as two float64 arrays.
#
# The matrix acts on two bits of an amplitude's index; bit 0 of the matrix' index is the lower one.
# Each output is the sum of four products in the order of the matrix' columns, with fused
# multiply-adds. So an amplitude has the same bits whether its neighbours in a vector are other
# amplitudes of the state (bits below 3 select lanes) or other states.

PAIR_FLOATS = 16 * simd.LANES  # floats of the real, or the imaginary, parts of a matrix of vectors

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES, _3 = np.uint64(simd.LANES), np.uint64(3)
_ROW = np.uint64(4 * simd.LANES)  # floats of one row of a matrix of vectors
_C1, _C2, _C3 = np.uint64(simd.LANES), np.uint64(2 * simd.LANES), np.uint64(3 * simd.LANES)


@inline_function
def _row(m_re, m_im, at, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    """Product of one row of the matrix, from `at` on, and (a + ib, c + id, e + if, g + ih)."""
    u, v = simd.load(m_re, at), simd.load(m_im, at)
    p, q = u * a, u * b
    p, q = simd.subtract_product(v, b, p), simd.add_product(v, a, q)
    u, v = simd.load(m_re, at + _C1), simd.load(m_im, at + _C1)
    p, q = simd.add_product(u, c, p), simd.add_product(u, d, q)
    p, q = simd.subtract_product(v, d, p), simd.add_product(v, c, q)
    u, v = simd.load(m_re, at + _C2), simd.load(m_im, at + _C2)
    p, q = simd.add_product(u, e, p), simd.add_product(u, f, q)
    p, q = simd.subtract_product(v, f, p), simd.add_product(v, e, q)
    u, v = simd.load(m_re, at + _C3), simd.load(m_im, at + _C3)
    p, q = simd.add_product(u, g, p), simd.add_product(u, h, q)
    p, q = simd.subtract_product(v, h, p), simd.add_product(v, g, q)
    return p, q


@device_function
def apply_pair(re, im, end, low, high, m_re, m_im, at):  # type: ignore[no-untyped-def]
    """Apply a matrix whose two bits, `low` < `high` as masks, select vectors: at least LANES. The
    matrix: PAIR_FLOATS floats of m_re and of m_im from `at` on; element (r, c) is the vector at +
    LANES * (4 * r + c), whose lanes belong to the lanes of the state."""
    mask = low | high
    rest = ~mask
    base = _0
    while base < end:
        k = base
        stop = k + low
        while k < stop:
            k1, k2, k3 = k + low, k + high, k + mask
            a, b, c, d = simd.load(re, k), simd.load(im, k), simd.load(re, k1), simd.load(im, k1)
            e, f, g, h = simd.load(re, k2), simd.load(im, k2), simd.load(re, k3), simd.load(im, k3)
            p, q = _row(m_re, m_im, at, a, b, c, d, e, f, g, h)
            simd.store(re, k, p)
            simd.store(im, k, q)
            p, q = _row(m_re, m_im, at + _ROW, a, b, c, d, e, f, g, h)
            simd.store(re, k1, p)
            simd.store(im, k1, q)
            p, q = _row(m_re, m_im, at + _ROW + _ROW, a, b, c, d, e, f, g, h)
            simd.store(re, k2, p)
            simd.store(im, k2, q)
            p, q = _row(m_re, m_im, at + _ROW + _ROW + _ROW, a, b, c, d, e, f, g, h)
            simd.store(re, k3, p)
            simd.store(im, k3, q)
            k += _LANES
        base = ((base | mask) + low) & rest


def _in_one_lane_bit(lower: Any, upper: Any) -> Any:
    """Make a function for a matrix on a lane bit and on a bit that selects vectors."""

    @inline_function
    def apply(re, im, end, high, m_re, m_im):  # type: ignore[no-untyped-def]
        k = _0
        while k < end:
            j = k | high
            x, y, u, v = simd.load(re, k), simd.load(im, k), simd.load(re, j), simd.load(im, j)
            a, b, c, d = lower(x), lower(y), upper(x), upper(y)
            e, f, g, h = lower(u), lower(v), upper(u), upper(v)
            p, q = _row(m_re, m_im, _0, a, b, c, d, e, f, g, h)
            simd.store(re, k, p)
            simd.store(im, k, q)
            p, q = _row(m_re, m_im, _ROW, a, b, c, d, e, f, g, h)
            simd.store(re, j, p)
            simd.store(im, j, q)
            k = ((k | high) + _LANES) & ~high

    return apply


def _in_two_lane_bits(lower: Any, upper: Any, lower_high: Any, upper_high: Any) -> Any:
    """Make a function for a matrix on two lane bits."""

    @inline_function
    def apply(re, im, end, m_re, m_im):  # type: ignore[no-untyped-def]
        k = _0
        while k < end:
            x, y = simd.load(re, k), simd.load(im, k)
            a, b, c, d = lower(x), lower(y), upper(x), upper(y)
            e, f, g, h = upper_high(a), upper_high(b), upper_high(c), upper_high(d)
            a, b, c, d = lower_high(a), lower_high(b), lower_high(c), lower_high(d)
            p, q = _row(m_re, m_im, _0, a, b, c, d, e, f, g, h)
            simd.store(re, k, p)
            simd.store(im, k, q)
            k += _LANES

    return apply


_in_1, _in_2 = (
    _in_one_lane_bit(simd.lower_1, simd.upper_1),
    _in_one_lane_bit(simd.lower_2, simd.upper_2),
)
_in_4 = _in_one_lane_bit(simd.lower_4, simd.upper_4)
_in_1_2 = _in_two_lane_bits(simd.lower_1, simd.upper_1, simd.lower_2, simd.upper_2)
_in_1_4 = _in_two_lane_bits(simd.lower_1, simd.upper_1, simd.lower_4, simd.upper_4)
_in_2_4 = _in_two_lane_bits(simd.lower_2, simd.upper_2, simd.lower_4, simd.upper_4)


@device_function
def _spread(m_re, m_im, at, low, high, work_re, work_im):  # type: ignore[no-untyped-def]
    """Write a vector for each column of each matrix row that a vector's lanes need."""
    # `upper` is unused if high is no lane bit.
    chosen, upper = simd.where(low, low), simd.where(high, high)
    both = high < _LANES
    for r in range(_1 if both else _2):
        for c in range(np.uint64(4)):
            k = at + c + _C2 * r
            to = _ROW * r + _LANES * c
            u = simd.choose(chosen, simd.splat(m_re[k + _LANES]), simd.splat(m_re[k]))
            v = simd.choose(chosen, simd.splat(m_im[k + _LANES]), simd.splat(m_im[k]))
            if both:
                x = simd.choose(chosen, simd.splat(m_re[k + _C3]), simd.splat(m_re[k + _C2]))
                y = simd.choose(chosen, simd.splat(m_im[k + _C3]), simd.splat(m_im[k + _C2]))
                u, v = simd.choose(upper, x, u), simd.choose(upper, y, v)
            simd.store(work_re, to, u)
            simd.store(work_im, to, v)


@device_function
def apply_pair_in_lanes(re, im, end, low, high, m_re, m_im, at, work_re, work_im):  # type: ignore[no-untyped-def]
    """Apply a matrix as `apply_pair`, if bit `low`, and perhaps `high`, selects the lane of a
    vector. The matrix: element (r, c) is m_re[at + LANES * r + c]. `work_re`, `work_im`: scratch,
    of PAIR_FLOATS floats each."""
    _spread(m_re, m_im, at, low, high, work_re, work_im)
    if high >= _LANES:
        if low == _1:
            _in_1(re, im, end, high, work_re, work_im)
        elif low == _2:
            _in_2(re, im, end, high, work_re, work_im)
        else:
            _in_4(re, im, end, high, work_re, work_im)
    elif low | high == _1 | _2:
        _in_1_2(re, im, end, work_re, work_im)
    elif low | high == _1 | _4:
        _in_1_4(re, im, end, work_re, work_im)
    else:
        _in_2_4(re, im, end, work_re, work_im)


# Small matrices made by the steps of gates, for one state or for eight.
#
# A matrix of 2 or 4 rows is held as two float64 arrays (real, imaginary parts). For one state, a
# row is one vector, whose lanes are the columns; for eight states it has a vector for each column,
# whose lanes are the states. A step is multiplied from the left, as `gate_kernels` applies it to a
# state, so a state's matrices have the same bits in both forms.

_LOW = np.uint64(simd.LANES - 1)


@record
class BoundRows(NamedTuple):
    """Rows of parameters of a circuit."""

    slot_of: I32  # of each parameter, or -1; empty if all are fixed
    values: F64_2  # [rows, slots]


@device_function
def load_numbers(code, num_params, at, pieces, params, bound, first, entries, own, eight):  # type: ignore[no-untyped-def]
    """Load the matrices of one operation's pieces into `eight`: for each element a vector, whose
    lane v has the value of row first + v (or the last) of `bound`."""
    slot_of, bindings = bound.slot_of, bound.values
    start = np.int64(0)
    free = False
    if slot_of.size:
        for j in range(at, at + num_params):
            free = free or slot_of[j] >= 0
    if free and num_params == 1:
        for v in range(simd.LANES):
            own[v] = bindings[min(first + v, len(bindings) - 1), slot_of[at]]
        if matrices_of_eight(code, simd.load(own, _0), eight):
            return
    for v in range(simd.LANES if free else 1):
        for j in range(num_params):
            own[j] = params[at + j]
            if free and slot_of[at + j] >= 0:
                own[j] = bindings[min(first + v, len(bindings) - 1), slot_of[at + j]]
        matrices(code, own, start, entries, start)
        if free:
            for s in range(pieces):
                for e in range(8):
                    eight[64 * s + simd.LANES * e + v] = entries[s, e]
    if not free:
        for s in range(pieces):
            for e in range(8):
                simd.store(eight, np.uint64(64 * s + simd.LANES * e), simd.splat(entries[s, e]))


@device_function
def reset(re, im, at, side, columns):  # type: ignore[no-untyped-def]
    """Write the identity, with `side` rows, from `at` on. columns: vectors of a row; 1: its lanes
    are the columns."""
    none, ones = simd.splat(0.0), simd.splat(1.0)
    for r in range(np.uint64(side)):
        for c in range(np.uint64(columns)):
            to = at + _LANES * (np.uint64(columns) * r + c)
            if columns == 1:
                simd.store(re, to, simd.choose(simd.where(_LOW, r), ones, none))
            else:
                simd.store(re, to, ones if r == c else none)
            simd.store(im, to, none)


@device_function
def absorb(re, im, at, side, columns, low, high, steps, first, pieces, eight):  # type: ignore[no-untyped-def]
    """Multiply steps to a matrix from `at` on, from the left; its bits are those of the masks `low`
    and `high` (0: it has 2 rows)."""
    gap = _LANES * np.uint64(columns)
    for s in range(first, first + pieces):
        m = load_matrix(eight, s)
        kind, mask, zero_bits, one_bits = step_at(steps, s)
        mask = (_1 if mask & low else _0) | (_2 if mask & high else _0)
        zero_bits = (_1 if zero_bits & low else _0) | (_2 if zero_bits & high else _0)
        one_bits = (_1 if one_bits & low else _0) | (_2 if one_bits & high else _0)
        other = zero_bits ^ one_bits
        for i in range(np.uint64(side)):
            if i & mask != zero_bits:
                continue
            k, j = at + gap * i, at + gap * (i ^ other)
            stop = k + gap
            while k < stop:
                a, b = simd.load(re, k), simd.load(im, k)
                if kind == PHASE:
                    simd.store(re, k, a * m.re_00 - b * m.im_00)
                    simd.store(im, k, a * m.im_00 + b * m.re_00)
                else:
                    c, d = simd.load(re, j), simd.load(im, j)
                    if kind == PERMUTATION:
                        p, q, r, t = c, d, a, b
                    elif kind == REAL:
                        p, q = m.re_00 * a + m.re_01 * c, m.re_00 * b + m.re_01 * d
                        r, t = m.re_10 * a + m.re_11 * c, m.re_10 * b + m.re_11 * d
                    else:
                        p, q, r, t = multiply(a, b, c, d, m)
                    simd.store(re, k, p)
                    simd.store(im, k, q)
                    simd.store(re, j, r)
                    simd.store(im, j, t)
                k += _LANES
                j += _LANES
