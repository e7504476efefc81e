"""Expectation values of Pauli strings, from the state as it lies in memory.

A string flips the bits under x and signs by those under z: <P> is the sum over k of
conj(a[k]) a[k ^ x] (-1)^(parity of (k ^ x) & z) i^(number of Y). Strings with the same x share the
products, so all diagonal ones together cost one sweep.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.jit import I64, INT, REALS, REALS2, SINGLES, U64, WORD, kernel
from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper, load

_1 = np.uint64(1)


@kernel(REALS, SINGLES, REALS, SINGLES, I64, INT, WORD, U64, REALS2, INT, INT, REALS, REALS2)
def _strings(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, numbers, flip, x, zs, parts, first, last, scratch, sums
):
    """sums[block, t] for the strings (x, zs[t]); parts[t]: factors of the products' re and im.

    Block b stands at numbers[b] in the whole state; its partner is block b ^ flip of the second.
    """
    size = scratch.size // 4
    re, im = scratch[:size], scratch[size : 2 * size]
    re2, im2 = scratch[2 * size : 3 * size], scratch[3 * size :]
    zero = np.int64(0)
    low = np.uint64(size - 1)
    inner = x & low
    for block in range(first, last):
        partner = (np.uint64(numbers[block] * size) ^ x) & ~low
        load(reals, singles, block * size, size, re, im, zero)
        load(reals2, singles2, (block ^ flip) * size, size, re2, im2, zero)
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


class Group(msgspec.Struct, frozen=True, eq=False):
    """Strings that flip the same qubits."""

    x: int
    members: list[int]  # their numbers
    zs: NDArray[np.uint64]
    parts: NDArray[np.float64]  # [strings, 2]


def groups(strings: list[tuple[int, int]]) -> list[Group]:
    """All strings, by what they flip."""
    found: dict[int, list[int]] = {}
    for number, (x, _) in enumerate(strings):
        found.setdefault(x, []).append(number)
    return [_group(x, members, strings) for x, members in found.items()]


def _group(x: int, members: list[int], strings: list[tuple[int, int]]) -> Group:
    masks_z = [strings[t][1] for t in members]
    factors = [1j ** ((x & z).bit_count() % 4) for z in masks_z]
    parts = np.array([(factor.real, -factor.imag) for factor in factors])
    return Group(x, members, np.array(masks_z, np.uint64), parts)


def string_sums(
    sweeper: Sweeper,
    state: State,
    partner: State,
    numbers: NDArray[np.int64],
    flip: int,
    group: Group,
    sums: NDArray[np.float64],
) -> None:
    """Fill `sums`: float64 [blocks, strings]; see `_strings`."""
    unit = min(BLOCK_QUBITS, state.num_qubits)

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 4 << unit)
        _strings(
            state.reals,
            state.singles,
            partner.reals,
            partner.singles,
            numbers,
            flip,
            group.x,
            group.zs,
            group.parts,
            first,
            last,
            scratch,
            sums,
        )

    sweeper.over(state.num_qubits, unit, work)
