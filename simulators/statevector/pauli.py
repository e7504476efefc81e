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
from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper
from simulators.vectors import LANES, imags_of, reals_of, store, where

EVEN, ODD = 1, 2  # number of Y: a string looks at the products' real parts, or the imaginary ones

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@part
def _products(first, at, second, at2, end, inner, need, even, odd):  # type: ignore[no-untyped-def]
    """even[j] + i odd[j] = conj(a[j ^ inner]) b[j], for j < end; `need`: EVEN, ODD.

    a, b: the amplitudes from first[at] and second[at2] on, in memory.
    """
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    j = _0
    while j < end:
        k = at + _2 * (j ^ (inner & ~_LOW))
        a, b = reals_of(first, k), imags_of(first, k)
        if low:
            a, b = moved(a, by_1, by_2, by_4), moved(b, by_1, by_2, by_4)
        c, d = reals_of(second, at2 + _2 * j), imags_of(second, at2 + _2 * j)
        if need & EVEN:
            store(even, j, a * c + b * d)
        if need & ODD:
            store(odd, j, a * d - b * c)
        j += _LANES


@kernel(
    REALS, SINGLES, REALS, SINGLES, I64, INT, INT, WORD, U64, REALS2, INT, INT, INT, INT, REALS,
    REALS2,
)  # fmt: skip
def _strings(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, numbers, size, flip, x, zs, parts, need, all_, first, last,
    scratch, sums,
):  # fmt: skip
    """sums[block, t] for the strings (x, zs[t]); parts[t]: factors of the products' re and im.

    Block b stands at numbers[b] in the whole state; its partner is block b ^ flip of the second.
    `size`: of a block, LANES at least. `need`: EVEN, ODD: which parts there are strings for;
    `all_`: all signs of these are found at once.
    """
    even, odd, eight = scratch[:size], scratch[size : 2 * size], scratch[2 * size :]
    end = np.uint64(size)
    low = np.uint64(size - 1)
    for block in range(first, last):
        partner = (np.uint64(numbers[block] * size) ^ x) & ~low
        at, at2 = np.uint64(2 * block * size), np.uint64(2 * (block ^ flip) * size)
        if reals.size:
            _products(reals, at, reals2, at2, end, x & low, need, even, odd)
        else:
            _products(singles, at, singles2, at2, end, x & low, need, even, odd)
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
    need: int  # EVEN, ODD: parts of the products that it has strings for
    all_signs: int  # those that it has many for


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
    counts = [int(np.count_nonzero(parts[:, k])) for k in (0, 1)]
    need, many = (EVEN * (counts[0] >= n) | ODD * (counts[1] >= n) for n in (1, MANY))
    return Group(x, members, np.array(masks_z, np.uint64), parts, need, many)


def padded(state: State) -> State:
    """The state; one of less than LANES amplitudes with zeros behind them."""
    missing = LANES - state.amplitudes.size
    return State(np.pad(state.amplitudes, (0, missing))) if missing > 0 else state


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
    state, partner = padded(state), padded(partner)
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
            group.need,
            group.all_signs,
            first,
            last,
            sweeper.scratch(number, (2 << unit) + LANES),
            sums,
        )

    sweeper.over(state.num_qubits, unit, work)
