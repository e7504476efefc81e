"""Reverse pass over two states, tile by tile, with the sums for derivatives.

Factors go backwards through `tiles.arrange`: the inverse of a factor touches the same
amplitudes. The sums of a factor with a free parameter are taken before its inverse is applied. They
run over fixed groups of tiles, so they have the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.gates import PHASE, REAL
from simulators.compiler.kernel import (
    I64,
    INT,
    REALS,
    REALS2,
    REALS3,
    SINGLES,
    WORD,
    WORDS2,
    device_function,
    kernel,
)
from simulators.compiler.simd import LANES, choose, imags_of, reals_of, splat, store_both, where
from simulators.compiler.simd import load as take
from simulators.compiler.simd import store as put
from simulators.statevector.backend.pauli import clear
from simulators.statevector.small.gate_kernels import apply, multiply, xor_lanes
from simulators.statevector.state import load, spread, store

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@device_function
def _take(array, start, count, re, im, at):  # type: ignore[no-untyped-def]
    """Load as `state.load`, at least LANES amplitudes."""
    k = _0
    while k < np.uint64(count):
        place = np.uint64(2 * start) + _2 * k
        put(re, np.uint64(at) + k, reals_of(array, place))
        put(im, np.uint64(at) + k, imags_of(array, place))
        k += _LANES


@device_function
def _put(array, start, count, re, im, at):  # type: ignore[no-untyped-def]
    """Store the amplitudes; the inverse of `_take`."""
    k = _0
    while k < np.uint64(count):
        place = np.uint64(at) + k
        store_both(array, np.uint64(2 * start) + _2 * k, take(re, place), take(im, place))
        k += _LANES


@device_function
def _total(value, eight):  # type: ignore[no-untyped-def]
    """Sum of a vector's lanes."""
    put(eight, _0, value)
    total = 0.0
    for lane in range(LANES):
        total += eight[lane]
    return total


@device_function
def _across(re, im, re2, im2, end, kind, mask, zero_bits, one_bits, m, eight, into):  # type: ignore[no-untyped-def]
    """Compute the sums of a step whose mask has none of the lowest bits, and apply its inverse to
    both states; m: its row."""
    m0, m1, m2, m3 = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
    m4, m5, m6, m7 = splat(m[4]), splat(m[5]), splat(m[6]), splat(m[7])
    run = mask & (~mask + _1) if mask else end
    rest = ~mask
    gap = one_bits - zero_bits
    p, q, r, s = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    base = _0
    while base < end:
        k = base | zero_bits
        stop = k + run
        if kind == PHASE:
            while k < stop:
                a, b, e, f = take(re, k), take(im, k), take(re2, k), take(im2, k)
                p = p + (e * b - f * a)
                put(re, k, a * m0 - b * m1)
                put(im, k, a * m1 + b * m0)
                put(re2, k, e * m0 - f * m1)
                put(im2, k, e * m1 + f * m0)
                k += _LANES
        elif kind == REAL:  # a rotation about Y: the other sums have no weight
            while k < stop:
                j = k + gap
                a, b, c, d = take(re, k), take(im, k), take(re, j), take(im, j)
                e, f, g, h = take(re2, k), take(im2, k), take(re2, j), take(im2, j)
                s = s + ((e * c + f * d) - (g * a + h * b))
                put(re, k, m0 * a + m2 * c)
                put(im, k, m0 * b + m2 * d)
                put(re, j, m4 * a + m6 * c)
                put(im, j, m4 * b + m6 * d)
                put(re2, k, m0 * e + m2 * g)
                put(im2, k, m0 * f + m2 * h)
                put(re2, j, m4 * e + m6 * g)
                put(im2, j, m4 * f + m6 * h)
                k += _LANES
        else:
            while k < stop:
                j = k + gap
                a, b, c, d = take(re, k), take(im, k), take(re, j), take(im, j)
                e, f, g, h = take(re2, k), take(im2, k), take(re2, j), take(im2, j)
                p = p + (e * b - f * a)
                q = q + (g * d - h * c)
                r = r + ((e * d - f * c) + (g * b - h * a))
                s = s + ((e * c + f * d) - (g * a + h * b))
                w, x, y, z = multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
                put(re, k, w)
                put(im, k, x)
                put(re, j, y)
                put(im, j, z)
                w, x, y, z = multiply(e, f, g, h, m0, m1, m2, m3, m4, m5, m6, m7)
                put(re2, k, w)
                put(im2, k, x)
                put(re2, j, y)
                put(im2, j, z)
                k += _LANES
        base = ((base | mask) + run) & rest
    into[0] += _total(p, eight)
    if kind != PHASE:
        into[1] += _total(q, eight)
        into[2] += _total(r, eight)
        into[3] += _total(s, eight)


@device_function
def _within(re, im, re2, im2, end, kind, mask, zero_bits, one_bits, eight, into):  # type: ignore[no-untyped-def]
    """Compute the sums of a step whose mask selects among the lanes of a vector."""
    low, gap = mask & _LOW, (zero_bits ^ one_bits) & _LOW
    first, second = where(low, zero_bits & _LOW), where(low, one_bits & _LOW)
    by_1, by_2, by_4 = where(_0, ~gap & _1), where(_0, ~gap & _2), where(_0, ~gap & _4)
    high = mask & ~_LOW
    none = splat(0.0)
    p, q, r, s = none, none, none, none
    base = _0
    while base < end:
        i = base | (zero_bits & ~_LOW)
        a, b, e, f = take(re, i), take(im, i), take(re2, i), take(im2, i)
        p = p + choose(first, e * b - f * a, none)
        if kind != PHASE:
            j = base | (one_bits & ~_LOW)
            c, d, g, h = take(re, j), take(im, j), take(re2, j), take(im2, j)
            q = q + choose(second, g * d - h * c, none)
            c, d = xor_lanes(c, by_1, by_2, by_4), xor_lanes(d, by_1, by_2, by_4)
            r = r + choose(first, e * d - f * c, none)
            s = s + choose(first, e * c + f * d, none)
            a, b = xor_lanes(a, by_1, by_2, by_4), xor_lanes(b, by_1, by_2, by_4)
            r = r + choose(second, g * b - h * a, none)
            s = s - choose(second, g * a + h * b, none)
        base = ((base | high) + _LANES) & ~high
    into[0] += _total(p, eight)
    if kind != PHASE:
        into[1] += _total(q, eight)
        into[2] += _total(r, eight)
        into[3] += _total(s, eight)


@kernel(
    REALS, SINGLES, REALS, SINGLES, INT, WORD, WORDS2, I64, INT, INT, REALS2, INT, INT, INT, I64,
    REALS, REALS3, group="gradient",
)  # fmt: skip
def apply_inverse(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, n, tile, placed, columns, first_step, last_step, floats,
    tiles, first, last, control, scratch, sums,
):  # fmt: skip
    """Apply the inverses of steps first_step .. last_step - 1 of a pass to both states; groups
    first .. last - 1.

    A group is `tiles` tiles; columns[s]: column in sums[group] of the four sums of a step, or -1.
    `scratch`: float64 [4 * max(tile size, LANES) + LANES].
    """
    room = (scratch.size - LANES) // 4
    re, im = scratch[:room], scratch[room : 2 * room]
    re2, im2 = scratch[2 * room : 3 * room], scratch[3 * room : 4 * room]
    eight = scratch[4 * room :]
    size = min(room, np.int64(1) << n)
    end = np.uint64(room)
    if size < room:
        clear(scratch, np.uint64(scratch.size))
    stretch = np.int64(~tile & (tile + _1))  # the tile's lowest qubits, without a gap
    if stretch > size or stretch == 0:
        stretch = np.int64(size)
    outside = ((_1 << np.uint64(n)) - _1) & ~tile
    above = tile & ~np.uint64(stretch - 1)
    for group in range(first, last):
        for k in range(sums.shape[1]):
            for what in range(4):
                sums[group, k, what] = 0.0
        for number in range(group * tiles, (group + 1) * tiles):
            base = spread(np.uint64(number), outside)
            for at in range(0, size, stretch):
                start = np.int64(base | spread(np.uint64(at // stretch), above))
                if reals.size and stretch >= LANES:
                    _take(reals, start, stretch, re, im, at)
                    _take(reals2, start, stretch, re2, im2, at)
                else:
                    load(reals, singles, start, stretch, re, im, at)
                    load(reals2, singles2, start, stretch, re2, im2, at)
            for s in range(first_step, last_step):
                if control[0]:
                    return
                if base & placed[s, 4] == placed[s, 5]:
                    kind, mask, zero_bits, one_bits = (
                        placed[s, 0],
                        placed[s, 1],
                        placed[s, 2],
                        placed[s, 3],
                    )
                    row = np.int64(placed[s, 6])
                    if columns[s] >= 0:
                        into = sums[group, columns[s]]
                        if not mask & _LOW:
                            m = floats[row]
                            _across(
                                re,
                                im,
                                re2,
                                im2,
                                end,
                                kind,
                                mask,
                                zero_bits,
                                one_bits,
                                m,
                                eight,
                                into,
                            )
                            continue
                        _within(re, im, re2, im2, end, kind, mask, zero_bits, one_bits, eight, into)
                    apply(re, im, size, kind, mask, zero_bits, one_bits, floats, row)
                    apply(re2, im2, size, kind, mask, zero_bits, one_bits, floats, row)
            for at in range(0, size, stretch):
                start = np.int64(base | spread(np.uint64(at // stretch), above))
                if reals.size and stretch >= LANES:
                    _put(reals, start, stretch, re, im, at)
                    _put(reals2, start, stretch, re2, im2, at)
                else:
                    store(reals, singles, start, stretch, re, im, at)
                    store(reals2, singles2, start, stretch, re2, im2, at)
