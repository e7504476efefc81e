"""Small matrices made by the steps of gates, for one state or for eight.

A matrix of 2 or 4 rows is held as two float64 arrays (real, imaginary parts). For one state, a row
is one vector, whose lanes are the columns; for eight states it has a vector for each column, whose
lanes are the states. A step is multiplied from the left, as `gate_kernels` applies it to a state,
so a state's matrices have the same bits in both forms.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.gates import PERMUTATION, PHASE, REAL
from simulators.compiler.kernel import device_function
from simulators.compiler.simd import LANES, choose, load, splat, store, where
from simulators.statevector.small.gate_kernels import matrices, multiply

_0, _1, _2, _8 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(8)
_16, _24, _32, _40, _48, _56 = (np.uint64(8 * k) for k in range(2, 8))
_LOW, _LANES = np.uint64(LANES - 1), np.uint64(LANES)


@device_function
def load_numbers(  # type: ignore[no-untyped-def]
    code, num_params, at, pieces, params, slot_of, bindings, first, entries, own, eight
):
    """Load the matrices of one operation's pieces into `eight`: for each element a vector, whose
    lane v has the value of row first + v (or the last) of `bindings`."""
    start = np.int64(0)
    free = False
    if slot_of.size:
        for j in range(at, at + num_params):
            free = free or slot_of[j] >= 0
    for v in range(LANES if free else 1):
        for j in range(num_params):
            own[j] = params[at + j]
            if free and slot_of[at + j] >= 0:
                own[j] = bindings[min(first + v, len(bindings) - 1), slot_of[at + j]]
        matrices(code, own, start, entries, start)
        if free:
            for s in range(pieces):
                for e in range(8):
                    eight[64 * s + LANES * e + v] = entries[s, e]
    if not free:
        for s in range(pieces):
            for e in range(8):
                store(eight, np.uint64(64 * s + LANES * e), splat(entries[s, e]))


@device_function
def reset(re, im, at, side, columns):  # type: ignore[no-untyped-def]
    """Write the identity, with `side` rows, from `at` on. columns: vectors of a row; 1: its lanes
    are the columns."""
    none, ones = splat(0.0), splat(1.0)
    for r in range(np.uint64(side)):
        for c in range(np.uint64(columns)):
            to = at + _LANES * (np.uint64(columns) * r + c)
            if columns == 1:
                store(re, to, choose(where(_LOW, r), ones, none))
            else:
                store(re, to, ones if r == c else none)
            store(im, to, none)


@device_function
def absorb(re, im, at, side, columns, low, high, steps, first, pieces, eight):  # type: ignore[no-untyped-def]
    """Multiply steps to a matrix from `at` on, from the left; its bits are those of the masks `low`
    and `high` (0: it has 2 rows)."""
    gap = _LANES * np.uint64(columns)
    for s in range(first, first + pieces):
        m = np.uint64(64 * s)
        m0, m1, m2, m3 = (
            load(eight, m),
            load(eight, m + _8),
            load(eight, m + _16),
            load(eight, m + _24),
        )
        m4, m5, m6 = load(eight, m + _32), load(eight, m + _40), load(eight, m + _48)
        m7 = load(eight, m + _56)
        kind, mask, zero_bits, one_bits = steps[s, 0], steps[s, 1], steps[s, 2], steps[s, 3]
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
                a, b = load(re, k), load(im, k)
                if kind == PHASE:
                    store(re, k, a * m0 - b * m1)
                    store(im, k, a * m1 + b * m0)
                else:
                    c, d = load(re, j), load(im, j)
                    if kind == PERMUTATION:
                        p, q, r, t = c, d, a, b
                    elif kind == REAL:
                        p, q, r, t = (
                            m0 * a + m2 * c,
                            m0 * b + m2 * d,
                            m4 * a + m6 * c,
                            m4 * b + m6 * d,
                        )
                    else:
                        p, q, r, t = multiply(a, b, c, d, m0, m1, m2, m3, m4, m5, m6, m7)
                    store(re, k, p)
                    store(im, k, q)
                    store(re, j, r)
                    store(im, j, t)
                k += _LANES
                j += _LANES
