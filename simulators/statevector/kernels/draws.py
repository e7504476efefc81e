"""Where draws fall in a small state, and exact distributions; see `statevector.draw`."""

from __future__ import annotations

import numpy as np

from simulators.jit import I64, INT, REALS, SINGLES, kernel
from simulators.statevector.state import load


@kernel(REALS, SINGLES, I64, INT, INT, REALS, I64, REALS, I64, REALS, group="deferred")
def walk(reals, singles, numbers, first, last, edges, begins, draws, indices, scratch):  # type: ignore[no-untyped-def]
    """Indices of the ascending `draws`: those of block b are begins[b] .. begins[b + 1] - 1.

    `numbers`: which block of the whole state each block is.
    """
    size = scratch.size // 2
    re, im = scratch[:size], scratch[size:]
    zero = np.int64(0)
    for block in range(first, last):
        number = numbers[block]
        if begins[number] == begins[number + 1]:
            continue
        load(reals, singles, block * size, size, re, im, zero)
        k = 0
        edge = 0.0 + (re[0] * re[0] + im[0] * im[0])
        for s in range(begins[number], begins[number + 1]):
            while edges[number] + edge <= draws[s] and k < size - 1:
                k += 1
                edge += re[k] * re[k] + im[k] * im[k]
            indices[s] = number * size + k


@kernel(REALS, SINGLES, I64, INT, INT, I64, I64, REALS, REALS, group="deferred")
def accumulate(reals, singles, numbers, first, last, wires, within, table, scratch):  # type: ignore[no-untyped-def]
    """table[j] += the probabilities of blocks first .. last - 1; bit k of j is qubit wires[k].

    `within`: what the bits of an amplitude's number in its block are in j.
    """
    size = scratch.size // 2
    re, im = scratch[:size], scratch[size:]
    zero = np.int64(0)
    for block in range(first, last):
        base = numbers[block] * size
        load(reals, singles, block * size, size, re, im, zero)
        high = zero
        for w in range(wires.size):
            high |= ((base >> wires[w]) & 1) << w
        for k in range(size):
            table[high | within[k]] += re[k] * re[k] + im[k] * im[k]
