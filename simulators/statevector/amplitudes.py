"""One step on one block of amplitudes, held as two float64 arrays (real and imaginary parts).

Indices are unsigned, which spares the wrap-around test that keeps loops from becoming vector code.
Every path of the engine applies gates through here, so they agree to the last bit.

The indices whose bits under a mask are 0 come in runs of 2**(lowest bit of the mask). Adding a run
to an index with the mask's bits set carries over them, so the next run costs three operations.
"""

from __future__ import annotations

import numpy as np

from simulators.circuit.gates import PHASE, REAL, SWAP
from simulators.jit import part

_SHORT = np.uint64(8)  # runs below this are walked one index at a time: no loop to enter and leave
_1 = np.uint64(1)


@part
def _multiply(re, im, i, j, m0, m1, m2, m3, m4, m5, m6, m7):  # type: ignore[no-untyped-def]
    a, b, c, d = re[i], im[i], re[j], im[j]
    re[i] = m0 * a - m1 * b + m2 * c - m3 * d
    im[i] = m0 * b + m1 * a + m2 * d + m3 * c
    re[j] = m4 * a - m5 * b + m6 * c - m7 * d
    im[j] = m4 * b + m5 * a + m6 * d + m7 * c


@part
def _short(re, im, end, kind, mask, zero, one, floats, row):  # type: ignore[no-untyped-def]
    rest = ~mask
    base = np.uint64(0)
    m0, m1, m2, m3 = floats[row, 0], floats[row, 1], floats[row, 2], floats[row, 3]
    if kind == PHASE:
        while base < end:
            i = base | zero
            x, y = re[i], im[i]
            re[i] = x * m0 - y * m1
            im[i] = x * m1 + y * m0
            base = ((base | mask) + _1) & rest
    elif kind == SWAP:
        while base < end:
            i, j = base | zero, base | one
            re[i], re[j] = re[j], re[i]
            im[i], im[j] = im[j], im[i]
            base = ((base | mask) + _1) & rest
    else:
        m4, m5, m6, m7 = floats[row, 4], floats[row, 5], floats[row, 6], floats[row, 7]
        while base < end:
            _multiply(re, im, base | zero, base | one, m0, m1, m2, m3, m4, m5, m6, m7)
            base = ((base | mask) + _1) & rest


@part
def apply(re, im, size, kind, mask, zero, one, floats, row):  # type: ignore[no-untyped-def]
    """Apply one step to the first `size` amplitudes; all its bits lie within them."""
    end = np.uint64(size)
    run = mask & (~mask + _1) if mask else end
    if run < _SHORT:
        _short(re, im, end, kind, mask, zero, one, floats, row)
        return
    rest = ~mask
    base = np.uint64(0)
    gap = one - zero
    m0, m1, m2, m3 = floats[row, 0], floats[row, 1], floats[row, 2], floats[row, 3]
    if kind == PHASE:
        while base < end:
            i = base | zero
            for k in range(i, i + run):
                x, y = re[k], im[k]
                re[k] = x * m0 - y * m1
                im[k] = x * m1 + y * m0
            base = ((base | mask) + run) & rest
        return
    if kind == SWAP:
        while base < end:
            i = base | zero
            for k in range(i, i + run):
                re[k], re[k + gap] = re[k + gap], re[k]
                im[k], im[k + gap] = im[k + gap], im[k]
            base = ((base | mask) + run) & rest
        return
    m4, m5, m6, m7 = floats[row, 4], floats[row, 5], floats[row, 6], floats[row, 7]
    if kind == REAL:
        while base < end:
            i = base | zero
            for k in range(i, i + run):
                a, b, c, d = re[k], im[k], re[k + gap], im[k + gap]
                re[k] = m0 * a + m2 * c
                im[k] = m0 * b + m2 * d
                re[k + gap] = m4 * a + m6 * c
                im[k + gap] = m4 * b + m6 * d
            base = ((base | mask) + run) & rest
        return
    while base < end:
        i = base | zero
        for k in range(i, i + run):
            _multiply(re, im, k, k + gap, m0, m1, m2, m3, m4, m5, m6, m7)
        base = ((base | mask) + run) & rest
