"""A Pauli sum applied to a state, into another one: what a gradient is taken back through gates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.jit import I64, INT, REALS, REALS2, SINGLES, U64, kernel, part
from simulators.statevector import pauli
from simulators.statevector.signs import MANY, add_signs, clear, moved, sign, walsh
from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper, load
from simulators.statevector.state import store as put
from simulators.vectors import LANES, store, where
from simulators.vectors import load as take

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@part
def _add(re, im, re2, im2, even, odd, end, inner):  # type: ignore[no-untyped-def]
    """into[j ^ inner] += (even[j] + i odd[j]) second[j], for j < end."""
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    j = _0
    while j < end:
        k = j ^ (inner & ~_LOW)
        a, b, x, y = take(re2, j), take(im2, j), take(even, j), take(odd, j)
        store(re, k, take(re, k) + moved(x * a - y * b, by_1, by_2, by_4))
        store(im, k, take(im, k) + moved(x * b + y * a, by_1, by_2, by_4))
        j += _LANES


@kernel(REALS, SINGLES, REALS, SINGLES, INT, U64, I64, U64, REALS2, INT, INT, REALS)
def _apply(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, size, xs, starts, zs, factors, first, last, scratch
):
    """Blocks first .. last - 1 of the first state become those of the sum applied to the second.

    Strings starts[g] .. starts[g + 1] - 1 flip xs[g]; factors[t]: (re, im) of string t's.
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
        clear(re, end)
        clear(im, end)
        for g in range(xs.size):
            x = xs[g]
            partner = (np.uint64(block * size) ^ x) & ~low
            load(reals2, singles2, np.int64(partner), size, re2, im2, zero)
            clear(even, end)
            clear(odd, end)
            many = starts[g + 1] - starts[g] >= MANY
            for t in range(starts[g], starts[g + 1]):
                up = sign(partner & zs[t])
                z = zs[t] & low
                if many:
                    even[z] += up * factors[t, 0]
                    odd[z] += up * factors[t, 1]
                elif factors[t, 0] != 0.0:
                    add_signs(even, end, z, up * factors[t, 0], eight)
                else:
                    add_signs(odd, end, z, up * factors[t, 1], eight)
            if many:
                walsh(even, end)
                walsh(odd, end)
            _add(re, im, re2, im2, even, odd, end, x & low)
        put(reals, singles, block * size, size, re, im, zero)


def apply(
    sweeper: Sweeper,
    state: State,
    into: State,
    strings: list[tuple[int, int]],
    coefficients: NDArray[np.float64],
) -> None:
    """`into` becomes the sum of coefficients[t] times string t, applied to the state."""
    groups = pauli.groups(strings)
    order = [t for group in groups for t in group.members]
    sizes = [len(group.members) for group in groups]
    xs = np.array([group.x for group in groups], np.uint64)
    zs = np.array([strings[t][1] for t in order], np.uint64)
    phases = [1j ** ((strings[t][0] & strings[t][1]).bit_count() % 4) for t in order]
    scaled = [phase * coefficients[t] for phase, t in zip(phases, order, strict=True)]
    factors = np.array([(f.real, f.imag) for f in scaled]).reshape(-1, 2)
    starts = np.cumsum([0, *sizes])
    unit = min(BLOCK_QUBITS, state.num_qubits)

    def work(first: int, last: int, number: int) -> None:
        _apply(
            into.reals,
            into.singles,
            state.reals,
            state.singles,
            1 << unit,
            xs,
            starts,
            zs,
            factors,
            first,
            last,
            sweeper.scratch(number, 6 * max(1 << unit, LANES) + LANES),
        )

    sweeper.over(state.num_qubits, unit, work)
