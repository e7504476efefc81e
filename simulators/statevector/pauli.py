"""Expectation values of Pauli strings, from the state as it lies in memory.

A string flips the bits under x and signs by those under z: <P> is the sum over k of
conj(a[k]) a[k ^ x] (-1)^(parity of (k ^ x) & z) i^(number of Y). Strings with the same x share the
products; of many, all signs of a block are found at once. So all diagonal strings together cost one
sweep.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.jit import I64, INT, REALS, REALS2, SINGLES, U64, WORD, kernel, part
from simulators.statevector.signs import MANY, moved, sign, signed_sum, walsh
from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper, load
from simulators.vectors import LANES, store, where
from simulators.vectors import load as take

EVEN, ODD = 1, 2  # number of Y: a string looks at the products' real parts, or the imaginary ones

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@part
def _products(re, im, re2, im2, end, inner, even, odd):  # type: ignore[no-untyped-def]
    """even[j] + i odd[j] = conj(first[j ^ inner]) second[j], for j < end."""
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    j = _0
    while j < end:
        k = j ^ (inner & ~_LOW)
        a, b = moved(take(re, k), by_1, by_2, by_4), moved(take(im, k), by_1, by_2, by_4)
        c, d = take(re2, j), take(im2, j)
        store(even, j, a * c + b * d)
        store(odd, j, a * d - b * c)
        j += _LANES


@kernel(
    REALS, SINGLES, REALS, SINGLES, I64, INT, INT, WORD, U64, REALS2, INT, INT, INT, REALS, REALS2
)
def _strings(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, numbers, size, flip, x, zs, parts, all_, first, last,
    scratch, sums,
):  # fmt: skip
    """sums[block, t] for the strings (x, zs[t]); parts[t]: factors of the products' re and im.

    Block b stands at numbers[b] in the whole state; its partner is block b ^ flip of the second.
    `all_`: EVEN, ODD: all signs of these parts are found at once.
    """
    room = (scratch.size - LANES) // 6
    re, im = scratch[:room], scratch[room : 2 * room]
    re2, im2 = scratch[2 * room : 3 * room], scratch[3 * room : 4 * room]
    even, odd = scratch[4 * room : 5 * room], scratch[5 * room : 6 * room]
    eight = scratch[6 * room :]
    if size < room:
        scratch[:] = 0.0
    zero = np.int64(0)
    end = np.uint64(room)
    low = np.uint64(size - 1)
    for block in range(first, last):
        partner = (np.uint64(numbers[block] * size) ^ x) & ~low
        load(reals, singles, block * size, size, re, im, zero)
        load(reals2, singles2, (block ^ flip) * size, size, re2, im2, zero)
        _products(re, im, re2, im2, end, x & low, even, odd)
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


class Group(msgspec.Struct, frozen=True, eq=False):
    """Strings that flip the same qubits."""

    x: int
    members: list[int]  # their numbers
    zs: NDArray[np.uint64]
    parts: NDArray[np.float64]  # [strings, 2]
    all_signs: int  # EVEN, ODD: where it has many


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
    many = [int(np.count_nonzero(parts[:, k])) >= MANY for k in (0, 1)]
    return Group(x, members, np.array(masks_z, np.uint64), parts, EVEN * many[0] | ODD * many[1])


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
        _strings(
            state.reals,
            state.singles,
            partner.reals,
            partner.singles,
            numbers,
            1 << unit,
            flip,
            group.x,
            group.zs,
            group.parts,
            group.all_signs,
            first,
            last,
            sweeper.scratch(number, 6 * max(1 << unit, LANES) + LANES),
            sums,
        )

    sweeper.over(state.num_qubits, unit, work)
