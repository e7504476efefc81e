"""Application of a Pauli sum to a state, into a second state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import (
    I64,
    INT,
    REALS,
    REALS2,
    SINGLES,
    U64,
    device_function,
    kernel,
)
from simulators.compiler.simd import LANES, imags_of, reals_of, splat, store, store_both, where
from simulators.compiler.simd import load as take
from simulators.statevector.backend import pauli
from simulators.statevector.backend.pauli import (
    EVEN,
    MANY,
    ODD,
    add_signs,
    clear,
    parity_sign,
    walsh,
)
from simulators.statevector.small.gate_kernels import xor_lanes
from simulators.statevector.state import BLOCK_QUBITS, BlockExecutor, State

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@device_function
def _add(re, im, second, at, even, odd, need, end, inner):  # type: ignore[no-untyped-def]
    """Add (even[j] + i odd[j]) b[j] to (re, im)[j ^ inner], for j < end. b: the amplitudes from
    second[at] on, in memory; `need`: EVEN, ODD: factors that are not 0."""
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    x = splat(0.0)
    y = splat(0.0)
    j = _0
    while j < end:
        k = j ^ (inner & ~_LOW)
        a, b = reals_of(second, at + _2 * j), imags_of(second, at + _2 * j)
        if need & EVEN:
            x = take(even, j)
        if need & ODD:
            y = take(odd, j)
        a, b = x * a - y * b, x * b + y * a
        if low:
            a, b = xor_lanes(a, by_1, by_2, by_4), xor_lanes(b, by_1, by_2, by_4)
        store(re, k, take(re, k) + a)
        store(im, k, take(im, k) + b)
        j += _LANES


@device_function
def _put(array, at, re, im, end):  # type: ignore[no-untyped-def]
    """Store amplitudes from array[at] on."""
    j = _0
    while j < end:
        store_both(array, at + _2 * j, take(re, j), take(im, j))
        j += _LANES


@device_function
def _scaled(partner, low, zs, factors, part_, use_walsh, even, end, eight):  # type: ignore[no-untyped-def]
    """Set even[j] to the sum of the strings' factors with their signs; `part_`: 0 real, 1
    imaginary."""
    clear(even, end)
    for t in range(zs.size):
        weight = parity_sign(partner & zs[t]) * factors[t, part_]
        if use_walsh:
            even[zs[t] & low] += weight
        elif weight != 0.0:
            add_signs(even, end, zs[t] & low, weight, eight)
    if use_walsh:
        walsh(even, end)


@kernel(
    REALS,
    SINGLES,
    REALS,
    SINGLES,
    INT,
    U64,
    I64,
    I64,
    U64,
    REALS2,
    INT,
    INT,
    REALS,
    group="gradient",
)
def _apply(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, size, xs, starts, needs, zs, factors, first, last, scratch
):
    """Set blocks first .. last - 1 of the first state to the sum applied to the second.

    Strings starts[g] .. starts[g + 1] - 1 flip xs[g]; factors[t]: (re, im) of string t's factor;
    needs[g]: EVEN, ODD: parts that are not 0.
    """
    re, im = scratch[:size], scratch[size : 2 * size]
    even, odd = scratch[2 * size : 3 * size], scratch[3 * size : 4 * size]
    eight = scratch[4 * size :]
    end = np.uint64(size)
    low = np.uint64(size - 1)
    for block in range(first, last):
        clear(re, end)
        clear(im, end)
        for g in range(xs.size):
            begin, stop = starts[g], starts[g + 1]
            partner = (np.uint64(block * size) ^ xs[g]) & ~low
            need = needs[g]
            use_walsh = stop - begin >= MANY
            mine, own = zs[begin:stop], factors[begin:stop]
            if need & EVEN:
                _scaled(partner, low, mine, own, 0, use_walsh, even, end, eight)
            if need & ODD:
                _scaled(partner, low, mine, own, 1, use_walsh, odd, end, eight)
            if reals.size:
                _add(re, im, reals2, _2 * partner, even, odd, need, end, xs[g] & low)
            else:
                _add(re, im, singles2, _2 * partner, even, odd, need, end, xs[g] & low)
        if reals.size:
            _put(reals, np.uint64(2 * block * size), re, im, end)
        else:
            _put(singles, np.uint64(2 * block * size), re, im, end)


def apply(
    sweeper: BlockExecutor,
    state: State,
    into: State,
    strings: list[tuple[int, int]],
    coefficients: NDArray[np.float64],
) -> None:
    """Set `into` to the sum of coefficients[t] times string t, applied to the state."""
    groups = pauli.pauli_groups(strings)
    order = [t for group in groups for t in group.members]
    sizes = [len(group.members) for group in groups]
    xs = np.array([group.x for group in groups], np.uint64)
    zs = np.array([strings[t][1] for t in order], np.uint64)
    phases = [1j ** ((strings[t][0] & strings[t][1]).bit_count() % 4) for t in order]
    scaled = [phase * coefficients[t] for phase, t in zip(phases, order, strict=True)]
    factors = np.array([(f.real, f.imag) for f in scaled]).reshape(-1, 2)
    starts = np.cumsum([0, *sizes])
    needs = np.array([group.need for group in groups])
    source, target = pauli.padded(state), pauli.padded(into)
    unit = min(BLOCK_QUBITS, source.num_qubits)

    def work(first: int, last: int, number: int) -> None:
        _apply(
            target.reals,
            target.singles,
            source.reals,
            source.singles,
            1 << unit,
            xs,
            starts,
            needs,
            zs,
            factors,
            first,
            last,
            sweeper.scratch(number, (4 << unit) + LANES),
        )

    sweeper.parallel_for(source.num_qubits, unit, work)
    if target is not into:
        into.amplitudes[:] = target.amplitudes[: into.amplitudes.size]
