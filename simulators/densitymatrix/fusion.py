"""Fusion of gates and channels into blocks on two qubits, in the Pauli basis.

An item is a gate or a channel as its Pauli transfer matrix (see `noise_models.channel`). An item on
two qubits joins the last block of both or starts a new one. Items on one qubit wait, as one matrix,
for the next item on two qubits, or for the end, where they join the last block. So noise adds no
block where it follows the gates of its pair, and a run costs 16 4^n multiply-adds a block. Blocks
are fused for each binding: planning and binding are one step.
"""

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
from simulators.compiler.simd import load, splat, store

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
