"""Gate kernels on a block of amplitudes, held as two float64 arrays (real, imaginary parts).

A gate is a list of steps (placed factors): a row of integers (`GateStep`) and of eight floats
(`Matrix`). A step pairs the basis states whose bits under its mask equal `zero_bits` or `one_bits`;
the mask holds controls and targets. All paths for small circuits apply gates here, so they agree
bit by bit: a SIMD lane does the operations of `multiply` in the same order.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from simulators.circuit import gates
from simulators.compiler import simd
from simulators.compiler.kernel import device_function, inline_function
from simulators.compiler.simd import choose, load, splat, store, where

_0, _1, _2, _3, _4, _5, _6, _7, _8 = (np.uint64(k) for k in range(9))
_LANES = np.uint64(simd.LANES)
_LOW = np.uint64(simd.LANES - 1)  # bits of an index that are the lane number
KIND, MASK, ZERO, ONE = range(4)  # columns of a table of steps, as fields of `GateStep`


class GateStep(NamedTuple):
    """Step of a gate, in uint64."""

    kind: Any  # PHASE, PERMUTATION, REAL or COMPLEX of `gates`
    mask: Any  # bits of an index that are controls or targets
    zero_bits: Any  # those of the first basis state of a pair
    one_bits: Any  # those of the second


class Matrix(NamedTuple):
    """Real and imaginary parts of a 2x2 matrix, row by row: float64, or vectors. A phase is the
    first element alone."""

    re_00: Any
    im_00: Any
    re_01: Any
    im_01: Any
    re_10: Any
    im_10: Any
    re_11: Any
    im_11: Any


@inline_function
def step_at(steps, row):  # type: ignore[no-untyped-def]
    """Row of a table of steps: uint64 [steps, 4 or more]."""
    return GateStep(steps[row, KIND], steps[row, MASK], steps[row, ZERO], steps[row, ONE])


@inline_function
def shifted(step, bits):  # type: ignore[no-untyped-def]
    """Step on indices that have these bits more below."""
    return GateStep(step.kind, step.mask << bits, step.zero_bits << bits, step.one_bits << bits)


@inline_function
def matrix_at(floats, row):  # type: ignore[no-untyped-def]
    """Row of a table of matrices: float64 [steps, 8]."""
    return Matrix(
        floats[row, 0], floats[row, 1], floats[row, 2], floats[row, 3], floats[row, 4],
        floats[row, 5], floats[row, 6], floats[row, 7],
    )  # fmt: skip


@inline_function
def splat_matrix(floats, row):  # type: ignore[no-untyped-def]
    """Row of a table of matrices, the same in all lanes."""
    return Matrix(
        splat(floats[row, 0]), splat(floats[row, 1]), splat(floats[row, 2]), splat(floats[row, 3]),
        splat(floats[row, 4]), splat(floats[row, 5]), splat(floats[row, 6]), splat(floats[row, 7]),
    )  # fmt: skip


@inline_function
def load_matrix(eight, row):  # type: ignore[no-untyped-def]
    """Row of a table of matrices of vectors: float64 [8 * LANES] each."""
    at = np.uint64(8 * simd.LANES * row)
    return Matrix(
        load(eight, at), load(eight, at + _LANES), load(eight, at + _LANES * _2),
        load(eight, at + _LANES * _3), load(eight, at + _LANES * _4), load(eight, at + _LANES * _5),
        load(eight, at + _LANES * _6), load(eight, at + _LANES * _7),
    )  # fmt: skip


@inline_function
def multiply(a, b, c, d, m):  # type: ignore[no-untyped-def]
    """Product of a `Matrix` and (a + ib, c + id): of numbers or of vectors."""
    return (
        m.re_00 * a - m.im_00 * b + m.re_01 * c - m.im_01 * d,
        m.re_00 * b + m.im_00 * a + m.re_01 * d + m.im_01 * c,
        m.re_10 * a - m.im_10 * b + m.re_11 * c - m.im_11 * d,
        m.re_10 * b + m.im_10 * a + m.re_11 * d + m.im_11 * c,
    )


@inline_function
def xor_lanes(value, by_1, by_2, by_4):  # type: ignore[no-untyped-def]
    """Move lane k to lane k ^ gap; `by_1`, `by_2`, `by_4`: all lanes if the gap has that bit."""
    value = choose(by_1, simd.exchange_1(value), value)
    value = choose(by_2, simd.exchange_2(value), value)
    return choose(by_4, simd.exchange_4(value), value)


@inline_function
def _exchanged(re, im, end, high, rest, start, kind, first, second, gap, m):  # type: ignore[no-untyped-def]
    """Apply a step whose pairs lie within one vector: lane k, the first or second of a pair, and k
    ^ gap. m: for each lane the row of the matrix that makes it, as the first row."""
    by_1, by_2, by_4 = where(_0, ~gap & _1), where(_0, ~gap & _2), where(_0, ~gap & _4)
    base = _0
    while base < end:
        i = base | start
        x, y = load(re, i), load(im, i)
        p, q = xor_lanes(x, by_1, by_2, by_4), xor_lanes(y, by_1, by_2, by_4)
        if kind != gates.PERMUTATION:
            a, b = choose(second, p, x), choose(second, q, y)
            c, d = choose(second, x, p), choose(second, y, q)
            p, q, _, _ = multiply(a, b, c, d, m)
        store(re, i, choose(first, p, choose(second, p, x)))
        store(im, i, choose(first, q, choose(second, q, y)))
        base = ((base | high) + _LANES) & rest


def _on_lane_bit(lower: Any, upper: Any) -> Any:
    """Make a function for steps whose pairs differ in one lane bit, for all lanes alike; m: as for
    `_exchanged`."""

    @inline_function
    def apply(re, im, end, high, rest, start, kind, second, m):  # type: ignore[no-untyped-def]
        base = _0
        while base < end:
            i = base | start
            x, y = load(re, i), load(im, i)
            a, b, c, d = lower(x), lower(y), upper(x), upper(y)
            if kind == gates.PERMUTATION:
                p, q = choose(second, a, c), choose(second, b, d)
            else:
                p, q, _, _ = multiply(a, b, c, d, m)
            store(re, i, p)
            store(im, i, q)
            base = ((base | high) + _LANES) & rest

    return apply


_on_1, _on_2 = _on_lane_bit(simd.lower_1, simd.upper_1), _on_lane_bit(simd.lower_2, simd.upper_2)
_on_4 = _on_lane_bit(simd.lower_4, simd.upper_4)


@inline_function
def _own_rows(second, m):  # type: ignore[no-untyped-def]
    """The row of the matrix that makes a lane, as its first row: the second row in the lanes of
    `second`."""
    return Matrix(
        choose(second, m.re_10, m.re_00), choose(second, m.im_10, m.im_00),
        choose(second, m.re_11, m.re_01), choose(second, m.im_11, m.im_01),
        m.re_10, m.im_10, m.re_11, m.im_11,
    )  # fmt: skip


@inline_function
def _or_identity(first, m):  # type: ignore[no-untyped-def]
    """The matrix in the lanes of `first`, and the identity in the others."""
    zero, one = splat(0.0), splat(1.0)
    return Matrix(
        choose(first, m.re_00, one), choose(first, m.im_00, zero), choose(first, m.re_01, zero),
        choose(first, m.im_01, zero), choose(first, m.re_10, zero), choose(first, m.im_10, zero),
        choose(first, m.re_11, one), choose(first, m.im_11, zero),
    )  # fmt: skip


@device_function
def within(re, im, end, step, m):  # type: ignore[no-untyped-def]
    """Apply a step whose mask has lowest bits: it selects among the lanes of a vector. The first
    lane of a pair finds the second in the partner's lane, and conversely. Lanes without a partner
    are multiplied by 1."""
    kind, zero_bits, one_bits = step.kind, step.zero_bits, step.one_bits
    low, gap = step.mask & _LOW, (zero_bits ^ one_bits) & _LOW
    first, second = where(low, zero_bits & _LOW), where(low, one_bits & _LOW)
    high = step.mask & ~_LOW
    rest = ~high
    start, other = zero_bits & ~_LOW, one_bits & ~_LOW
    base = _0
    if kind == gates.PHASE:
        m0, m1 = choose(first, m.re_00, splat(1.0)), choose(first, m.im_00, splat(0.0))
        while base < end:
            i = base | start
            x, y = load(re, i), load(im, i)
            store(re, i, x * m0 - y * m1)
            store(im, i, x * m1 + y * m0)
            base = ((base | high) + _LANES) & rest
    elif start == other:
        rows = _own_rows(second, m)
        if low == _1 and not zero_bits & _LOW:
            _on_1(re, im, end, high, rest, start, kind, second, rows)
        elif low == _2 and not zero_bits & _LOW:
            _on_2(re, im, end, high, rest, start, kind, second, rows)
        elif low == _4 and not zero_bits & _LOW:
            _on_4(re, im, end, high, rest, start, kind, second, rows)
        else:
            _exchanged(re, im, end, high, rest, start, kind, first, second, gap, rows)
    elif not gap:
        own = _or_identity(first, m)
        while base < end:
            i, j = base | start, base | other
            a, b, c, d = load(re, i), load(im, i), load(re, j), load(im, j)
            if kind == gates.PERMUTATION:
                p, q = choose(first, c, a), choose(first, d, b)
                r, s = choose(first, a, c), choose(first, b, d)
            else:
                p, q, r, s = multiply(a, b, c, d, own)
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
                p, q, _, _ = multiply(a, b, e, f, m)
                _, _, r, s = multiply(g, h, c, d, m)
            store(re, i, choose(first, p, a))
            store(im, i, choose(first, q, b))
            store(re, j, choose(second, r, c))
            store(im, j, choose(second, s, d))
            base = ((base | high) + _LANES) & rest


@inline_function
def across(re, im, end, step, m):  # type: ignore[no-untyped-def]
    """Apply a step whose mask has none of the lowest bits: all lanes of a vector are treated alike.
    m: the matrix, as vectors; lanes may have different matrices."""
    kind, mask, zero_bits, one_bits = step
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
                store(re, k, a * m.re_00 - b * m.im_00)
                store(im, k, a * m.im_00 + b * m.re_00)
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
                store(re, k, m.re_00 * a + m.re_01 * c)
                store(im, k, m.re_00 * b + m.re_01 * d)
                store(re, k + gap, m.re_10 * a + m.re_11 * c)
                store(im, k + gap, m.re_10 * b + m.re_11 * d)
                k += _LANES
        else:
            while k < stop:
                a, b, c, d = load(re, k), load(im, k), load(re, k + gap), load(im, k + gap)
                p, q, r, s = multiply(a, b, c, d, m)
                store(re, k, p)
                store(im, k, q)
                store(re, k + gap, r)
                store(im, k + gap, s)
                k += _LANES
        base = ((base | mask) + run) & rest


@inline_function
def apply_matrix(re, im, end, step, m):  # type: ignore[no-untyped-def]
    """Apply one step, with a matrix of vectors, to the first `end` amplitudes."""
    if step.mask & _LOW:
        within(re, im, end, step, m)
    else:
        across(re, im, end, step, m)


@inline_function
def apply(re, im, size, step, floats, row):  # type: ignore[no-untyped-def]
    """Apply one step, whose matrix is a row of `floats`, to the first `size` amplitudes; all its
    bits lie within them. The arrays hold at least one vector. Elements beyond `size` may be
    undefined: they change, and affect no other element."""
    apply_matrix(re, im, max(np.uint64(size), _LANES), step, splat_matrix(floats, row))


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
        ints[row, KIND] = table[piece, 6]
        ints[row, MASK] = mask
        ints[row, ZERO] = zero_bits
        ints[row, ONE] = one_bits
        row += 1
    return row


@device_function
def place(code, qubits, at_qubit, count, params, at_param, ints, floats, row):  # type: ignore[no-untyped-def]
    """Write the steps of one operation from `row` on; returns the row after them."""
    matrices(code, params, at_param, floats, row)
    return masks(code, qubits, at_qubit, count, ints, row)
