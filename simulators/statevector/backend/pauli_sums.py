"""Expectation values of Pauli strings, without a second state.

A string flips the bits under x and has the signs of those under z: <P> is the sum over k of
conj(a[k]) a[k ^ x] (-1)^(parity of (k ^ x) & z) i^(number of Y). Strings with the same x share
the products. For MANY strings the signs of a block are one Walsh-Hadamard transform, so all
diagonal strings together cost one sweep.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler import simd
from simulators.compiler.kernel import (
    INT,
    REALS2,
    U64,
    WORD,
    device_function,
    inline_function,
    kernel,
    record,
)
from simulators.compiler.simd import LANES, imags_of, load, odd, reals_of, splat, store, where
from simulators.statevector.small.gate_kernels import xor_lanes
from simulators.statevector.state import BLOCK_QUBITS, BlockExecutor, State

MANY = 8

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@inline_function
def parity_sign(word):  # type: ignore[no-untyped-def]
    """Sign of a word: 1.0, or -1.0 if it has an odd number of ones."""
    return 1.0 - 2.0 * np.float64(odd(word))


@device_function
def walsh(values, end):  # type: ignore[no-untyped-def]
    """Replace values[z] by the sum of all values with the signs of z; end: a power of 2, >=
    LANES."""
    none = splat(0.0)
    by_1, by_2, by_4 = where(_1, _1), where(_2, _2), where(_4, _4)
    at = _0
    while at < end:
        x = load(values, at)
        x = simd.exchange_1(x) + simd.choose(by_1, none - x, x)
        x = simd.exchange_2(x) + simd.choose(by_2, none - x, x)
        store(values, at, simd.exchange_4(x) + simd.choose(by_4, none - x, x))
        at += _LANES
    step = _LANES
    while step < end:
        base = _0
        while base < end:
            at = base
            while at < base + step:
                x, y = load(values, at), load(values, at + step)
                store(values, at, x + y)
                store(values, at + step, x - y)
                at += _LANES
            base += step + step
        step += step


@device_function
def signed_sum(values, end, z, eight):  # type: ignore[no-untyped-def]
    """Sum of values[: end] with the signs of z; `eight`: scratch of LANES."""
    high = z & ~_LOW
    left = splat(0.0)
    right = splat(0.0)
    at = _0
    while at + _LANES < end:
        left = left + splat(parity_sign(at & high)) * load(values, at)
        right = right + splat(parity_sign((at + _LANES) & high)) * load(values, at + _LANES)
        at += _LANES + _LANES
    if at < end:
        left = left + splat(parity_sign(at & high)) * load(values, at)
    store(eight, _0, left + right)
    total = 0.0
    for lane in range(LANES):
        total += parity_sign(np.uint64(lane) & z) * eight[lane]
    return total


@device_function
def add_signs(values, end, z, weight, eight):  # type: ignore[no-untyped-def]
    """Add weight times the signs of z to values[: end]."""
    high = z & ~_LOW
    for lane in range(LANES):
        eight[lane] = parity_sign(np.uint64(lane) & z)
    lanes = load(eight, _0)
    at = _0
    while at < end:
        store(values, at, load(values, at) + splat(weight * parity_sign(at & high)) * lanes)
        at += _LANES


@device_function
def clear(values, end):  # type: ignore[no-untyped-def]
    """values[: end] = 0."""
    at = _0
    while at < end:
        store(values, at, splat(0.0))
        at += _LANES


@device_function
def _products(first, at, second, at2, end, inner, need, even, odd):  # type: ignore[no-untyped-def]
    """Set even[j] + i odd[j] = conj(a[j ^ inner]) b[j], for j < end; `need`: EVEN, ODD. a, b: the
    amplitudes from first[at] and second[at2] on, in memory."""
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    j = _0
    while j < end:
        k = at + _2 * (j ^ (inner & ~_LOW))
        a, b = reals_of(first, k), imags_of(first, k)
        if low:
            a, b = xor_lanes(a, by_1, by_2, by_4), xor_lanes(b, by_1, by_2, by_4)
        c, d = reals_of(second, at2 + _2 * j), imags_of(second, at2 + _2 * j)
        if need & EVEN:
            store(even, j, a * c + b * d)
        if need & ODD:
            store(odd, j, a * d - b * c)
        j += _LANES


EVEN, ODD = 1, 2  # parity of the number of Y: a string needs the products' real or imaginary parts


@record
class StringArrays(NamedTuple):
    """Strings that flip the same qubits."""

    x: WORD
    zs: U64  # [strings]
    parts: REALS2  # [strings, 2]: factors of the products' re and im
    need: INT  # EVEN, ODD: parts of the products that the strings need
    all_signs: INT  # parts that many of them need: all signs are computed at once


@kernel("AMPLITUDES AMPLITUDES I64 INT INT StringArrays INT INT REALS REALS2", group="deferred")
def string_sums_kernel(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, offsets, size, flip, strings, first, last, scratch, sums
):
    """Fill sums[block, t] for each string. Block b is at offsets[b] in the whole state; its partner
    is block b ^ flip of the second. `size`: of a block, at least LANES."""
    x, zs, parts, need = strings.x, strings.zs, strings.parts, strings.need
    all_ = strings.all_signs
    even, odd, eight = scratch[:size], scratch[size : 2 * size], scratch[2 * size :]
    end = np.uint64(size)
    low = np.uint64(size - 1)
    for block in range(first, last):
        partner = (np.uint64(offsets[block] * size) ^ x) & ~low
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
            sums[block, t] = parity_sign(partner & zs[t]) * sum_


class PauliGroup(msgspec.Struct, frozen=True, eq=False):
    """Strings of a list that flip the same qubits."""

    members: list[int]  # their indices
    strings: StringArrays


def pauli_groups(strings: list[tuple[int, int]]) -> list[PauliGroup]:
    entries: dict[int, list[int]] = {}
    for number, (x, _) in enumerate(strings):
        entries.setdefault(x, []).append(number)
    return [_group(x, members, strings) for x, members in entries.items()]


def _group(x: int, members: list[int], strings: list[tuple[int, int]]) -> PauliGroup:
    masks_z = [strings[t][1] for t in members]
    factors = [1j ** ((x & z).bit_count() % 4) for z in masks_z]
    parts = np.array([(factor.real, -factor.imag) for factor in factors])
    counts = [int(np.count_nonzero(parts[:, k])) for k in (0, 1)]
    need, all_signs = (EVEN * (counts[0] >= n) | ODD * (counts[1] >= n) for n in (1, MANY))
    zs = np.array(masks_z, np.uint64)
    return PauliGroup(members, StringArrays(np.uint64(x), zs, parts, need, all_signs))


def padded(state: State) -> State:
    """State padded with zeros to at least LANES amplitudes."""
    missing = LANES - state.amplitudes.size
    return State(np.pad(state.amplitudes, (0, missing))) if missing > 0 else state


def string_sums(
    sweeper: BlockExecutor,
    state: State,
    partner: State,
    offsets: NDArray[np.int64],
    flip: int,
    group: PauliGroup,
    sums: NDArray[np.float64],
) -> None:
    """Fill `sums`: float64 [blocks, strings]; see `string_sums_kernel`."""
    state, partner = padded(state), padded(partner)
    unit = min(BLOCK_QUBITS, state.num_qubits)

    def work(first: int, last: int, number: int) -> None:
        string_sums_kernel(
            *state.arrays, *partner.arrays, offsets, 1 << unit, flip, group.strings, first, last,
            sweeper.scratch(number, (2 << unit) + LANES), sums,
        )  # fmt: skip

    sweeper.parallel_for(state.num_qubits, unit, work)
