"""Evolution of a density matrix as a real vector in the Pauli basis.

rho = 2^-n sum_P v[P] P; digit q of the index, in base 4, is the Pauli of qubit q (I, X, Y, Z). A
block multiplies the 16 entries of two digits by a matrix; the eight lanes of a vector are entries
that differ in lower digits.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import I64, INT, REALS, device_function, kernel
from simulators.compiler.simd import load, splat, store
from simulators.densitymatrix.fusion import BLOCK

LANES = 8
SCRATCH = 2 * 16 * LANES  # scratch floats of a thread
_1, _2, _3, _4, _5, _6, _7, _8, _9, _10, _11, _12, _13, _14, _15 = (
    np.uint64(k) for k in range(1, 16)
)
_NARROW = 2  # blocks whose lower digit is below this have strides shorter than a vector


@device_function
def multiply_blocks(v, n, low, high, mats, block, end, first, last, scratch, control):  # type: ignore[no-untyped-def]
    """Multiply `v` [4^n] by blocks `block` .. `end` - 1, on tiles `first` .. `last` - 1 of each.

    A tile is eight entries of each of the 16; `tiles` is their number. The control flag is read
    before each block.
    """
    for k in range(block, end):
        if control[0]:
            break
        a, b = 2 * low[k], 2 * high[k]
        sa, sb = np.uint64(1) << np.uint64(a), np.uint64(1) << np.uint64(b)
        base = k * BLOCK
        groups = np.int64(1) << (2 * n - 4)
        wide = low[k] >= _NARROW
        for tile in range(first, last):
            lanes = min(np.int64(LANES), groups - tile * LANES)
            if wide:
                g = np.uint64(tile * LANES)
                g = (g >> np.uint64(a)) << np.uint64(a + 2) | g & (sa - np.uint64(1))
                o = (g >> np.uint64(b)) << np.uint64(b + 2) | g & (sb - np.uint64(1))
                p = o + sb
                q = p + sb
                w = q + sb
                x0, x1, x2, x3 = (
                    load(v, o),
                    load(v, o + sa),
                    load(v, o + sa + sa),
                    load(v, o + sa + sa + sa),
                )
                x4, x5, x6, x7 = (
                    load(v, p),
                    load(v, p + sa),
                    load(v, p + sa + sa),
                    load(v, p + sa + sa + sa),
                )
                x8, x9, xa, xb = (
                    load(v, q),
                    load(v, q + sa),
                    load(v, q + sa + sa),
                    load(v, q + sa + sa + sa),
                )
                xc, xd, xe, xf = (
                    load(v, w),
                    load(v, w + sa),
                    load(v, w + sa + sa),
                    load(v, w + sa + sa + sa),
                )
            else:
                for lane in range(lanes):
                    g = np.uint64(tile * LANES + lane)
                    g = (g >> np.uint64(a)) << np.uint64(a + 2) | g & (sa - np.uint64(1))
                    o = (g >> np.uint64(b)) << np.uint64(b + 2) | g & (sb - np.uint64(1))
                    for c in range(16):
                        at = o + np.uint64(c & 3) * sa + np.uint64(c >> 2) * sb
                        scratch[c * LANES + lane] = v[at]
                z = np.uint64(LANES)
                o = np.uint64(0)
                x0, x1, x2, x3 = (
                    load(scratch, o),
                    load(scratch, z),
                    load(scratch, z * np.uint64(2)),
                    load(scratch, z * np.uint64(3)),
                )
                x4, x5, x6, x7 = (
                    load(scratch, z * np.uint64(4)),
                    load(scratch, z * np.uint64(5)),
                    load(scratch, z * np.uint64(6)),
                    load(scratch, z * np.uint64(7)),
                )
                x8, x9, xa, xb = (
                    load(scratch, z * np.uint64(8)),
                    load(scratch, z * np.uint64(9)),
                    load(scratch, z * np.uint64(10)),
                    load(scratch, z * np.uint64(11)),
                )
                xc, xd, xe, xf = (
                    load(scratch, z * np.uint64(12)),
                    load(scratch, z * np.uint64(13)),
                    load(scratch, z * np.uint64(14)),
                    load(scratch, z * np.uint64(15)),
                )
                g = o
                p = q = w = o
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
                total = (s0 + s1) + (s2 + s3)
                if wide:
                    store(v, o + np.uint64(r & 3) * sa + np.uint64(r >> 2) * sb, total)
                else:
                    store(scratch, np.uint64(16 * LANES + r * LANES), total)
            if not wide:
                for lane in range(lanes):
                    g = np.uint64(tile * LANES + lane)
                    g = (g >> np.uint64(a)) << np.uint64(a + 2) | g & (sa - np.uint64(1))
                    o = (g >> np.uint64(b)) << np.uint64(b + 2) | g & (sb - np.uint64(1))
                    for c in range(16):
                        at = o + np.uint64(c & 3) * sa + np.uint64(c >> 2) * sb
                        v[at] = scratch[16 * LANES + c * LANES + lane]


@kernel(REALS, INT, I64, I64, REALS, INT, INT, INT, INT, REALS, I64, group="noise")
def apply_blocks(v, n, low, high, mats, block, end, first, last, scratch, control):  # type: ignore[no-untyped-def]
    """See `multiply_blocks`."""
    multiply_blocks(v, n, low, high, mats, block, end, first, last, scratch, control)


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


@kernel(REALS, INT, INT, REALS, group="noise")
def populations(v, n, start, out):  # type: ignore[no-untyped-def]
    """See `basis_populations`."""
    basis_populations(v, n, start, out)
