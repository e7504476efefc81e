"""A matrix times the amplitudes that some qubits span; see `statevector.dense`."""

from __future__ import annotations

import numpy as np

from simulators.jit import I64, INT, REALS, SINGLES, kernel

_LOOKS = 1 << 12  # numbers of a matrix that are worked through between two looks at the control


@kernel(REALS, SINGLES, I64, I64, REALS, INT, INT, I64, REALS, group="deferred")
def multiply(  # type: ignore[no-untyped-def]
    reals, singles, wires, offsets, columns, first, last, control, scratch
):
    """Units first .. last - 1. `wires`: ascending; `columns`: the matrix column by column, real
    and imaginary parts of each column one after the other; `scratch`: float64 [4 * 2**k]."""
    size = offsets.size
    re, im = scratch[:size], scratch[size : 2 * size]
    out_re, out_im = scratch[2 * size : 3 * size], scratch[3 * size :]
    looks = max(1, _LOOKS // (size * size))
    for unit in range(first, last):
        if (unit - first) % looks == 0 and control[0]:
            return
        base = unit
        for w in range(wires.size):
            low = (np.int64(1) << wires[w]) - 1
            base = ((base & ~low) << 1) | (base & low)
        for j in range(size):
            at = 2 * (base + offsets[j])
            if reals.size:
                re[j], im[j] = reals[at], reals[at + 1]
            else:
                re[j], im[j] = singles[at], singles[at + 1]
            out_re[j] = out_im[j] = 0.0
        for j in range(size):
            x, y = re[j], im[j]
            if x == 0.0 and y == 0.0:
                continue
            start = 2 * size * j
            for i in range(size):
                u, v = columns[start + i], columns[start + size + i]
                out_re[i] += u * x - v * y
                out_im[i] += u * y + v * x
        for j in range(size):
            at = 2 * (base + offsets[j])
            if reals.size:
                reals[at], reals[at + 1] = out_re[j], out_im[j]
            else:
                singles[at], singles[at + 1] = out_re[j], out_im[j]
