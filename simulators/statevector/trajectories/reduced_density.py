"""Reduced density matrices of one or two qubits of a wide state.

Sums run over fixed blocks, so they have the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import INT, REALS, REALS2, SINGLES, device_function, kernel
from simulators.compiler.simd import LANES, exchange_1, load, splat, store
from simulators.statevector.state import BlockExecutor, State

_BLOCK = 12  # log2 of the groups of amplitudes in a block


@device_function
def _apart(number, bit):  # type: ignore[no-untyped-def]
    """Insert a 0 at a bit of the number."""
    low = (np.int64(1) << bit) - 1
    return (number & ~low) << 1 | number & low


@device_function
def _sum(amplitudes, first, second, low, high, into):  # type: ignore[no-untyped-def]
    """Sum groups low .. high - 1: the amplitudes that differ in these qubits only; second < 0: one
    qubit."""
    side = 2 if second < 0 else 4
    for g in range(low, high):
        if second < 0:
            base = _apart(g, first)
        else:
            base = _apart(_apart(g, min(first, second)), max(first, second))
        for a in range(side):
            i = base | np.int64(a & 1) << first
            if second >= 0:
                i |= np.int64(a >> 1) << second
            x, y = np.float64(amplitudes[2 * i]), np.float64(amplitudes[2 * i + 1])
            for b in range(a + 1):
                j = base | np.int64(b & 1) << first
                if second >= 0:
                    j |= np.int64(b >> 1) << second
                u, v = np.float64(amplitudes[2 * j]), np.float64(amplitudes[2 * j + 1])
                into[2 * (side * a + b)] += x * u + y * v
                into[2 * (side * a + b) + 1] += y * u - x * v


@device_function
def _add_lanes(total, cross, into, at, lanes):  # type: ignore[no-untyped-def]
    """Add an entry whose parts are in lanes: re + re and im + im; im - re, one after the other."""
    store(lanes, np.uint64(0), total)
    for k in range(LANES):
        into[at] += lanes[k]
    store(lanes, np.uint64(0), cross)
    for k in range(0, LANES, 2):
        into[at + 1] += lanes[k] - lanes[k + 1]


@device_function
def _sum_one(amplitudes, first, low, high, into, lanes):  # type: ignore[no-untyped-def]
    """Compute `_sum` for one qubit above qubit 1, four groups at a time."""
    step = np.uint64(2) << np.uint64(first)
    d0 = d1 = c1 = x1 = splat(0.0)
    none = splat(0.0)
    for g in range(low, high, 4):
        at = np.uint64(2 * _apart(g, first))
        a, b = load(amplitudes, at), load(amplitudes, at + step)
        d0, d1 = d0 + a * a, d1 + b * b
        c1, x1 = c1 + b * a, x1 + exchange_1(b) * a
    _add_lanes(d0, none, into, 0, lanes)
    _add_lanes(c1, x1, into, 4, lanes)
    _add_lanes(d1, none, into, 6, lanes)


@device_function
def _sum_pair(amplitudes, first, second, low, high, into, lanes):  # type: ignore[no-untyped-def]
    """Compute `_sum` for two qubits above qubit 1, four groups at a time."""
    stride_a, stride_b = np.uint64(2) << np.uint64(first), np.uint64(2) << np.uint64(second)
    d0 = d1 = d2 = d3 = none = splat(0.0)
    c10 = c20 = c21 = c30 = c31 = c32 = splat(0.0)
    x10 = x20 = x21 = x30 = x31 = x32 = splat(0.0)
    for g in range(low, high, 4):
        at = np.uint64(2 * _apart(_apart(g, min(first, second)), max(first, second)))
        v0, v1 = load(amplitudes, at), load(amplitudes, at + stride_a)
        v2, v3 = load(amplitudes, at + stride_b), load(amplitudes, at + stride_a + stride_b)
        w1, w2, w3 = exchange_1(v1), exchange_1(v2), exchange_1(v3)
        d0, d1, d2, d3 = d0 + v0 * v0, d1 + v1 * v1, d2 + v2 * v2, d3 + v3 * v3
        c10, c20, c21 = c10 + v1 * v0, c20 + v2 * v0, c21 + v2 * v1
        c30, c31, c32 = c30 + v3 * v0, c31 + v3 * v1, c32 + v3 * v2
        x10, x20, x21 = x10 + w1 * v0, x20 + w2 * v0, x21 + w2 * v1
        x30, x31, x32 = x30 + w3 * v0, x31 + w3 * v1, x32 + w3 * v2
    _add_lanes(d0, none, into, 0, lanes)
    _add_lanes(c10, x10, into, 8, lanes)
    _add_lanes(d1, none, into, 10, lanes)
    _add_lanes(c20, x20, into, 16, lanes)
    _add_lanes(c21, x21, into, 18, lanes)
    _add_lanes(d2, none, into, 20, lanes)
    _add_lanes(c30, x30, into, 24, lanes)
    _add_lanes(c31, x31, into, 26, lanes)
    _add_lanes(c32, x32, into, 28, lanes)
    _add_lanes(d3, none, into, 30, lanes)


@device_function
def _sum_any(amplitudes, first, second, low, high, into, lanes):  # type: ignore[no-untyped-def]
    """Compute `_sum`, by vectors if consecutive groups are contiguous."""
    least = first if second < 0 else min(first, second)
    if least < 2 or (high - low) % 4:
        _sum(amplitudes, first, second, low, high, into)
    elif second < 0:
        _sum_one(amplitudes, first, low, high, into, lanes)
    else:
        _sum_pair(amplitudes, first, second, low, high, into, lanes)


@kernel(REALS, SINGLES, INT, INT, INT, INT, INT, REALS2, REALS, group="trajectories")
def _blocks(reals, singles, first, second, size, low, high, sums, lanes):  # type: ignore[no-untyped-def]
    """Sum blocks low .. high - 1 of `size` groups: the lower half of each one's matrix."""
    for block in range(low, high):
        begin, end = block * size, (block + 1) * size
        if reals.size:
            _sum_any(reals, first, second, begin, end, sums[block], lanes)
        else:
            _sum_any(singles, first, second, begin, end, sums[block], lanes)


def reduced(
    sweeper: BlockExecutor, state: State, qubits: tuple[int, ...]
) -> NDArray[np.complex128]:
    """Density matrix [2, 2] or [4, 4]; qubits[0] is bit 0 of an index. Its trace is the state's
    norm. Raises Stopped."""
    groups = state.num_qubits - len(qubits)
    unit = min(_BLOCK, groups)
    side = 1 << len(qubits)
    sums = np.zeros((1 << (groups - unit), 2 * side * side))
    second = qubits[1] if len(qubits) > 1 else -1

    def work(first: int, last: int, _thread: int) -> None:
        lanes = np.empty(LANES)
        _blocks(
            state.reals, state.singles, qubits[0], second, 1 << unit, first, last, sums, lanes
        )  # fmt: skip

    sweeper.parallel_for(groups, unit, work)
    lower = np.cumsum(sums, axis=0)[-1].view(np.complex128).reshape(side, side)
    result: NDArray[np.complex128] = np.tril(lower) + np.tril(lower, -1).conj().T
    return result
