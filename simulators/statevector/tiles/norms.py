"""Norms of a state's rows, and basis states of sorted uniforms, in kernels of both precisions.

The norm of a row has the same bits whether a sweep wrote it or it is computed afterwards. Sums of
norms run over blocks, row by row, so they do not depend on the number of threads or ranks.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import I64, INT, REALS, REALS2, device_function, kernel
from simulators.statevector.planning.tables import LANES
from simulators.statevector.tiles import row_ops as rows


@device_function
def fill(amplitudes, first, last, norms):  # type: ignore[no-untyped-def]
    """Fill norms[r] with the sum of the squares of row r, for rows first .. last - 1."""
    for row in range(first, last):
        norms[row] = rows.norm_stored(amplitudes, 2 * LANES * row)


@kernel(REALS, INT, INT, INT, REALS2, group="wide")
def add_up(norms, rows_each, first, last, sums):  # type: ignore[no-untyped-def]
    """Fill sums[b, 0] with the sum of the norms of block b, for blocks first .. last - 1."""
    for block in range(first, last):
        result = 0.0
        for row in range(block * rows_each, (block + 1) * rows_each):
            result += norms[row]
        sums[block, 0] = result
        sums[block, 1] = 0.0


@device_function
def _square(amplitudes, at):  # type: ignore[no-untyped-def]
    x, y = np.float64(amplitudes[at]), np.float64(amplitudes[at + 1])
    return x * x + y * y


@device_function
def locate(amplitudes, norms, rows_each, places, first, last, edges, begins, draws, indices):  # type: ignore[no-untyped-def]
    """Fill indices[s] with the basis state of draws[s], for ascending draws of blocks first .. last
    - 1: block b of the whole state has draws begins[b] .. begins[b + 1] - 1, and begins at
    edges[b].

    A draw that rounding moves beyond the end of its row takes the last lane that is not 0.
    """
    for block in range(first, last):
        number = places[block]
        if begins[number] == begins[number + 1]:
            continue
        edge = edges[number]
        first_row = row = block * rows_each
        end = row + rows_each - 1
        while end > row and norms[end] == 0.0:
            end -= 1
        before = 0.0
        for s in range(begins[number], begins[number + 1]):  # draws are far apart in memory
            while row < end and edge + (before + norms[row]) <= draws[s]:
                before += norms[row]
                row += 1
            rows.prefetch_row(amplitudes, 2 * LANES * row)
        row = first_row
        before = within = 0.0  # the rows before this one; the lanes before `lane`
        lane = last_lane = 0
        for s in range(begins[number], begins[number + 1]):
            while row < end and edge + (before + norms[row]) <= draws[s]:
                before += norms[row]
                row += 1
                lane = last_lane = 0
                within = 0.0
            while lane < LANES:
                weight = _square(amplitudes, 2 * (row * LANES + lane))
                if weight > 0.0:
                    last_lane = lane
                    if edge + (before + (within + weight)) > draws[s]:
                        break
                within += weight
                lane += 1
            indices[s] = ((number - block) * rows_each + row) * LANES + last_lane


@kernel(REALS, INT, I64, INT, INT, INT, REALS2, group="wide")
def part_up(norms, rows_each, places, bit, first, last, sums):  # type: ignore[no-untyped-def]
    """Fill sums[b] with the sums of the norms of block b's rows that have a 0 and that have a 1 at
    `bit` of their number in the whole state; places[b]: index of the block there."""
    for block in range(first, last):
        zeros = ones = 0.0
        for k in range(rows_each):
            if (places[block] * rows_each + k) >> bit & 1:
                ones += norms[block * rows_each + k]
            else:
                zeros += norms[block * rows_each + k]
        sums[block, 0] = zeros
        sums[block, 1] = ones
