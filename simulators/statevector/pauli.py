"""Expectation values of Pauli strings, from the state as it lies in memory.

A string flips the bits under x and signs by those under z: <P> is the sum over k of
conj(a[k]) a[k ^ x] (-1)^(parity of (k ^ x) & z) i^(number of Y). Strings with the same x share the
products, so all diagonal ones together cost one sweep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.jit import INT, REALS, REALS2, SINGLES, U64, WORD, kernel
from simulators.statevector.reduce import BLOCK_QUBITS
from simulators.statevector.state import State, Sweeper, load

_1 = np.uint64(1)


@kernel(REALS, SINGLES, WORD, U64, REALS2, INT, INT, REALS, REALS2)
def _strings(reals, singles, x, zs, parts, first, last, scratch, sums):  # type: ignore[no-untyped-def]
    """sums[block, t] for the strings (x, zs[t]); parts[t]: factors of the products' re and im."""
    size = scratch.size // 4
    re, im = scratch[:size], scratch[size : 2 * size]
    re2, im2 = scratch[2 * size : 3 * size], scratch[3 * size :]
    zero = np.int64(0)
    low = np.uint64(size - 1)
    inner = x & low
    for block in range(first, last):
        start = np.uint64(block * size)
        partner = (start ^ x) & ~low
        load(reals, singles, np.int64(start), size, re, im, zero)
        load(reals, singles, np.int64(partner), size, re2, im2, zero)
        for t in range(zs.size):
            z, u, v = zs[t], parts[t, 0], parts[t, 1]
            sum_ = 0.0
            for k in range(size):
                j = np.uint64(k) ^ inner
                p = (partner | j) & z
                p ^= p >> np.uint64(32)
                p ^= p >> np.uint64(16)
                p ^= p >> np.uint64(8)
                p ^= p >> np.uint64(4)
                p ^= p >> np.uint64(2)
                p ^= p >> np.uint64(1)
                sign = 1.0 - 2.0 * np.float64(np.int64(p & _1))
                a, b, c, d = re[k], im[k], re2[j], im2[j]
                sum_ += sign * (u * (a * c + b * d) + v * (a * d - b * c))
            sums[block, t] = sum_


def expectations(
    sweeper: Sweeper, state: State, strings: list[tuple[int, int]]
) -> NDArray[np.float64]:
    """<state|P|state> of each string: float64 [strings]."""
    groups: dict[int, list[int]] = {}
    for number, (x, _) in enumerate(strings):
        groups.setdefault(x, []).append(number)
    values = np.empty(len(strings))
    for x, members in groups.items():
        values[members] = _group(sweeper, state, x, [strings[t][1] for t in members])
    return values


def _group(sweeper: Sweeper, state: State, x: int, masks_z: list[int]) -> NDArray[np.float64]:
    """Strings with the same x."""
    unit = min(BLOCK_QUBITS, state.num_qubits)
    zs = np.array(masks_z, np.uint64)
    factors = [1j ** ((x & z).bit_count() % 4) for z in masks_z]
    parts = np.array([(factor.real, -factor.imag) for factor in factors])
    sums = np.empty((1 << (state.num_qubits - unit), zs.size))

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 4 << unit)
        _strings(state.reals, state.singles, x, zs, parts, first, last, scratch, sums)

    sweeper.over(state.num_qubits, unit, work)
    total: NDArray[np.float64] = np.cumsum(sums, axis=0)[-1]
    return total
