"""What is done with the rows of a tile, in loops that any processor runs: `vector_rows` says what.

Nothing here is contracted, so the last bits differ from those of the vectors; the functions and
their arguments are the same. The last rows of a tile's scratch are room to work in.
"""

from __future__ import annotations

import numpy as np

from simulators.jit import inner, part
from simulators.statevector.sweeps import LANES

_ROW = 2 * LANES
_ROOM = 8 * _ROW


@inner
def load_row(amplitudes, start, tile, row):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    for k in range(LANES):
        tile[row + k] = amplitudes[start + 2 * k]
        tile[row + LANES + k] = amplitudes[start + 2 * k + 1]


@inner
def store_row(amplitudes, start, tile, row):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    for k in range(LANES):
        amplitudes[start + 2 * k] = tile[row + k]
        amplitudes[start + 2 * k + 1] = tile[row + LANES + k]


@inner
def prefetch_row(amplitudes, start):  # type: ignore[no-untyped-def]
    """See `vector_rows`; here the processor is left alone."""


@inner
def clear_row(tile, row):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    for k in range(_ROW):
        tile[row + k] = 0.0


@inner
def norm_row(tile, row):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    found = 0.0
    for k in range(LANES):
        found += np.float64(tile[row + k]) ** 2 + np.float64(tile[row + LANES + k]) ** 2
    return found


@inner
def norm_stored(amplitudes, start):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    found = 0.0
    for k in range(start, start + _ROW, 2):
        found += np.float64(amplitudes[k]) ** 2 + np.float64(amplitudes[k + 1]) ** 2
    return found


@inner
def swap_lane(tile, row, other, lane):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    bit = 1 << lane
    for k in range(_ROW):
        if k & bit:
            value = tile[row + k]
            tile[row + k] = tile[other + (k ^ bit)]
            tile[other + (k ^ bit)] = value


@part
def _multiply(tile, order, row, a, b, c, numbers, at, width, real):  # type: ignore[no-untyped-def]
    """One row of the matrix after the other, into the room; then all of it back."""
    size = 1 << width
    room = tile.size - _ROOM
    for i in range(size):
        to = room + i * _ROW
        for k in range(_ROW):
            tile[to + k] = 0.0
        for j in range(size):
            begin = order[row | (a if j & 1 else 0) | (b if j & 2 else 0) | (c if j & 4 else 0)]
            place = i * size + j
            if real:
                u = numbers[at + place]
                for k in range(_ROW):
                    tile[to + k] += u * tile[begin + k]
            else:
                u, v = numbers[at + 2 * place], numbers[at + 2 * place + 1]
                for k in range(LANES):
                    x, y = tile[begin + k], tile[begin + LANES + k]
                    tile[to + k] += u * x - v * y
                    tile[to + LANES + k] += u * y + v * x
    for j in range(size):
        begin = order[row | (a if j & 1 else 0) | (b if j & 2 else 0) | (c if j & 4 else 0)]
        for k in range(_ROW):
            tile[begin + k] = tile[room + j * _ROW + k]


@inner
def dense_1(tile, order, row, a, b, c, numbers, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    _multiply(tile, order, row, a, b, c, numbers, at, 1, False)


@inner
def dense_2(tile, order, row, a, b, c, numbers, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    _multiply(tile, order, row, a, b, c, numbers, at, 2, False)


@inner
def dense_3(tile, order, row, a, b, c, numbers, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    _multiply(tile, order, row, a, b, c, numbers, at, 3, False)


@inner
def real_1(tile, order, row, a, b, c, numbers, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    _multiply(tile, order, row, a, b, c, numbers, at, 1, True)


@inner
def real_2(tile, order, row, a, b, c, numbers, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    _multiply(tile, order, row, a, b, c, numbers, at, 2, True)


@inner
def real_3(tile, order, row, a, b, c, numbers, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    _multiply(tile, order, row, a, b, c, numbers, at, 3, True)


@inner
def turn_row(tile, row, factors, at):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    u, v = factors[at], factors[at + 1]
    for k in range(LANES):
        x, y = tile[row + k], tile[row + LANES + k]
        tile[row + k] = x * u - y * v
        tile[row + LANES + k] = x * v + y * u


@inner
def turn_lanes(tile, row, factors, at, table, start):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    u, v = factors[at], factors[at + 1]
    for k in range(LANES):
        c, d = table[start + k], table[start + LANES + k]
        p, q = c * u - d * v, c * v + d * u
        x, y = tile[row + k], tile[row + LANES + k]
        tile[row + k] = x * p - y * q
        tile[row + LANES + k] = x * q + y * p


@inner
def scale_pairs(into, to, one, first, two, second, count):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    u, v = two[second], two[second + 1]
    for k in range(0, count, 2):
        x, y = one[first + k], one[first + k + 1]
        into[to + k] = x * u - y * v
        into[to + k + 1] = x * v + y * u


@inner
def multiply_pairs(into, to, one, first, count):  # type: ignore[no-untyped-def]
    """See `vector_rows`."""
    for k in range(0, count, 2):
        u, v = one[first + k], one[first + k + 1]
        x, y = into[to + k], into[to + k + 1]
        into[to + k] = x * u - y * v
        into[to + k + 1] = x * v + y * u
