"""The steps of a pass over a small state, tile by tile; see `statevector.passes`."""

from __future__ import annotations

import numpy as np

from simulators.jit import I64, INT, REALS, REALS2, SINGLES, WORD, WORDS2, kernel
from simulators.statevector.amplitudes import apply
from simulators.statevector.state import load, spread, store

_1 = np.uint64(1)


@kernel(REALS, SINGLES, INT, WORD, WORDS2, INT, INT, REALS2, INT, INT, I64, REALS, group="deferred")
def sweep(  # type: ignore[no-untyped-def]
    reals, singles, n, tile, placed, first_step, last_step, floats, first, last, control, scratch
):
    """Apply steps first_step .. last_step - 1 of a pass to tiles first .. last - 1.

    `scratch`: float64 [2 * tile size], and 2 * LANES at least; the control flag is looked at before
    each step.
    """
    room = scratch.size // 2
    re, im = scratch[:room], scratch[room:]
    size = min(room, np.int64(1) << n)
    stretch = np.int64(~tile & (tile + _1))  # the tile's lowest qubits, without a gap
    if stretch > size or stretch == 0:
        stretch = np.int64(size)
    outside = ((_1 << np.uint64(n)) - _1) & ~tile
    above = tile & ~np.uint64(stretch - 1)
    for number in range(first, last):
        base = spread(np.uint64(number), outside)
        for at in range(0, size, stretch):
            start = np.int64(base | spread(np.uint64(at // stretch), above))
            load(reals, singles, start, stretch, re, im, at)
        for s in range(first_step, last_step):
            if control[0]:
                return
            if base & placed[s, 4] == placed[s, 5]:
                kind, mask, zero, one = placed[s, 0], placed[s, 1], placed[s, 2], placed[s, 3]
                apply(re, im, size, kind, mask, zero, one, floats, np.int64(placed[s, 6]))
        for at in range(0, size, stretch):
            start = np.int64(base | spread(np.uint64(at // stretch), above))
            store(reals, singles, start, stretch, re, im, at)
