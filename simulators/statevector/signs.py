"""Signs of Pauli strings over a block of numbers: index j has the sign of the parity of j & z.

The sums of a block for all z at once are its Walsh-Hadamard transform: where a block has MANY
strings it costs less than summing for each of them.
"""

from __future__ import annotations

import numpy as np

from simulators.jit import inner, part
from simulators.vectors import (
    LANES,
    choose,
    exchange_1,
    exchange_2,
    exchange_4,
    load,
    odd,
    splat,
    store,
    where,
)

MANY = 8

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@inner
def sign(word):  # type: ignore[no-untyped-def]
    """1.0, or -1.0 if the word has an odd number of ones."""
    return 1.0 - 2.0 * np.float64(odd(word))


@inner
def moved(value, one, two, four):  # type: ignore[no-untyped-def]
    """Lane k becomes lane k ^ gap; `one`, `two`, `four`: all lanes if the gap has that bit."""
    value = choose(one, exchange_1(value), value)
    value = choose(two, exchange_2(value), value)
    return choose(four, exchange_4(value), value)


@part
def walsh(values, end):  # type: ignore[no-untyped-def]
    """values[z] becomes the sum of all values with the signs of z; end: a power of 2, >= LANES."""
    none = splat(0.0)
    by_1, by_2, by_4 = where(_1, _1), where(_2, _2), where(_4, _4)
    at = _0
    while at < end:
        x = load(values, at)
        x = exchange_1(x) + choose(by_1, none - x, x)
        x = exchange_2(x) + choose(by_2, none - x, x)
        store(values, at, exchange_4(x) + choose(by_4, none - x, x))
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


@part
def signed_sum(values, end, z, eight):  # type: ignore[no-untyped-def]
    """The sum of values[: end] with the signs of z; `eight`: scratch of LANES."""
    high = z & ~_LOW
    one = splat(0.0)
    two = splat(0.0)
    at = _0
    while at + _LANES < end:
        one = one + splat(sign(at & high)) * load(values, at)
        two = two + splat(sign((at + _LANES) & high)) * load(values, at + _LANES)
        at += _LANES + _LANES
    if at < end:
        one = one + splat(sign(at & high)) * load(values, at)
    store(eight, _0, one + two)
    total = 0.0
    for lane in range(LANES):
        total += sign(np.uint64(lane) & z) * eight[lane]
    return total


@part
def add_signs(values, end, z, weight, eight):  # type: ignore[no-untyped-def]
    """values[: end] += weight times the signs of z."""
    high = z & ~_LOW
    for lane in range(LANES):
        eight[lane] = sign(np.uint64(lane) & z)
    lanes = load(eight, _0)
    at = _0
    while at < end:
        store(values, at, load(values, at) + splat(weight * sign(at & high)) * lanes)
        at += _LANES


@part
def clear(values, end):  # type: ignore[no-untyped-def]
    """values[: end] = 0."""
    at = _0
    while at < end:
        store(values, at, splat(0.0))
        at += _LANES
