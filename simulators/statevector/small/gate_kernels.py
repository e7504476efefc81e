"""Gate kernels on a block of amplitudes, held as two float64 arrays (real, imaginary parts).

A gate is a list of placed factors: a row of integers (kind, mask, zero, one) and eight floats (re,
im of a 2x2 matrix, row by row). A placed factor pairs the basis states whose bits under `mask`
equal `zero` or `one`; `mask` holds controls and targets. All paths for small circuits apply gates
here, so they agree bit by bit: a SIMD lane does the operations of `multiply` in the same order.
"""

import math
from typing import Any

import numpy as np

from simulators.circuit import gates
from simulators.compiler import simd
from simulators.compiler.kernel import device_function, inline_function
from simulators.compiler.simd import choose, load, splat, store, where

_0, _1, _2, _3, _4, _5, _6, _7, _8 = (np.uint64(k) for k in range(9))
_LANES = np.uint64(simd.LANES)
_LOW = np.uint64(simd.LANES - 1)  # bits of an index that are the lane number


@inline_function
def multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    """Product of the 2x2 matrix and (a + ib, c + id): of numbers or of vectors."""
    return (
        m0 * a - m1 * b + m2 * c - m3 * d,
        m0 * b + m1 * a + m2 * d + m3 * c,
        m4 * a - m5 * b + m6 * c - m7 * d,
        m4 * b + m5 * a + m6 * d + m7 * c,
    )


@inline_function
def xor_lanes(value, by_1, by_2, by_4):  # type: ignore[no-untyped-def]
    """Move lane k to lane k ^ gap; `by_1`, `by_2`, `by_4`: all lanes if the gap has that bit."""
    value = choose(by_1, simd.exchange_1(value), value)
    value = choose(by_2, simd.exchange_2(value), value)
    return choose(by_4, simd.exchange_4(value), value)


@inline_function
def _exchanged(  # type: ignore[no-untyped-def]
    re, im, base, end, high, rest, start, kind, first, second, gap, m0, m1, m2, m3
):
    """Apply a step whose pairs lie within one vector: lane k, the first or second of a pair, and k
    ^ gap."""
    by_1, by_2, by_4 = where(_0, ~gap & _1), where(_0, ~gap & _2), where(_0, ~gap & _4)
    while base < end:
        i = base | start
        x, y = load(re, i), load(im, i)
        p, q = xor_lanes(x, by_1, by_2, by_4), xor_lanes(y, by_1, by_2, by_4)
        if kind != gates.PERMUTATION:
            a, b = choose(second, p, x), choose(second, q, y)
            c, d = choose(second, x, p), choose(second, y, q)
            p = m0 * a - m1 * b + m2 * c - m3 * d
            q = m0 * b + m1 * a + m2 * d + m3 * c
        store(re, i, choose(first, p, choose(second, p, x)))
        store(im, i, choose(first, q, choose(second, q, y)))
        base = ((base | high) + _LANES) & rest


def _on_lane_bit(lower: Any, upper: Any) -> Any:
    """Make a function for steps whose pairs differ in one lane bit, for all lanes alike."""

    @inline_function
    def apply(re, im, base, end, high, rest, start, kind, second, m0, m1, m2, m3):  # type: ignore[no-untyped-def]
        while base < end:
            i = base | start
            x, y = load(re, i), load(im, i)
            a, b, c, d = lower(x), lower(y), upper(x), upper(y)
            if kind == gates.PERMUTATION:
                p, q = choose(second, a, c), choose(second, b, d)
            else:
                p, q = m0 * a - m1 * b + m2 * c - m3 * d, m0 * b + m1 * a + m2 * d + m3 * c
            store(re, i, p)
            store(im, i, q)
            base = ((base | high) + _LANES) & rest

    return apply


_on_1, _on_2 = _on_lane_bit(simd.lower_1, simd.upper_1), _on_lane_bit(simd.lower_2, simd.upper_2)
_on_4 = _on_lane_bit(simd.lower_4, simd.upper_4)


@device_function
def within(re, im, end, kind, mask, zero_bits, one_bits, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    """Apply a step whose mask has lowest bits: it selects among the lanes of a vector. The first
    lane of a pair finds the second in the partner's lane, and conversely. Lanes without a partner
    are multiplied by 1."""
    low, gap = mask & _LOW, (zero_bits ^ one_bits) & _LOW
    first, second = where(low, zero_bits & _LOW), where(low, one_bits & _LOW)
    high = mask & ~_LOW
    rest = ~high
    start, other = zero_bits & ~_LOW, one_bits & ~_LOW
    base = _0
    if kind == gates.PHASE:
        m0, m1 = choose(first, m0, splat(1.0)), choose(first, m1, splat(0.0))
        while base < end:
            i = base | start
            x, y = load(re, i), load(im, i)
            store(re, i, x * m0 - y * m1)
            store(im, i, x * m1 + y * m0)
            base = ((base | high) + _LANES) & rest
    elif start == other:
        m0, m1 = choose(second, m4, m0), choose(second, m5, m1)
        m2, m3 = choose(second, m6, m2), choose(second, m7, m3)
        if low == _1 and not zero_bits & _LOW:
            _on_1(re, im, base, end, high, rest, start, kind, second, m0, m1, m2, m3)
        elif low == _2 and not zero_bits & _LOW:
            _on_2(re, im, base, end, high, rest, start, kind, second, m0, m1, m2, m3)
        elif low == _4 and not zero_bits & _LOW:
            _on_4(re, im, base, end, high, rest, start, kind, second, m0, m1, m2, m3)
        else:
            _exchanged(
                re, im, base, end, high, rest, start, kind, first, second, gap, m0, m1, m2, m3
            )
    elif not gap:
        none, ones = splat(0.0), splat(1.0)
        m0, m1, m2 = choose(first, m0, ones), choose(first, m1, none), choose(first, m2, none)
        m3, m4, m5 = choose(first, m3, none), choose(first, m4, none), choose(first, m5, none)
        m6, m7 = choose(first, m6, ones), choose(first, m7, none)
        while base < end:
            i, j = base | start, base | other
            a, b, c, d = load(re, i), load(im, i), load(re, j), load(im, j)
            if kind == gates.PERMUTATION:
                p, q = choose(first, c, a), choose(first, d, b)
                r, s = choose(first, a, c), choose(first, b, d)
            else:
                p, q, r, s = multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
            store(re, i, p)
            store(im, i, q)
            store(re, j, r)
            store(im, j, s)
            base = ((base | high) + _LANES) & rest
    else:
        by_1, by_2, by_4 = where(_0, ~gap & _1), where(_0, ~gap & _2), where(_0, ~gap & _4)
        while base < end:
            i, j = base | start, base | other
            a, b, c, d = load(re, i), load(im, i), load(re, j), load(im, j)
            e, f = xor_lanes(c, by_1, by_2, by_4), xor_lanes(d, by_1, by_2, by_4)
            g, h = xor_lanes(a, by_1, by_2, by_4), xor_lanes(b, by_1, by_2, by_4)
            if kind == gates.PERMUTATION:
                p, q, r, s = e, f, g, h
            else:
                p, q, _, _ = multiply(a, b, e, f, m0, m1, m2, m3, m4, m5, m6, m7)
                _, _, r, s = multiply(g, h, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
            store(re, i, choose(first, p, a))
            store(im, i, choose(first, q, b))
            store(re, j, choose(second, r, c))
            store(im, j, choose(second, s, d))
            base = ((base | high) + _LANES) & rest


@inline_function
def across(re, im, end, kind, mask, zero_bits, one_bits, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    """Apply a step whose mask has none of the lowest bits: all lanes of a vector are treated alike.
    m0 .. m7: the matrix, as vectors; lanes may have different matrices."""
    run = mask & (~mask + _1) if mask else end
    rest = ~mask
    gap = one_bits - zero_bits
    base = np.uint64(0)
    while base < end:
        k = base | zero_bits
        stop = k + run
        if kind == gates.PHASE:
            while k < stop:
                a, b = load(re, k), load(im, k)
                store(re, k, a * m0 - b * m1)
                store(im, k, a * m1 + b * m0)
                k += _LANES
        elif kind == gates.PERMUTATION:
            while k < stop:
                a, b, c, d = load(re, k), load(im, k), load(re, k + gap), load(im, k + gap)
                store(re, k, c)
                store(im, k, d)
                store(re, k + gap, a)
                store(im, k + gap, b)
                k += _LANES
        elif kind == gates.REAL:
            while k < stop:
                a, b, c, d = load(re, k), load(im, k), load(re, k + gap), load(im, k + gap)
                store(re, k, m0 * a + m2 * c)
                store(im, k, m0 * b + m2 * d)
                store(re, k + gap, m4 * a + m6 * c)
                store(im, k + gap, m4 * b + m6 * d)
                k += _LANES
        else:
            while k < stop:
                a, b, c, d = load(re, k), load(im, k), load(re, k + gap), load(im, k + gap)
                p, q, r, s = multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
                store(re, k, p)
                store(im, k, q)
                store(re, k + gap, r)
                store(im, k + gap, s)
                k += _LANES
        base = ((base | mask) + run) & rest


@inline_function
def apply(re, im, size, kind, mask, zero_bits, one_bits, floats, row):  # type: ignore[no-untyped-def]
    """Apply one step to the first `size` amplitudes; all its bits lie within them. The arrays hold
    at least one vector. Elements beyond `size` may be undefined: they change, and affect no other
    element."""
    end = max(np.uint64(size), _LANES)
    m0, m1 = splat(floats[row, 0]), splat(floats[row, 1])
    m2, m3 = splat(floats[row, 2]), splat(floats[row, 3])
    m4, m5 = splat(floats[row, 4]), splat(floats[row, 5])
    m6, m7 = splat(floats[row, 6]), splat(floats[row, 7])
    if mask & _LOW:
        within(re, im, end, kind, mask, zero_bits, one_bits, m0, m1, m2, m3, m4, m5, m6, m7)
    else:
        across(re, im, end, kind, mask, zero_bits, one_bits, m0, m1, m2, m3, m4, m5, m6, m7)


KIND, MASK, ZERO, ONE = range(4)
MAX_PIECES = max(len(gate.pieces) for gate in gates.GATES.values())

_PIECES = [piece for gate in gates.GATES.values() for piece in gate.pieces]
_COUNTS = [0] * gates.FIRST_GATE + [len(gate.pieces) for gate in gates.GATES.values()]

COUNTS = np.array(_COUNTS, np.int64)  # pieces of each code

# Two tables in one: by code, its first piece and their number; by piece, its patterns.
_TABLE = np.zeros((max(len(_COUNTS), len(_PIECES)), 8), np.int64)
_TABLE[: len(_COUNTS), 0] = np.cumsum(COUNTS) - COUNTS
_TABLE[: len(_COUNTS), 1] = COUNTS
_TABLE[: len(_PIECES), 2:] = [(p.targets, p.mask, p.low, p.high, p.kind, p.source) for p in _PIECES]


_PARTS = [[(complex(x).real, complex(x).imag) for x in piece.matrix] for piece in _PIECES]
_NUMBERS = np.array([[p.scale, *np.ravel(x)] for p, x in zip(_PIECES, _PARTS, strict=True)])
_R = 0.5**0.5


@device_function
def _matrix(source, c, s, params, at, floats, row):  # type: ignore[no-untyped-def]
    """`gates.matrix_of`, compiled: [[c, -s e^(i lam)], [s e^(i phi), c e^(i (phi + lam))]]. c, s:
    cosine and sine of half the angle."""
    phi_x = lam_x = gamma_x = 1.0
    phi_y = lam_y = gamma_y = 0.0
    if source == gates.ROTATION:
        phi_x = lam_x = 0.0
        phi_y = -1.0
        lam_y = 1.0
    elif source == gates.XY_ROTATION:  # phi = tilt - pi/2 = -lam
        phi_x = lam_x = math.sin(params[at + 1])
        lam_y = math.cos(params[at + 1])
        phi_y = -lam_y
    elif source != gates.RY:
        skip = 1
        if source == gates.U2:
            c = s = _R
            skip = 0
        phi_x = math.cos(params[at + skip])
        phi_y = math.sin(params[at + skip])
        lam_x = math.cos(params[at + skip + 1])
        lam_y = math.sin(params[at + skip + 1])
    floats[row, 0] = c
    floats[row, 1] = 0.0
    floats[row, 2] = -s * lam_x
    floats[row, 3] = -s * lam_y
    floats[row, 4] = s * phi_x
    floats[row, 5] = s * phi_y
    floats[row, 6] = c * (phi_x * lam_x - phi_y * lam_y)
    floats[row, 7] = c * (phi_x * lam_y + phi_y * lam_x)
    if source == gates.CU:
        gamma_x = math.cos(params[at + 3])
        gamma_y = math.sin(params[at + 3])
        for k in range(0, 8, 2):
            x = floats[row, k]
            y = floats[row, k + 1]
            floats[row, k] = x * gamma_x - y * gamma_y
            floats[row, k + 1] = x * gamma_y + y * gamma_x


@device_function
def cosine_and_sine(angle):  # type: ignore[no-untyped-def]
    """Cosine and sine of any angle, with the bits of `simd.cosine_sine` up to REDUCED."""
    if abs(angle) <= simd.REDUCED:
        return simd.cosine_sine(angle)
    return math.cos(angle), math.sin(angle)


@inline_function
def matrices_of_eight(code, angles, eight):  # type: ignore[no-untyped-def]
    """Write the numbers of the steps of an operation with one parameter as vectors, from `eight`
    on: those of `matrices` for the angle in each lane, up to signs of zeros. Returns False, and
    writes nothing, if an angle is beyond REDUCED or no number."""
    if simd.at_most(angles * angles, simd.REDUCED * simd.REDUCED) < simd.LANES:
        return False
    table = _TABLE
    values = _NUMBERS
    first = table[code, 0]
    factor = 0.0  # last factor of the angles: pieces of an operation differ in its sign
    none = splat(0.0)
    c, s = splat(1.0), none
    row = _0
    for piece in range(first, first + table[code, 1]):
        source = table[piece, 7]
        if source == gates.FIXED:
            for k in range(np.uint64(8)):
                store(eight, row + _LANES * k, splat(values[piece, np.uint64(1) + k]))
        else:
            scale = values[piece, 0] if source == gates.P_GATE else values[piece, 0] * 0.5
            if scale == -factor:
                s = none - s
            elif scale != factor:
                c, s = simd.cosine_sine(splat(scale) * angles)
            factor = scale
            store(eight, row, c)
            if source == gates.P_GATE:
                store(eight, row + _LANES, s)
            else:
                real = source == gates.RY
                store(eight, row + _LANES, none)
                store(eight, row + _LANES * _2, none - s if real else none)
                store(eight, row + _LANES * _3, none if real else none - s)
                store(eight, row + _LANES * _4, s if real else none)
                store(eight, row + _LANES * _5, none if real else none - s)
                store(eight, row + _LANES * _6, c)
                store(eight, row + _LANES * _7, none)
        row += _LANES * _8
    return True


@inline_function
def matrices(code, params, at_param, floats, row):  # type: ignore[no-untyped-def]
    """Write the numbers of one operation's steps from `row` on; returns the row after them."""
    table = _TABLE  # named once: each use of a constant array is compiled again
    values = _NUMBERS
    first = table[code, 0]
    previous = 0.0  # last angle, its cosine and sine: pieces of an operation differ in its sign
    c = 1.0
    s = 0.0
    for piece in range(first, first + table[code, 1]):
        source = table[piece, 7]
        if source == gates.FIXED:
            for k in range(8):
                floats[row, k] = values[piece, 1 + k]
        else:
            angle = values[piece, 0] * params[at_param]
            if source != gates.P_GATE:
                angle *= 0.5
            if angle == -previous:
                s = -s
            elif angle != previous:
                c, s = cosine_and_sine(angle)
            previous = angle
            if source == gates.P_GATE:
                floats[row, 0] = c
                floats[row, 1] = s
            else:
                _matrix(source, c, s, params, at_param, floats, row)
        row += 1
    return row


@inline_function
def reach(qubits, at_qubit, count):  # type: ignore[no-untyped-def]
    """Number of amplitudes that may differ from zero once an operation has acted on |0...0>: those
    below twice its highest qubit's bit. A path applies an operation to so many, and no fewer than
    before: the higher qubits are still in |0>."""
    top = np.int64(-1)
    for j in range(at_qubit, at_qubit + count):
        top = max(top, np.int64(qubits[j]))
    return np.int64(1) << (top + 1)


@inline_function
def masks(code, qubits, at_qubit, count, ints, row):  # type: ignore[no-untyped-def]
    """Write the patterns of one operation's steps from `row` on; returns the row after them."""
    table = _TABLE
    first = table[code, 0]
    for piece in range(first, first + table[code, 1]):
        targets = table[piece, 2]
        start = at_qubit + count - targets
        mask = np.uint64(0)
        for j in range(at_qubit, start):
            mask |= _1 << np.uint64(qubits[j])
        zero_bits = mask
        one_bits = mask
        for j in range(targets):
            bit = _1 << np.uint64(qubits[start + j])
            if (table[piece, 3] >> j) & 1:
                mask |= bit
            if (table[piece, 4] >> j) & 1:
                zero_bits |= bit
            if (table[piece, 5] >> j) & 1:
                one_bits |= bit
        ints[row, 0] = table[piece, 6]
        ints[row, 1] = mask
        ints[row, 2] = zero_bits
        ints[row, 3] = one_bits
        row += 1
    return row


@device_function
def place(code, qubits, at_qubit, count, params, at_param, ints, floats, row):  # type: ignore[no-untyped-def]
    """Write the steps of one operation from `row` on; returns the row after them."""
    matrices(code, params, at_param, floats, row)
    return masks(code, qubits, at_qubit, count, ints, row)
