"""Fusion of gates and channels into blocks, and the evolution by these blocks."""

from __future__ import annotations

import cmath
import functools
import math
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, from_unitary, paulis
from simulators.circuit import gates
from simulators.circuit.noise import BLOCK, transfer_matrices
from simulators.compiler.kernel import COMPLEX, I64, REALS, device_function, kernel, record
from simulators.compiler.simd import load, load_halves, splat, store, store_halves

__all__ = ["BLOCK", "Blocks", "FixedGates", "fixed_gates", "fuse"]

# Compiled `gates.unitary` for gates on one and two qubits.

_FACTORS = [factor for gate in gates.GATES.values() for factor in gate.pieces]
_COUNTS = [0] * gates.FIRST_GATE + [len(gate.pieces) for gate in gates.GATES.values()]

# By code: its first factor and their number; by factor: its patterns and source.
_TABLE = np.zeros((max(len(_COUNTS), len(_FACTORS)), 7), np.int64)
_TABLE[: len(_COUNTS), 0] = np.cumsum(_COUNTS) - np.array(_COUNTS)
_TABLE[: len(_COUNTS), 1] = _COUNTS
_TABLE[: len(_FACTORS), 2:] = [(f.targets, f.mask, f.low, f.high, f.source) for f in _FACTORS]
_SCALES = np.array([factor.scale for factor in _FACTORS])
_FIXED = np.array([factor.matrix for factor in _FACTORS], np.complex128)


@device_function
def _factor(source, scale, params, at):  # type: ignore[no-untyped-def]
    """Compiled `gates.matrix_of` for a factor with parameters."""
    angle = scale * params[at]
    c = complex(math.cos(0.5 * angle), 0.0)
    s = complex(math.sin(0.5 * angle), 0.0)
    if source == gates.ROTATION:
        return c, -1j * s, -1j * s, c
    if source == gates.XY_ROTATION:
        tilt = cmath.exp(1j * params[at + 1])
        return c, -1j * s * tilt.conjugate(), -1j * s * tilt, c
    if source == gates.RY:
        return c, -s, s, c
    if source == gates.P_GATE:
        value = cmath.exp(1j * angle)
        return value, 0j, 0j, value
    skip = 1
    turn = 1.0 + 0j
    if source == gates.U2:
        skip = 0
        c = s = complex(math.sqrt(0.5), 0.0)
    phi, lam = cmath.exp(1j * params[at + skip]), cmath.exp(1j * params[at + skip + 1])
    if source == gates.CU:
        turn = cmath.exp(1j * params[at + 3])
    return turn * c, -turn * s * lam, turn * s * phi, turn * c * phi * lam


@device_function
def gate_matrix(code, count, params, at, out):  # type: ignore[no-untyped-def]
    """Write the matrix of a named gate on `count` qubits, 1 or 2, row by row into `out` (complex);
    its parameters are `params[at:]`."""
    table = _TABLE
    scales = _SCALES
    fixed = _FIXED
    size = 1 << count
    for k in range(size * size):
        out[k] = 0.0
    for k in range(size):
        out[k * size + k] = 1.0
    first = table[code, 0]
    for f in range(first, first + table[code, 1]):
        targets, mask, zero_bits, one_bits = table[f, 2], table[f, 3], table[f, 4], table[f, 5]
        if table[f, 6] == gates.FIXED:
            a, b, c, d = fixed[f, 0], fixed[f, 1], fixed[f, 2], fixed[f, 3]
        else:
            a, b, c, d = _factor(table[f, 6], scales[f], params, at)
        shift = count - targets
        controls = (1 << shift) - 1
        for rest in range(size):
            if rest & controls != controls or rest >> shift & mask:
                continue
            i, j = rest | zero_bits << shift, rest | one_bits << shift
            for k in range(size):
                x, y = out[i * size + k], out[j * size + k]
                if i == j:
                    out[i * size + k] = a * x
                else:
                    out[i * size + k] = a * x + b * y
                    out[j * size + k] = c * x + d * y


# Fusion of gates and channels into blocks on two qubits, in the Pauli basis.
#
# An item is a gate or a channel as its Pauli transfer matrix (see `noise_models.channel`). An item
# on two qubits joins the last block of both or starts a new one. Items on one qubit wait, as one
# matrix, for the next item on two qubits, or for the end, where they join the last block. So noise
# adds no block where it follows the gates of its pair, and a run costs 16 4^n multiply-adds a
# block. Blocks are fused for each binding: planning and binding are one step.

# Columns of an item. TABLE: the row of a channel's matrix; FIXED - k: that of gate matrix k;
# COMPUTED: the gate is computed from its parameters.
TABLE, CODE, PARAM, Q0, Q1 = range(5)
COMPUTED, FIXED = -1, -2
# A block is [16, 16]: row 4 b + a of its qubits a < b.

_EIGHT = np.uint64(8)

# P[r, r ^ _FLIP[k]] = _PHASE[k, r] are the only entries of the Pauli matrix k of two qubits that
# are not zero; the first four of them with r < 2 are those of one qubit.
_FLIP = np.array([int(np.flatnonzero(pauli[0])[0]) for pauli in paulis(2)])
_PHASE = np.array(
    [[pauli[r, r ^ flip] for r in range(4)] for pauli, flip in zip(paulis(2), _FLIP, strict=True)]
)


_RESET = Channel(np.array([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1.0, 0, 0, 0]]))


class FixedGates(msgspec.Struct, frozen=True, eq=False):
    """Transfer matrices of resets and of gates without parameters on one or two qubits."""

    blocks: NDArray[np.float64]  # [matrices, BLOCK]
    sources: NDArray[np.int64]  # [codes]: values of the column TABLE


@functools.cache
def fixed_gates() -> FixedGates:
    """Transfer matrices of all fixed gates, computed once."""
    fixed = [g for g in gates.GATES.values() if not g.params and g.qubits in (1, 2)]
    sources = np.full(gates.FIRST_GATE + len(gates.GATES), COMPUTED, np.int64)
    sources[[gates.RESET, *(gate.code for gate in fixed)]] = FIXED - np.arange(1 + len(fixed))
    channels = [_RESET, *(from_unitary(gates.unitary(gate.name)) for gate in fixed)]
    return FixedGates(transfer_matrices(channels), sources)


@device_function
def _transfer(matrix, count, moved, out):  # type: ignore[no-untyped-def]
    """out[i, j] = tr(P_i U P_j U^+) / 2^count, rows of 4 or 16; `moved`: scratch."""
    flip = _FLIP
    phase = _PHASE
    side = 1 << count
    size = side * side
    for j in range(size):
        for a in range(side):
            for b in range(side):
                total = 0j
                for k in range(side):
                    total += (
                        matrix[a * side + k]
                        * phase[j, k]
                        * matrix[b * side + (k ^ flip[j])].conjugate()
                    )
                moved[a * side + b] = total
        for i in range(size):
            trace = 0.0
            for r in range(side):
                trace += (phase[i, r] * moved[(r ^ flip[i]) * side + r]).real
            out[i * size + j] = trace / side


@device_function
def _multiply_pair(left, first, swapped, mats, at, out):  # type: ignore[no-untyped-def]
    """Multiply mats[at:] by S = left[first:] of 16 x 16, its qubits exchanged if `swapped`."""
    for r in range(16):
        low = splat(0.0)
        high = splat(0.0)
        row = (r & 3) << 2 | r >> 2 if swapped else r
        for c in range(16):
            value = left[first + 16 * row + ((c & 3) << 2 | c >> 2 if swapped else c)]
            if value != 0.0:
                scale = splat(value)
                k = np.uint64(at + 16 * c)
                low = low + scale * load(mats, k)
                high = high + scale * load(mats, k + _EIGHT)
        store(out, np.uint64(16 * r), low)
        store(out, np.uint64(16 * r + 8), high)
    for lane in range(0, BLOCK, 8):
        store(mats, np.uint64(at + lane), load(out, np.uint64(lane)))


@device_function
def _multiply_single(left, first, is_high, mats, at, out):  # type: ignore[no-untyped-def]
    """Multiply mats[at:] by left[first:] of 4 x 4 on the second qubit of the block if `is_high`,
    else on the first."""
    for r in range(16):
        low = splat(0.0)
        high = splat(0.0)
        for c in range(4):
            if is_high:
                value = left[first + 4 * (r >> 2) + c]
                source = 4 * c + (r & 3)
            else:
                value = left[first + 4 * (r & 3) + c]
                source = (r & 12) + c
            if value != 0.0:
                scale = splat(value)
                k = np.uint64(at + 16 * source)
                low = low + scale * load(mats, k)
                high = high + scale * load(mats, k + _EIGHT)
        store(out, np.uint64(16 * r), low)
        store(out, np.uint64(16 * r + 8), high)
    for lane in range(0, BLOCK, 8):
        store(mats, np.uint64(at + lane), load(out, np.uint64(lane)))


@device_function
def _begin(mats, at, pending, a, b):  # type: ignore[no-untyped-def]
    """Set mats[at:] to the Kronecker product of the pending matrices of its qubits."""
    for r in range(16):
        for c in range(16):
            high = pending[16 * b + 4 * (r >> 2) + (c >> 2)]
            mats[at + 16 * r + c] = high * pending[16 * a + 4 * (r & 3) + (c & 3)]


@device_function
def _multiply_pending(left, first, pending, qubit, out):  # type: ignore[no-untyped-def]
    """Multiply the pending matrix of a qubit by left[first:] of 4 x 4."""
    at = 16 * qubit
    for r in range(4):
        for c in range(4):
            total = 0.0
            for j in range(4):
                total += left[first + 4 * r + j] * pending[at + 4 * j + c]
            out[4 * r + c] = total
    for j in range(16):
        pending[at + j] = out[j]


@device_function
def _clear(pending, qubit):  # type: ignore[no-untyped-def]
    for k in range(16):
        pending[16 * qubit + k] = 1.0 if k % 5 == 0 else 0.0


@record
class FusedBlocks(NamedTuple):
    """Blocks on two qubits."""

    low: I64  # [blocks]: the lower qubit
    high: I64  # [blocks]
    mats: REALS  # [blocks * BLOCK]


@record
class FusionScratch(NamedTuple):
    """Scratch of `fuse_items` on n qubits."""

    last: I64  # [2 n]
    pending: REALS  # [16 n]
    work: REALS  # [256]
    out: REALS  # [256]
    matrix: COMPLEX  # [32]


@device_function
def fuse_items(items, params, gates, channels, n, blocks, scratch):  # type: ignore[no-untyped-def]
    """Write the blocks (FusedBlocks) of items; returns their number. `gates`, `channels`: transfer
    matrices of BLOCK floats each; `params`: of the circuit, all slots filled. There are two qubits
    at least. `scratch`: FusionScratch."""
    low, high, mats = blocks.low, blocks.high, blocks.mats
    last, pending, work = scratch.last, scratch.pending, scratch.work
    out, matrix = scratch.out, scratch.matrix
    count = 0
    waits = last[n:]
    for q in range(n):
        last[q] = -1
        waits[q] = 0
        _clear(pending, q)
    moved = matrix[16:]
    for k in range(items.shape[0]):
        source, code, q0, q1 = items[k, TABLE], items[k, CODE], items[k, Q0], items[k, Q1]
        if source >= 0:
            left = channels
            first = source * BLOCK
        elif source <= FIXED:
            left = gates
            first = (FIXED - source) * BLOCK
        else:
            width = 1 if q1 < 0 else 2
            gate_matrix(code, width, params, items[k, PARAM], matrix)
            _transfer(matrix, width, moved, work)
            left = work
            first = np.int64(0)
        if q1 < 0:
            _multiply_pending(left, first, pending, q0, out)
            waits[q0] = 1
            continue
        a, b = min(q0, q1), max(q0, q1)
        block = last[a]
        if block < 0 or block != last[b]:
            block = np.int64(count)
            count += 1
            low[block] = a
            high[block] = b
            _begin(mats, block * BLOCK, pending, a, b)
            last[a] = last[b] = block
            for q in (a, b):
                _clear(pending, q)
                waits[q] = 0
        for q in (a, b):
            if waits[q]:
                _multiply_single(pending, 16 * q, q == b, mats, block * BLOCK, out)
                _clear(pending, q)
                waits[q] = 0
        _multiply_pair(left, first, q0 != a, mats, block * BLOCK, out)
    waiting = -1
    for q in range(n):
        if not waits[q]:
            continue
        block = last[q]
        if block >= 0:
            _multiply_single(pending, 16 * q, high[block] == q, mats, block * BLOCK, out)
            _clear(pending, q)
        else:
            if waiting < 0:
                waiting = q
                continue
            low[count] = waiting
            high[count] = q
            _begin(mats, count * BLOCK, pending, waiting, q)
            _clear(pending, waiting)
            count += 1
            waiting = -1
    if waiting >= 0:
        other = waiting + 1 if waiting + 1 < n else waiting - 1
        _clear(pending, other)
        low[count] = min(waiting, other)
        high[count] = max(waiting, other)
        _begin(mats, count * BLOCK, pending, low[count], high[count])
        count += 1
    return count


fuse = kernel("INTS2 F64 REALS REALS INT FusedBlocks FusionScratch -> INT", group="noise")(
    fuse_items
)


class Blocks:
    """Buffers for the blocks of one segment."""

    def __init__(self, num_qubits: int, num_items: int) -> None:
        room = num_items + num_qubits
        self.fused = FusedBlocks(
            np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room * BLOCK)
        )
        self.count = 0
        self._num_qubits = num_qubits
        self._scratch = FusionScratch(
            np.empty(2 * num_qubits, np.int64), np.empty(16 * num_qubits), np.empty(BLOCK),
            np.empty(BLOCK), np.empty(32, np.complex128),
        )  # fmt: skip

    def fill(
        self,
        items: NDArray[np.int64],
        params: NDArray[np.float64],
        gates: NDArray[np.float64],
        channels: NDArray[np.float64],
    ) -> None:
        """Fuse items. `gates`, `channels`: [matrices, BLOCK]; see `fuse`."""
        self.count = fuse(
            items, params, gates.reshape(-1), channels.reshape(-1), self._num_qubits, self.fused,
            self._scratch,
        )  # fmt: skip


# Evolution of a density matrix as a real vector in the Pauli basis.
#
# rho = 2^-n sum_P v[P] P; digit q of the index, in base 4, is the Pauli of qubit q (I, X, Y, Z). A
# block multiplies the 16 entries of two digits by a matrix; the eight lanes of a vector are entries
# that differ in other digits, or rows of the matrix.

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
