"""Sums over the blocks of a state, and the projection on an outcome; see `statevector.reduce`."""

from __future__ import annotations

import numpy as np

from simulators.jit import I64, INT, REAL, REALS, REALS2, SINGLES, kernel
from simulators.statevector.reduce import NORM, ODDS, OVERLAP, SKETCH
from simulators.statevector.state import load


@kernel(
    INT,
    REALS,
    SINGLES,
    REALS,
    SINGLES,
    I64,
    INT,
    INT,
    INT,
    REAL,
    REAL,
    REALS,
    REALS2,
    group="deferred",
)
def reduce(  # type: ignore[no-untyped-def]
    what, reals, singles, reals2, singles2, numbers, qubit, first, last, turn_x, turn_y, scratch,
    sums,
):  # fmt: skip
    """Fill rows first .. last - 1 of `sums`; `scratch`: float64 [4 * block].

    `numbers`: where each block stands in the whole state.

    NORM: (sum |a|^2, 0). ODDS: the same for the qubit 0, and 1. OVERLAP: <a|b>. DISTANCE:
    (sum |a - turn b|^2, 0). SKETCH: the overlap of a fixed pseudo-random vector with a.
    """
    size = scratch.size // 4
    re, im = scratch[:size], scratch[size : 2 * size]
    re2, im2 = scratch[2 * size : 3 * size], scratch[3 * size :]
    zero = np.int64(0)
    for block in range(first, last):
        start = block * size
        base = numbers[block] * size
        load(reals, singles, start, size, re, im, zero)
        x = y = 0.0
        if what == NORM:
            for k in range(size):
                x += re[k] * re[k] + im[k] * im[k]
        elif what == ODDS:
            for k in range(size):
                p = re[k] * re[k] + im[k] * im[k]
                if ((base + k) >> qubit) & 1:
                    y += p
                else:
                    x += p
        elif what == SKETCH:
            word = np.uint64(base) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
            for k in range(size):
                word = word * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                u = np.float64(np.int64(word >> np.uint64(33))) * 2.0**-31 - 0.5
                v = np.float64(np.int64(word & np.uint64(0x7FFFFFFF))) * 2.0**-31 - 0.5
                x += re[k] * u - im[k] * v
                y += re[k] * v + im[k] * u
        else:
            load(reals2, singles2, start, size, re2, im2, zero)
            if what == OVERLAP:
                for k in range(size):
                    x += re[k] * re2[k] + im[k] * im2[k]
                    y += re[k] * im2[k] - im[k] * re2[k]
            else:
                for k in range(size):
                    u = re[k] - turn_x * re2[k] + turn_y * im2[k]
                    v = im[k] - turn_x * im2[k] - turn_y * re2[k]
                    x += u * u + v * v
        sums[block, 0] = x
        sums[block, 1] = y


@kernel(REALS, SINGLES, REALS, SINGLES, INT, INT, REAL, INT, INT, INT, group="deferred")
def project(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, qubit, outcome, factor, move, first, last
):
    """Pairs first .. last - 1: into the second state, the part with the outcome times `factor`.

    `move`: the qubit ends in |0>, else in the outcome. Both states may be the same one.
    """
    low = (np.int64(1) << qubit) - 1
    target = 0 if move else outcome
    for pair in range(first, last):
        i = ((pair & ~low) << 1) | (pair & low)
        source = 2 * (i | (outcome << qubit))
        kept = 2 * (i | (target << qubit))
        other = 2 * (i | ((1 - target) << qubit))
        if reals.size:
            x, y = reals[source] * factor, reals[source + 1] * factor
            reals2[other] = reals2[other + 1] = 0.0
            reals2[kept], reals2[kept + 1] = x, y
        else:
            x, y = singles[source] * factor, singles[source + 1] * factor
            singles2[other] = singles2[other + 1] = 0.0
            singles2[kept], singles2[kept + 1] = x, y
