"""Kernel of one symmetric splitting of a product over atoms and a diagonal interaction.

A state of n atoms, n >= 3, is one array of 2 * 2**n float64: the real parts, then the imaginary
ones. Bit b of an index is the state of one atom. The Hamiltonian

    H(t) = sum_b drive_b(t) + sum_{b<c} u_bc n_b n_c + sum_{b<c} x_bc (s+_b s-_c + h.c.)

has steps X(h / 2) exp(-i h D / 2) R exp(-i h D / 2) X'(h / 2) of length h (Strang, 1968): D is the
diagonal term, X the exchange of the pairs in order and X' in reverse, R the product of the
exponentials of the atoms. A step is symmetric in time, so its error has even powers of h alone. R
is diag . rotation . diag for each atom (`drive.py`), so that the kernel's rotations are real and
their phases join those of D.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulators.compiler import simd
from simulators.compiler.kernel import (
    INT,
    REALS,
    REALS2,
    REALS3,
    device_function,
    kernel,
    record,
)

LANES = simd.LANES
LEAST_ATOMS = 3  # 2**3 amplitudes are one vector
TILE_ATOMS = 12  # lowest bits, which are rotated in one pass
_GROUP = 8  # bits of a further pass
SCRATCH = 2**13  # float64: of such a pass, in the nearest cache


@record
class Steps(NamedTuple):
    """Steps of one length. Lengths are in us, rates in rad/us, angles in rad."""

    number: INT
    length_us: REALS  # [1]
    rotations: REALS3  # [number, n, 2]: cosine and sine of the rotation of each bit
    phases: REALS2  # [2 * number, n]: angle of a bit that is 1, before and after each rotation
    losses: REALS  # [n]: rate at which the amplitude of a bit that is 1 decreases
    scale: REALS  # [2]: factor of the whole state
    pairs: REALS2  # [n, n]: u, symmetric
    exchange: REALS2  # [n, n]: x, symmetric; [0, 0]: none
    table: REALS2  # [2, 2 * 2**low]: exp(-i h D) of the low bits alone, for h / 2 and for h


@device_function
def _times(re, im, u, v):  # type: ignore[no-untyped-def]
    return (
        simd.subtract_product(im, v, re * u),
        simd.add_product(im, u, re * v),
    )


@device_function
def _diagonal_and_lanes(source, state, steps, place, low, high, rows):  # type: ignore[no-untyped-def]
    """Multiply a tile of `source` by its phases, and rotate its three lowest bits, into `state`.
    `place`: see `_pass`. `high`: value of the bits above the tile; `rows`: scratch."""
    k, merged, turned = place
    at = high << low
    size, half, n = 1 << low, state.size // 2, steps.phases.shape[1]
    span = steps.length_us[0] * (1.0 if merged else 0.5)
    angle = 0.0
    decay = 0.0
    for b in range(low, n):
        if high >> (b - low) & 1:
            angle += _phase(steps, place, b)
            decay += steps.losses[b]
            for c in range(low, b):
                if high >> (c - low) & 1:
                    angle -= span * steps.pairs[b, c]
    cosine, sine = simd.cosine_sine(angle)
    size_of = np.exp(-span * decay) if decay else 1.0
    if k == steps.number:
        u = cosine * steps.scale[0] - sine * steps.scale[1]
        sine = cosine * steps.scale[1] + sine * steps.scale[0]
        cosine = u
    half_rows = size // LANES
    rows[0], rows[half_rows] = cosine * size_of, sine * size_of
    lanes_re, lanes_im = simd.splat(1.0), simd.splat(0.0)
    for b in range(low):
        angle = _phase(steps, place, b)
        for c in range(low, n):
            if high >> (c - low) & 1:
                angle -= span * steps.pairs[b, c]
        u, v = simd.cosine_sine(angle)
        if steps.losses[b]:
            size_of = np.exp(-span * steps.losses[b])
            u, v = u * size_of, v * size_of
        if b < LEAST_ATOMS:
            chosen = simd.where(np.uint64(1 << b), np.uint64(1 << b))
            x, y = _times(lanes_re, lanes_im, simd.splat(u), simd.splat(v))
            lanes_re = simd.choose(chosen, x, lanes_re)
            lanes_im = simd.choose(chosen, y, lanes_im)
        else:
            width = 1 << (b - LEAST_ATOMS)
            for r in range(width):
                x, y = rows[r], rows[half_rows + r]
                rows[width + r] = x * u - y * v
                rows[half_rows + width + r] = x * v + y * u
    c0, c1, c2 = simd.splat(1.0), simd.splat(1.0), simd.splat(1.0)
    s0, s1, s2 = simd.splat(0.0), simd.splat(0.0), simd.splat(0.0)
    if turned:
        turns = steps.rotations
        c0, c1, c2 = (
            simd.splat(turns[k, 0, 0]),
            simd.splat(turns[k, 1, 0]),
            simd.splat(turns[k, 2, 0]),
        )
        s0 = _signed(turns[k, 0, 1], 1)
        s1 = _signed(turns[k, 1, 1], 2)
        s2 = _signed(turns[k, 2, 1], 4)
    table = steps.table[1 if merged else 0]
    for r in range(half_rows):
        j = r * LANES
        f, g = _times(lanes_re, lanes_im, simd.splat(rows[r]), simd.splat(rows[half_rows + r]))
        f, g = _times(f, g, simd.load(table, j), simd.load(table, size + j))
        x, y = _times(simd.load(source, at + j), simd.load(source, half + at + j), f, g)
        if turned:
            x = simd.add_product(s0, simd.exchange_1(x), c0 * x)
            y = simd.add_product(s0, simd.exchange_1(y), c0 * y)
            x = simd.add_product(s1, simd.exchange_2(x), c1 * x)
            y = simd.add_product(s1, simd.exchange_2(y), c1 * y)
            x = simd.add_product(s2, simd.exchange_4(x), c2 * x)
            y = simd.add_product(s2, simd.exchange_4(y), c2 * y)
        simd.store(state, at + j, x)
        simd.store(state, half + at + j, y)


@device_function
def _phase(steps, place, b):  # type: ignore[no-untyped-def]
    """Angle of a bit that is 1."""
    k, merged, turned = place
    angle = steps.phases[2 * k, b] if turned else steps.phases[2 * k - 1, b]
    return angle + steps.phases[2 * k - 1, b] if merged else angle


@device_function
def _signed(sine, bit):  # type: ignore[no-untyped-def]
    """Vector of `sine`, negative in the lanes whose bit is 0."""
    chosen = simd.where(np.uint64(bit), np.uint64(bit))
    return simd.choose(chosen, simd.splat(sine), simd.splat(-sine))


@device_function
def _rotate(numbers, at, size, stride, c, s):  # type: ignore[no-untyped-def]
    """Rotate one bit of a block of real numbers; `stride`: distance of the two, at least LANES."""
    cosine, sine = simd.splat(c), simd.splat(s)
    for i in range(at, at + size, 2 * stride):
        for j in range(i, i + stride, LANES):
            x, y = simd.load(numbers, j), simd.load(numbers, j + stride)
            simd.store(numbers, j, simd.subtract_product(sine, y, cosine * x))
            simd.store(numbers, j + stride, simd.add_product(sine, x, cosine * y))


@device_function
def _rotate_two(numbers, at, size, stride, c, s, d, t):  # type: ignore[no-untyped-def]
    """Rotate two neighbouring bits: (c, s) that of `stride`, (d, t) that of 2 * stride."""
    cosine, sine = simd.splat(c), simd.splat(s)
    cosine2, sine2 = simd.splat(d), simd.splat(t)
    for i in range(at, at + size, 4 * stride):
        for j in range(i, i + stride, LANES):
            x0, x1 = simd.load(numbers, j), simd.load(numbers, j + stride)
            x2, x3 = simd.load(numbers, j + 2 * stride), simd.load(numbers, j + 3 * stride)
            y0 = simd.subtract_product(sine, x1, cosine * x0)
            y1 = simd.add_product(sine, x0, cosine * x1)
            y2 = simd.subtract_product(sine, x3, cosine * x2)
            y3 = simd.add_product(sine, x2, cosine * x3)
            simd.store(numbers, j, simd.subtract_product(sine2, y2, cosine2 * y0))
            simd.store(numbers, j + stride, simd.subtract_product(sine2, y3, cosine2 * y1))
            simd.store(numbers, j + 2 * stride, simd.add_product(sine2, y0, cosine2 * y2))
            simd.store(numbers, j + 3 * stride, simd.add_product(sine2, y1, cosine2 * y3))


@device_function
def _rotate_bits(numbers, at, size, stride, turns, first, last):  # type: ignore[no-untyped-def]
    """Rotate the bits first .. last - 1 of a block, in which `stride` is the distance of the
    first."""
    b = first
    while b + 1 < last:
        c, s, d, t = turns[b, 0], turns[b, 1], turns[b + 1, 0], turns[b + 1, 1]
        _rotate_two(numbers, at, size, stride, c, s, d, t)
        stride *= 4
        b += 2
    if b < last:
        _rotate(numbers, at, size, stride, turns[b, 0], turns[b, 1])


@device_function
def _rotate_group(state, first, last, turns, scratch, control):  # type: ignore[no-untyped-def]
    """Rotate the bits first .. last - 1 of the whole state, which are above a tile: rows of all
    values of these bits are copied to the scratch buffer, as many columns as it holds."""
    half, stride = state.size // 2, 1 << first
    rows = 1 << (last - first)
    width = min(stride, SCRATCH // (2 * rows))
    row = 2 * width  # real parts, then imaginary ones
    for block in range(0, half, rows * stride):
        for column in range(block, block + stride, width):
            if control[0]:
                return
            for r in range(rows):
                j = column + r * stride
                for k in range(0, width, LANES):
                    simd.store(scratch, r * row + k, simd.load(state, j + k))
                    simd.store(scratch, r * row + width + k, simd.load(state, half + j + k))
            _rotate_bits(scratch, 0, rows * row, row, turns, first, last)
            for r in range(rows):
                j = column + r * stride
                for k in range(0, width, LANES):
                    simd.store(state, j + k, simd.load(scratch, r * row + k))
                    simd.store(state, half + j + k, simd.load(scratch, r * row + width + k))


@device_function
def _exchange_pair(state, b, c, cosine, sine):  # type: ignore[no-untyped-def]
    """exp(-i angle (s+ s- + h.c.)) of the bits b > c."""
    half = state.size // 2
    one, other = 1 << b, 1 << c
    for i in range(0, half, 2 * one):
        for j in range(i, i + one, 2 * other):
            for k in range(j, j + other):
                p, q = k + one, k + other
                x, y, u, v = state[p], state[half + p], state[q], state[half + q]
                state[p] = cosine * x + sine * v
                state[half + p] = cosine * y - sine * u
                state[q] = cosine * u + sine * y
                state[half + q] = cosine * v - sine * x


@device_function
def _exchange_pairs(state, exchange, span, backwards, control):  # type: ignore[no-untyped-def]
    n = exchange.shape[0]
    for number in range(n * n):
        place = n * n - 1 - number if backwards else number
        b, c = place // n, place % n
        if c < b and exchange[b, c] and not control[0]:
            cosine, sine = simd.cosine_sine(span * exchange[b, c])
            _exchange_pair(state, b, c, cosine, sine)


@device_function
def _pass(source, state, steps, place, scratch, control):  # type: ignore[no-untyped-def]
    """Multiply by the phases of a `place`, and rotate: (k, merged, turned) is that before the
    rotation k, with the phases after the rotation k - 1 if it is merged; if it is not turned, that
    after the rotation k - 1 alone."""
    k, _, turned = place
    n = steps.phases.shape[1]
    low = min(n, TILE_ATOMS)
    half, tile = state.size // 2, 1 << low
    for high in range(half >> low):
        if control[0]:
            return
        _diagonal_and_lanes(source, state, steps, place, low, high, scratch)
        if turned:
            for start in (high << low, half + (high << low)):
                _rotate_bits(state, start, tile, LANES, steps.rotations[k], LEAST_ATOMS, low)
    first = low
    while first < n and turned:
        last = min(n, first + _GROUP)
        _rotate_group(state, first, last, steps.rotations[k], scratch, control)
        first = last


@kernel("REALS REALS Steps REALS I64", group="rydberg")
def run_steps(source, state, steps, scratch, control):  # type: ignore[no-untyped-def]
    """Apply the steps to the state `source`, and write the result to `state`; both may be one.
    Incomplete if the control flag is set meanwhile."""
    number = steps.number
    if steps.exchange.size == 0:
        for k in range(number + 1):
            place = k, 0 < k < number, k < number
            _pass(source if k == 0 else state, state, steps, place, scratch, control)
        return
    for j in range(0, state.size, LANES):
        simd.store(state, j, simd.load(source, j))
    span = 0.5 * steps.length_us[0]
    for k in range(number):
        _exchange_pairs(state, steps.exchange, span, False, control)
        _pass(state, state, steps, (k, False, True), scratch, control)
        _pass(state, state, steps, (k + 1, False, False), scratch, control)
        _exchange_pairs(state, steps.exchange, span, True, control)


@kernel("REALS REALS REALS -> REAL", group="rydberg")
def extrapolate(one, two, three):  # type: ignore[no-untyped-def]
    """Set `three` to the extrapolation to a step of zero of states after one, two and three steps;
    return its distance from that of the last two states, squared."""
    a, b, c = simd.splat(1 / 24), simd.splat(-16 / 15), simd.splat(81 / 40)
    d, e = simd.splat(-4 / 15), simd.splat(9 / 40)
    total = 0.0
    sums = simd.splat(0.0)
    for j in range(0, one.size, LANES):
        x, y, z = simd.load(one, j), simd.load(two, j), simd.load(three, j)
        first = a * x
        difference = simd.add_product(e, z, simd.add_product(d, y, first))
        sums = simd.add_product(difference, difference, sums)
        simd.store(three, j, simd.add_product(c, z, simd.add_product(b, y, first)))
    simd.store(one, 0, sums)
    for j in range(LANES):
        total += one[j]
    return total
