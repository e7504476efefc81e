"""Passes of adjoint differentiation: observables applied, and both states back in tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import PHASE, REAL
from simulators.compiler import simd
from simulators.compiler.kernel import (
    I64,
    INT,
    REALS2,
    U64,
    WORD,
    WORDS2,
    device_function,
    kernel,
    record,
)
from simulators.compiler.simd import LANES, imags_of, load as take, reals_of, store as put, where
from simulators.statevector.backend import pauli_sums
from simulators.statevector.small.gate_kernels import (
    KIND,
    MASK,
    ONE,
    ZERO,
    apply as apply_gate,
    multiply,
    splat_matrix,
    step_at,
    xor_lanes,
)
from simulators.statevector.state import BLOCK_QUBITS, BlockExecutor, State, load, spread, store

# Reverse pass over two states, tile by tile, with the sums for derivatives.
#
# Factors go backwards through `arrange`: the inverse of a factor touches the same amplitudes. The
# sums of a factor with a free parameter are taken before its inverse is applied. They run over
# fixed groups of tiles, so they have the same bits for any number of threads.

_0, _1, _2, _4 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)
_LANES = np.uint64(LANES)
_LOW = np.uint64(LANES - 1)


@device_function
def _take(array, start, count, re, im, at):  # type: ignore[no-untyped-def]
    """Load as `state.load`, at least LANES amplitudes."""
    k = _0
    while k < np.uint64(count):
        place = np.uint64(2 * start) + _2 * k
        put(re, np.uint64(at) + k, reals_of(array, place))
        put(im, np.uint64(at) + k, imags_of(array, place))
        k += _LANES


@device_function
def _put(array, start, count, re, im, at):  # type: ignore[no-untyped-def]
    """Store the amplitudes; the inverse of `_take`."""
    k = _0
    while k < np.uint64(count):
        place = np.uint64(at) + k
        simd.store_both(array, np.uint64(2 * start) + _2 * k, take(re, place), take(im, place))
        k += _LANES


@device_function
def _total(value, eight):  # type: ignore[no-untyped-def]
    """Sum of a vector's lanes."""
    put(eight, _0, value)
    total = 0.0
    for lane in range(LANES):
        total += eight[lane]
    return total


@device_function
def _across(re, im, re2, im2, end, step, m, eight, into):  # type: ignore[no-untyped-def]
    """Compute the sums of a step whose mask has none of the lowest bits, and apply its inverse to
    both states; m: its matrix, as vectors."""
    kind, mask, zero_bits, one_bits = step
    run = mask & (~mask + _1) if mask else end
    rest = ~mask
    gap = one_bits - zero_bits
    p, q, r, s = simd.splat(0.0), simd.splat(0.0), simd.splat(0.0), simd.splat(0.0)
    base = _0
    while base < end:
        k = base | zero_bits
        stop = k + run
        if kind == PHASE:
            while k < stop:
                a, b, e, f = take(re, k), take(im, k), take(re2, k), take(im2, k)
                p = p + (e * b - f * a)
                put(re, k, a * m.re_00 - b * m.im_00)
                put(im, k, a * m.im_00 + b * m.re_00)
                put(re2, k, e * m.re_00 - f * m.im_00)
                put(im2, k, e * m.im_00 + f * m.re_00)
                k += _LANES
        elif kind == REAL:  # a rotation about Y: the other sums have no weight
            while k < stop:
                j = k + gap
                a, b, c, d = take(re, k), take(im, k), take(re, j), take(im, j)
                e, f, g, h = take(re2, k), take(im2, k), take(re2, j), take(im2, j)
                s = s + ((e * c + f * d) - (g * a + h * b))
                put(re, k, m.re_00 * a + m.re_01 * c)
                put(im, k, m.re_00 * b + m.re_01 * d)
                put(re, j, m.re_10 * a + m.re_11 * c)
                put(im, j, m.re_10 * b + m.re_11 * d)
                put(re2, k, m.re_00 * e + m.re_01 * g)
                put(im2, k, m.re_00 * f + m.re_01 * h)
                put(re2, j, m.re_10 * e + m.re_11 * g)
                put(im2, j, m.re_10 * f + m.re_11 * h)
                k += _LANES
        else:
            while k < stop:
                j = k + gap
                a, b, c, d = take(re, k), take(im, k), take(re, j), take(im, j)
                e, f, g, h = take(re2, k), take(im2, k), take(re2, j), take(im2, j)
                p = p + (e * b - f * a)
                q = q + (g * d - h * c)
                r = r + ((e * d - f * c) + (g * b - h * a))
                s = s + ((e * c + f * d) - (g * a + h * b))
                w, x, y, z = multiply(a, b, c, d, m)
                put(re, k, w)
                put(im, k, x)
                put(re, j, y)
                put(im, j, z)
                w, x, y, z = multiply(e, f, g, h, m)
                put(re2, k, w)
                put(im2, k, x)
                put(re2, j, y)
                put(im2, j, z)
                k += _LANES
        base = ((base | mask) + run) & rest
    into[0] += _total(p, eight)
    if kind != PHASE:
        into[1] += _total(q, eight)
        into[2] += _total(r, eight)
        into[3] += _total(s, eight)


@device_function
def _within(re, im, re2, im2, end, step, eight, into):  # type: ignore[no-untyped-def]
    """Compute the sums of a step whose mask selects among the lanes of a vector."""
    kind, mask, zero_bits, one_bits = step
    low, gap = mask & _LOW, (zero_bits ^ one_bits) & _LOW
    first, second = where(low, zero_bits & _LOW), where(low, one_bits & _LOW)
    by_1, by_2, by_4 = where(_0, ~gap & _1), where(_0, ~gap & _2), where(_0, ~gap & _4)
    high = mask & ~_LOW
    none = simd.splat(0.0)
    p, q, r, s = none, none, none, none
    base = _0
    while base < end:
        i = base | (zero_bits & ~_LOW)
        a, b, e, f = take(re, i), take(im, i), take(re2, i), take(im2, i)
        p = p + simd.choose(first, e * b - f * a, none)
        if kind != PHASE:
            j = base | (one_bits & ~_LOW)
            c, d, g, h = take(re, j), take(im, j), take(re2, j), take(im2, j)
            q = q + simd.choose(second, g * d - h * c, none)
            c, d = xor_lanes(c, by_1, by_2, by_4), xor_lanes(d, by_1, by_2, by_4)
            r = r + simd.choose(first, e * d - f * c, none)
            s = s + simd.choose(first, e * c + f * d, none)
            a, b = xor_lanes(a, by_1, by_2, by_4), xor_lanes(b, by_1, by_2, by_4)
            r = r + simd.choose(second, g * b - h * a, none)
            s = s - simd.choose(second, g * a + h * b, none)
        base = ((base | high) + _LANES) & ~high
    into[0] += _total(p, eight)
    if kind != PHASE:
        into[1] += _total(q, eight)
        into[2] += _total(r, eight)
        into[3] += _total(s, eight)


@record
class ReversePass(NamedTuple):
    """Steps first .. last - 1 of a table, which one pass over the tiles applies."""

    tile: WORD  # mask of the qubits of a tile
    first: INT
    last: INT
    steps: WORDS2  # [steps, 7], columns as those of `arrange`
    floats: REALS2  # matrices of their inverses, by column STEP
    columns: I64  # [steps]: column in sums[group] of the four sums of a step, or -1


@kernel(
    "AMPLITUDES AMPLITUDES INT ReversePass INT INT INT I64 REALS REALS3",
    group="gradient",
)
def apply_inverse(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, n, pass_, tiles, first, last, control, scratch, sums
):
    """Apply the inverses of the steps of a pass to both states; groups first .. last - 1. A group
    is `tiles` tiles. `scratch`: float64 [4 * max(tile size, LANES) + LANES]."""
    tile, steps, floats, columns = pass_.tile, pass_.steps, pass_.floats, pass_.columns
    room = (scratch.size - LANES) // 4
    re, im = scratch[:room], scratch[room : 2 * room]
    re2, im2 = scratch[2 * room : 3 * room], scratch[3 * room : 4 * room]
    eight = scratch[4 * room :]
    size = min(room, np.int64(1) << n)
    end = np.uint64(room)
    if size < room:
        pauli_sums.clear(scratch, np.uint64(scratch.size))
    stretch = np.int64(~tile & (tile + _1))  # the tile's lowest qubits, without a gap
    if stretch > size or stretch == 0:
        stretch = np.int64(size)
    outside = ((_1 << np.uint64(n)) - _1) & ~tile
    above = tile & ~np.uint64(stretch - 1)
    for group in range(first, last):
        for k in range(sums.shape[1]):
            for what in range(4):
                sums[group, k, what] = 0.0
        for number in range(group * tiles, (group + 1) * tiles):
            base = spread(np.uint64(number), outside)
            for at in range(0, size, stretch):
                start = np.int64(base | spread(np.uint64(at // stretch), above))
                if reals.size and stretch >= LANES:
                    _take(reals, start, stretch, re, im, at)
                    _take(reals2, start, stretch, re2, im2, at)
                else:
                    load(reals, singles, start, stretch, re, im, at)
                    load(reals2, singles2, start, stretch, re2, im2, at)
            for s in range(pass_.first, pass_.last):
                if control[0]:
                    return
                if base & steps[s, OUTER] == steps[s, VALUE]:
                    step, row = step_at(steps, s), np.int64(steps[s, STEP])
                    if columns[s] >= 0:
                        into = sums[group, columns[s]]
                        if not step.mask & _LOW:
                            m = splat_matrix(floats, row)
                            _across(re, im, re2, im2, end, step, m, eight, into)
                            continue
                        _within(re, im, re2, im2, end, step, eight, into)
                    apply_gate(re, im, size, step, floats, row)
                    apply_gate(re2, im2, size, step, floats, row)
            for at in range(0, size, stretch):
                start = np.int64(base | spread(np.uint64(at // stretch), above))
                if reals.size and stretch >= LANES:
                    _put(reals, start, stretch, re, im, at)
                    _put(reals2, start, stretch, re2, im2, at)
                else:
                    store(reals, singles, start, stretch, re, im, at)
                    store(reals2, singles2, start, stretch, re2, im2, at)


# Application of a Pauli sum to a state, into a second state.


@device_function
def _add(re, im, second, at, even, odd, need, end, inner):  # type: ignore[no-untyped-def]
    """Add (even[j] + i odd[j]) b[j] to (re, im)[j ^ inner], for j < end. b: the amplitudes from
    second[at] on, in memory; `need`: EVEN, ODD: factors that are not 0."""
    low = inner & _LOW
    by_1, by_2, by_4 = where(_0, ~low & _1), where(_0, ~low & _2), where(_0, ~low & _4)
    x = simd.splat(0.0)
    y = simd.splat(0.0)
    j = _0
    while j < end:
        k = j ^ (inner & ~_LOW)
        a, b = reals_of(second, at + _2 * j), imags_of(second, at + _2 * j)
        if need & pauli_sums.EVEN:
            x = take(even, j)
        if need & pauli_sums.ODD:
            y = take(odd, j)
        a, b = x * a - y * b, x * b + y * a
        if low:
            a, b = xor_lanes(a, by_1, by_2, by_4), xor_lanes(b, by_1, by_2, by_4)
        put(re, k, take(re, k) + a)
        put(im, k, take(im, k) + b)
        j += _LANES


@device_function
def _put_row(array, at, re, im, end):  # type: ignore[no-untyped-def]
    """Store amplitudes from array[at] on."""
    j = _0
    while j < end:
        simd.store_both(array, at + _2 * j, take(re, j), take(im, j))
        j += _LANES


@device_function
def _scaled(partner, low, zs, factors, part_, use_walsh, even, end, eight):  # type: ignore[no-untyped-def]
    """Set even[j] to the sum of the strings' factors with their signs; `part_`: 0 real, 1
    imaginary."""
    pauli_sums.clear(even, end)
    for t in range(zs.size):
        weight = pauli_sums.parity_sign(partner & zs[t]) * factors[t, part_]
        if use_walsh:
            even[zs[t] & low] += weight
        elif weight != 0.0:
            pauli_sums.add_signs(even, end, zs[t] & low, weight, eight)
    if use_walsh:
        pauli_sums.walsh(even, end)


@record
class PauliTable(NamedTuple):
    """Pauli strings in groups, each of strings that flip the same qubits."""

    xs: U64  # [groups]
    starts: I64  # [groups + 1]: first string of each, then the number of strings
    needs: I64  # [groups]: EVEN, ODD: parts of factors that are not 0
    zs: U64  # [strings]
    factors: REALS2  # [strings, 2]: re, im


@kernel("AMPLITUDES AMPLITUDES INT PauliTable INT INT REALS", group="gradient")
def _apply(reals, singles, reals2, singles2, size, strings, first, last, scratch):  # type: ignore[no-untyped-def]
    """Set blocks first .. last - 1 of the first state to the sum applied to the second."""
    xs, starts, needs = strings.xs, strings.starts, strings.needs
    re, im = scratch[:size], scratch[size : 2 * size]
    even, odd = scratch[2 * size : 3 * size], scratch[3 * size : 4 * size]
    eight = scratch[4 * size :]
    end = np.uint64(size)
    low = np.uint64(size - 1)
    for block in range(first, last):
        pauli_sums.clear(re, end)
        pauli_sums.clear(im, end)
        for g in range(xs.size):
            begin, stop = starts[g], starts[g + 1]
            partner = (np.uint64(block * size) ^ xs[g]) & ~low
            need = needs[g]
            use_walsh = stop - begin >= pauli_sums.MANY
            mine, own = strings.zs[begin:stop], strings.factors[begin:stop]
            if need & pauli_sums.EVEN:
                _scaled(partner, low, mine, own, 0, use_walsh, even, end, eight)
            if need & pauli_sums.ODD:
                _scaled(partner, low, mine, own, 1, use_walsh, odd, end, eight)
            if reals.size:
                _add(re, im, reals2, _2 * partner, even, odd, need, end, xs[g] & low)
            else:
                _add(re, im, singles2, _2 * partner, even, odd, need, end, xs[g] & low)
        if reals.size:
            _put_row(reals, np.uint64(2 * block * size), re, im, end)
        else:
            _put_row(singles, np.uint64(2 * block * size), re, im, end)


def apply(
    sweeper: BlockExecutor,
    state: State,
    into: State,
    strings: list[tuple[int, int]],
    coefficients: NDArray[np.float64],
) -> None:
    """Set `into` to the sum of coefficients[t] times string t, applied to the state."""
    groups = pauli_sums.pauli_groups(strings)
    order = [t for group in groups for t in group.members]
    sizes = [len(group.members) for group in groups]
    xs = np.array([group.strings.x for group in groups], np.uint64)
    zs = np.array([strings[t][1] for t in order], np.uint64)
    phases = [1j ** ((strings[t][0] & strings[t][1]).bit_count() % 4) for t in order]
    scaled = [phase * coefficients[t] for phase, t in zip(phases, order, strict=True)]
    factors = np.array([(f.real, f.imag) for f in scaled]).reshape(-1, 2)
    needs = np.array([group.strings.need for group in groups], np.int64)
    table = PauliTable(xs, np.cumsum([0, *sizes]), needs, zs, factors)
    source, target = pauli_sums.padded(state), pauli_sums.padded(into)
    unit = min(BLOCK_QUBITS, source.num_qubits)

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, (4 << unit) + LANES)
        _apply(*target.arrays, *source.arrays, 1 << unit, table, first, last, scratch)

    sweeper.parallel_for(source.num_qubits, unit, work)
    if target is not into:
        into.amplitudes[:] = target.amplitudes[: into.amplitudes.size]


# Division of steps into passes over tiles.
#
# A tile is the 2**k amplitudes that k chosen qubits span. Factors of a tile's pass move amplitude
# only within tiles; controls and phases may be on any qubit. Factors that share no qubit, or share
# it only diagonally, may be reordered. The order depends on the structure alone.

TILE_QUBITS = 13  # 2**13 amplitudes in double are 128 kB: second cache
LOW_QUBITS = 5  # always in the tile, so that memory accesses are 512 consecutive bytes

# Columns of a placed step after those of `gate_kernels`: it acts in tiles whose base has VALUE
# under OUTER; STEP is its row in the list of steps.
OUTER, VALUE, STEP = range(4, 7)

_WINDOW = 1000  # skipped steps before a pass is closed: keeps planning linear


@device_function
def compress(word, tile):  # type: ignore[no-untyped-def]
    """Bits of `word` at the positions of `tile`, packed together."""
    result = _0
    at = _0
    while tile:
        low = tile & (~tile + _1)
        if word & low:
            result |= _1 << at
        at += _1
        tile ^= low
    return result


@device_function
def _count(word):  # type: ignore[no-untyped-def]
    total = 0
    while word:
        word &= word - _1
        total += 1
    return total


@kernel("WORDS2 INT INT WORD I64 I64 WORDS2 WORDS2 -> INT", group="gradient")
def arrange(ints, n, room, low, next_, starts, tiles, placed):  # type: ignore[no-untyped-def]
    """Divide steps into passes; returns the number of passes. Pass p is rows starts[p] .. starts[p
    + 1] - 1 of `placed`, with the qubits tiles[p, 0]. `next_`: scratch, int64 [steps + 1]."""
    steps = ints.shape[0]
    everything = (_1 << np.uint64(n)) - _1
    for k in range(steps + 1):
        next_[k] = k  # a list of the steps not yet taken: next_[k + 1] follows k
    out = 0
    passes = 0
    while next_[0] < steps:
        tile = low & everything
        moved = seen = _0  # qubits of skipped steps: moved along; acted on
        left = 0
        before = -1
        k = next_[0]
        starts[passes] = out
        while k < steps and (moved != everything or not n) and left < _WINDOW:
            mask = ints[k, MASK]
            moves = ints[k, ZERO] ^ ints[k, ONE]
            fits = not (moves & seen) and not (mask & moved)
            if fits and moves & ~tile:
                fits = _count(tile | moves) <= room
            if fits:
                tile |= moves
                placed[out, STEP] = k
                out += 1
                next_[before + 1] = next_[k + 1]
            else:
                moved |= moves
                seen |= mask
                left += 1
                before = k
            k = next_[k + 1]
        for q in range(n):
            if _count(tile) < room:
                tile |= _1 << np.uint64(q)
        tiles[passes, 0] = tile
        passes += 1
    starts[passes] = out
    for p in range(passes):
        tile = tiles[p, 0]
        for r in range(starts[p], starts[p + 1]):
            k = placed[r, STEP]
            placed[r, KIND] = ints[k, KIND]
            placed[r, MASK] = compress(ints[k, MASK], tile)
            placed[r, ZERO] = compress(ints[k, ZERO], tile)
            placed[r, ONE] = compress(ints[k, ONE], tile)
            placed[r, OUTER] = ints[k, MASK] & ~tile
            placed[r, VALUE] = ints[k, ZERO] & ~tile
    return passes
