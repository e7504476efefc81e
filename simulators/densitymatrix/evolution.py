"""Evolution of a density matrix by blocks on two qubits, as a real vector in the Pauli basis.

rho = 2^-n sum_P v[P] P; digit q of the index, in base 4, is the Pauli of qubit q (I, X, Y, Z). A
block multiplies the 16 entries of two digits by a matrix; the eight lanes of a vector are entries
that differ in other digits, or rows of the matrix.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import load, load_halves, splat, store_halves
from simulators.densitymatrix.fusion import BLOCK  # and the record FusedBlocks

LANES = 8
SCRATCH = BLOCK  # scratch floats of a thread
_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15 = (
    np.uint64(k) for k in range(1, 16)
)


@device_function
def multiply_blocks(v, n, blocks, block, end, first, last, scratch, control):  # type: ignore[no-untyped-def]
    """Multiply `v` [4^n] by the blocks `block` .. `end` - 1 of FusedBlocks, on tiles `first` ..
    `last` - 1 of each. A tile is eight entries of each of the 16; `tiles` is their number. The
    control flag is read before each block."""
    low, high, mats = blocks.low, blocks.high, blocks.mats
    groups = np.int64(1) << (2 * n - 4)
    for k in range(block, end):
        if control[0]:
            break
        if low[k] == 0:
            begin, stop = first * LANES, min(last * LANES, groups)
            _multiply_rows(v, high[k], mats, k * BLOCK, begin, stop, scratch)
        else:
            _multiply_tiles(v, low[k], high[k], mats, k * BLOCK, first, last, groups)


@device_function
def _multiply_rows(v, high, mats, base, first, end, columns):  # type: ignore[no-untyped-def]
    """Multiply the groups `first` .. `end` - 1 of 16 entries by a block on digits 0 and `high`.
    Lanes are rows of the matrix, as entries of digit 0 are neighbours. `columns`: scratch [256]."""
    for r in range(16):
        for c in range(16):
            columns[16 * c + r] = mats[base + 16 * r + c]
    b = np.uint64(2 * high)
    sb = np.uint64(1) << b
    for group in range(first, end):
        g = np.uint64(group) << _2
        o = (g >> b) << (b + _2) | g & (sb - _1)
        p = o + sb
        q = p + sb
        w = q + sb
        x0, x1, x2, x3 = (splat(v[o]), splat(v[o + _1]), splat(v[o + _2]), splat(v[o + _3]))
        x4, x5, x6, x7 = (splat(v[p]), splat(v[p + _1]), splat(v[p + _2]), splat(v[p + _3]))
        x8, x9, xa, xb = (splat(v[q]), splat(v[q + _1]), splat(v[q + _2]), splat(v[q + _3]))
        xc, xd, xe, xf = (splat(v[w]), splat(v[w + _1]), splat(v[w + _2]), splat(v[w + _3]))
        for half in range(2):
            m = np.uint64(8 * half)
            s0 = load(columns, m) * x0
            s1 = load(columns, m + np.uint64(16)) * x1
            s2 = load(columns, m + np.uint64(32)) * x2
            s3 = load(columns, m + np.uint64(48)) * x3
            s0 = s0 + load(columns, m + np.uint64(64)) * x4
            s1 = s1 + load(columns, m + np.uint64(80)) * x5
            s2 = s2 + load(columns, m + np.uint64(96)) * x6
            s3 = s3 + load(columns, m + np.uint64(112)) * x7
            s0 = s0 + load(columns, m + np.uint64(128)) * x8
            s1 = s1 + load(columns, m + np.uint64(144)) * x9
            s2 = s2 + load(columns, m + np.uint64(160)) * xa
            s3 = s3 + load(columns, m + np.uint64(176)) * xb
            s0 = s0 + load(columns, m + np.uint64(192)) * xc
            s1 = s1 + load(columns, m + np.uint64(208)) * xd
            s2 = s2 + load(columns, m + np.uint64(224)) * xe
            s3 = s3 + load(columns, m + np.uint64(240)) * xf
            total = (s0 + s1) + (s2 + s3)
            if half == 0:
                store_halves(v, o, p, total)
            else:
                store_halves(v, q, w, total)


@device_function
def _multiply_tiles(v, low, high, mats, base, first, last, groups):  # type: ignore[no-untyped-def]
    """Multiply tiles by a block on digits 0 < `low` < `high`. Four lanes are neighbours."""
    a, b = np.uint64(2 * low), np.uint64(2 * high)
    sa, sb = np.uint64(1) << a, np.uint64(1) << b
    for tile in range(first, last):
        g = np.uint64(tile * LANES)
        g = (g >> a) << (a + _2) | g & (sa - _1)
        o = (g >> b) << (b + _2) | g & (sb - _1)
        # The other four groups; there are only four of three qubits.
        g = np.uint64(min(tile * LANES + 4, groups - 4))
        g = (g >> a) << (a + _2) | g & (sa - _1)
        h = ((g >> b) << (b + _2) | g & (sb - _1)) - o
        p = o + sb
        q = p + sb
        w = q + sb
        x0, x1, x2, x3 = (
            load_halves(v, o, o + h),
            load_halves(v, o + sa, o + sa + h),
            load_halves(v, o + sa + sa, o + sa + sa + h),
            load_halves(v, o + sa + sa + sa, o + sa + sa + sa + h),
        )
        x4, x5, x6, x7 = (
            load_halves(v, p, p + h),
            load_halves(v, p + sa, p + sa + h),
            load_halves(v, p + sa + sa, p + sa + sa + h),
            load_halves(v, p + sa + sa + sa, p + sa + sa + sa + h),
        )
        x8, x9, xa, xb = (
            load_halves(v, q, q + h),
            load_halves(v, q + sa, q + sa + h),
            load_halves(v, q + sa + sa, q + sa + sa + h),
            load_halves(v, q + sa + sa + sa, q + sa + sa + sa + h),
        )
        xc, xd, xe, xf = (
            load_halves(v, w, w + h),
            load_halves(v, w + sa, w + sa + h),
            load_halves(v, w + sa + sa, w + sa + sa + h),
            load_halves(v, w + sa + sa + sa, w + sa + sa + sa + h),
        )
        for r in range(16):
            m = np.uint64(base + 16 * r)
            s0 = splat(mats[m]) * x0
            s1 = splat(mats[m + _1]) * x1
            s2 = splat(mats[m + _2]) * x2
            s3 = splat(mats[m + _3]) * x3
            s0 = s0 + splat(mats[m + _4]) * x4
            s1 = s1 + splat(mats[m + _5]) * x5
            s2 = s2 + splat(mats[m + _6]) * x6
            s3 = s3 + splat(mats[m + _7]) * x7
            s0 = s0 + splat(mats[m + _8]) * x8
            s1 = s1 + splat(mats[m + _9]) * x9
            s2 = s2 + splat(mats[m + _10]) * xa
            s3 = s3 + splat(mats[m + _11]) * xb
            s0 = s0 + splat(mats[m + _12]) * xc
            s1 = s1 + splat(mats[m + _13]) * xd
            s2 = s2 + splat(mats[m + _14]) * xe
            s3 = s3 + splat(mats[m + _15]) * xf
            at = o + np.uint64(r & 3) * sa + np.uint64(r >> 2) * sb
            store_halves(v, at, at + h, (s0 + s1) + (s2 + s3))


apply_blocks = kernel("REALS INT FusedBlocks INT INT INT INT REALS I64", group="noise")(
    multiply_blocks
)


def tiles(num_qubits: int) -> int:
    """Number of tiles of a block."""
    return max(1, (1 << 2 * num_qubits) // (16 * LANES))


@device_function
def basis_populations(v, n, start, out):  # type: ignore[no-untyped-def]
    """out[x] = <x|rho|x> for the 2^n basis states; with `start`: v = |0...0><0...0| instead."""
    size = np.int64(1) << n
    for x in range(size):
        at = np.int64(0)
        for q in range(n):
            at |= (x >> q & 1) * 3 << 2 * q
        if start:
            v[at] = 1.0
        else:
            out[x] = v[at]
    if start:
        return
    for q in range(n):
        step = np.int64(1) << q
        for base in range(0, size, 2 * step):
            for k in range(base, base + step):
                a, b = out[k], out[k + step]
                out[k] = 0.5 * (a + b)
                out[k + step] = 0.5 * (a - b)


populations = kernel("REALS INT INT REALS", group="noise")(basis_populations)
