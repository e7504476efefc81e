"""Sums of products of amplitudes with the signs of Pauli strings; see `statevector.pauli`."""

from __future__ import annotations

import numpy as np

from simulators.jit import I64, INT, REALS, REALS2, SINGLES, U64, WORD, kernel, part
from simulators.statevector.pauli import EVEN, ODD
from simulators.statevector.signs import moved, sign, signed_sum, walsh
from simulators.vectors import LANES, imags_of, reals_of, store, where

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@part
def _products(first, at, second, at2, end, inner, need, even, odd):  # type: ignore[no-untyped-def]
    """even[j] + i odd[j] = conj(a[j ^ inner]) b[j], for j < end; `need`: EVEN, ODD.

    a, b: the amplitudes from first[at] and second[at2] on, in memory.
    """
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    j = _0
    while j < end:
        k = at + _2 * (j ^ (inner & ~_LOW))
        a, b = reals_of(first, k), imags_of(first, k)
        if low:
            a, b = moved(a, by_1, by_2, by_4), moved(b, by_1, by_2, by_4)
        c, d = reals_of(second, at2 + _2 * j), imags_of(second, at2 + _2 * j)
        if need & EVEN:
            store(even, j, a * c + b * d)
        if need & ODD:
            store(odd, j, a * d - b * c)
        j += _LANES


@kernel(
    REALS, SINGLES, REALS, SINGLES, I64, INT, INT, WORD, U64, REALS2, INT, INT, INT, INT, REALS,
    REALS2, group="deferred",
)  # fmt: skip
def string_sums(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, numbers, size, flip, x, zs, parts, need, all_, first, last,
    scratch, sums,
):  # fmt: skip
    """sums[block, t] for the strings (x, zs[t]); parts[t]: factors of the products' re and im.

    Block b stands at numbers[b] in the whole state; its partner is block b ^ flip of the second.
    `size`: of a block, LANES at least. `need`: EVEN, ODD: which parts there are strings for;
    `all_`: all signs of these are found at once.
    """
    even, odd, eight = scratch[:size], scratch[size : 2 * size], scratch[2 * size :]
    end = np.uint64(size)
    low = np.uint64(size - 1)
    for block in range(first, last):
        partner = (np.uint64(numbers[block] * size) ^ x) & ~low
        at, at2 = np.uint64(2 * block * size), np.uint64(2 * (block ^ flip) * size)
        if reals.size:
            _products(reals, at, reals2, at2, end, x & low, need, even, odd)
        else:
            _products(singles, at, singles2, at2, end, x & low, need, even, odd)
        if all_ & EVEN:
            walsh(even, end)
        if all_ & ODD:
            walsh(odd, end)
        for t in range(zs.size):
            z = zs[t] & low
            if parts[t, 0] != 0.0:
                sum_ = even[z] if all_ & EVEN else signed_sum(even, end, z, eight)
                sum_ *= parts[t, 0]
            else:
                sum_ = odd[z] if all_ & ODD else signed_sum(odd, end, z, eight)
                sum_ *= parts[t, 1]
            sums[block, t] = sign(partner & zs[t]) * sum_
