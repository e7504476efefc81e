"""One step on one block of amplitudes, held as two float64 arrays (real and imaginary parts).

Every path of the engine applies gates through here, so they agree to the last bit: a lane of a
vector is computed by the very operations, in the very order, of `_multiply`.

The indices whose bits under a mask are 0 come in runs of 2**(lowest bit of the mask). Adding a run
to an index with the mask's bits set carries over them, so the next run costs three operations.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.gates import PHASE, REAL, SWAP
from simulators.jit import inner
from simulators.vectors import (
    LANES,
    choose,
    exchange_1,
    exchange_2,
    exchange_4,
    load,
    splat,
    store,
    where,
)

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)  # the bits of an index that are a lane's number


@inner
def _multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    """The 2x2 matrix times (a + ib, c + id): of numbers or of vectors."""
    return (
        m0 * a - m1 * b + m2 * c - m3 * d,
        m0 * b + m1 * a + m2 * d + m3 * c,
        m4 * a - m5 * b + m6 * c - m7 * d,
        m4 * b + m5 * a + m6 * d + m7 * c,
    )


@inner
def _partner(value, one, two, four):  # type: ignore[no-untyped-def]
    """Lane k becomes lane k ^ gap; `one`, `two`, `four`: all lanes if the gap has that bit."""
    value = choose(one, exchange_1(value), value)
    value = choose(two, exchange_2(value), value)
    return choose(four, exchange_4(value), value)


@inner
def _within(re, im, end, kind, mask, zero, one, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    """A step whose mask has lowest bits: it chooses among the lanes of a vector.

    A lane that is the first of its pair finds the second in the partner's lane, and conversely.
    """
    low, gap = mask & _LOW, (zero ^ one) & _LOW
    first, second = where(low, zero & _LOW), where(low, one & _LOW)
    by_1, by_2, by_4 = where(_0, ~gap & _1), where(_0, ~gap & _2), where(_0, ~gap & _4)
    high = mask & ~_LOW
    rest = ~high
    start, other = zero & ~_LOW, one & ~_LOW
    base = _0
    if kind == PHASE:
        while base < end:
            i = base | start
            x, y = load(re, i), load(im, i)
            store(re, i, choose(first, x * m0 - y * m1, x))
            store(im, i, choose(first, x * m1 + y * m0, y))
            base = ((base | high) + _LANES) & rest
    elif start == other:
        m0, m1 = choose(second, m4, m0), choose(second, m5, m1)
        m2, m3 = choose(second, m6, m2), choose(second, m7, m3)
        while base < end:
            i = base | start
            x, y = load(re, i), load(im, i)
            p, q = _partner(x, by_1, by_2, by_4), _partner(y, by_1, by_2, by_4)
            if kind != SWAP:
                a, b, c, d = (
                    choose(second, p, x),
                    choose(second, q, y),
                    choose(second, x, p),
                    choose(second, y, q),
                )
                p = m0 * a - m1 * b + m2 * c - m3 * d
                q = m0 * b + m1 * a + m2 * d + m3 * c
            store(re, i, choose(first, p, choose(second, p, x)))
            store(im, i, choose(first, q, choose(second, q, y)))
            base = ((base | high) + _LANES) & rest
    else:
        while base < end:
            i, j = base | start, base | other
            a, b, c, d = load(re, i), load(im, i), load(re, j), load(im, j)
            e, f = _partner(c, by_1, by_2, by_4), _partner(d, by_1, by_2, by_4)
            g, h = _partner(a, by_1, by_2, by_4), _partner(b, by_1, by_2, by_4)
            if kind == SWAP:
                p, q, r, s = e, f, g, h
            else:
                p, q, _, _ = _multiply(a, b, e, f, m0, m1, m2, m3, m4, m5, m6, m7)
                _, _, r, s = _multiply(g, h, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
            store(re, i, choose(first, p, a))
            store(im, i, choose(first, q, b))
            store(re, j, choose(second, r, c))
            store(im, j, choose(second, s, d))
            base = ((base | high) + _LANES) & rest


@inner
def across(re, im, end, kind, mask, zero, one, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    """A step whose mask has none of the lowest bits: all lanes of a vector fare alike.

    m0 .. m7: the matrix, as vectors; lanes may have matrices of their own.
    """
    run = mask & (~mask + _1) if mask else end
    rest = ~mask
    gap = one - zero
    base = np.uint64(0)
    while base < end:
        k = base | zero
        stop = k + run
        if kind == PHASE:
            while k < stop:
                a, b = load(re, k), load(im, k)
                store(re, k, a * m0 - b * m1)
                store(im, k, a * m1 + b * m0)
                k += _LANES
        elif kind == SWAP:
            while k < stop:
                a, b, c, d = load(re, k), load(im, k), load(re, k + gap), load(im, k + gap)
                store(re, k, c)
                store(im, k, d)
                store(re, k + gap, a)
                store(im, k + gap, b)
                k += _LANES
        elif kind == REAL:
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
                p, q, r, s = _multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
                store(re, k, p)
                store(im, k, q)
                store(re, k + gap, r)
                store(im, k + gap, s)
                k += _LANES
        base = ((base | mask) + run) & rest


@inner
def apply(re, im, size, kind, mask, zero, one, floats, row):  # type: ignore[no-untyped-def]
    """Apply one step to the first `size` amplitudes; all its bits lie within them.

    The arrays have room for one vector at least. What lies beyond `size` there may be anything:
    it changes, and nothing else changes by it.
    """
    end = max(np.uint64(size), _LANES)
    m0, m1 = splat(floats[row, 0]), splat(floats[row, 1])
    m2, m3 = splat(floats[row, 2]), splat(floats[row, 3])
    m4, m5 = splat(floats[row, 4]), splat(floats[row, 5])
    m6, m7 = splat(floats[row, 6]), splat(floats[row, 7])
    if mask & _LOW:
        _within(re, im, end, kind, mask, zero, one, m0, m1, m2, m3, m4, m5, m6, m7)
    else:
        across(re, im, end, kind, mask, zero, one, m0, m1, m2, m3, m4, m5, m6, m7)
