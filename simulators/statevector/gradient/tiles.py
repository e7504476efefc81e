"""Division of steps into passes over tiles.

A tile is the 2**k amplitudes that k chosen qubits span. Factors of a tile's pass move amplitude
only within tiles; controls and phases may be on any qubit. Factors that share no qubit, or share it
only diagonally, may be reordered. The order depends on the structure alone.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import I64, INT, WORD, WORDS2, device_function, kernel

TILE_QUBITS = 13  # 2**13 amplitudes in double are 128 kB: second cache
LOW_QUBITS = 5  # always in the tile, so that memory accesses are 512 consecutive bytes

# Columns of a placed step.
KIND, MASK, ZERO, ONE, OUTER, VALUE, STEP = range(7)

_WINDOW = 1000  # skipped steps before a pass is closed: keeps planning linear
_0 = np.uint64(0)
_1 = np.uint64(1)


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


@kernel(WORDS2, INT, INT, WORD, I64, I64, WORDS2, WORDS2, returns=INT, group="gradient")
def arrange(ints, n, room, low, next_, starts, tiles, placed):  # type: ignore[no-untyped-def]
    """Divide steps into passes; returns the number of passes.

    Pass p is rows starts[p] .. starts[p + 1] - 1 of `placed` (int columns above; STEP is the row of
    `ints` of its origin), with the qubits tiles[p, 0]. `next_`: scratch, int64 [steps + 1].
    """
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
            mask = ints[k, 1]
            moves = ints[k, 2] ^ ints[k, 3]
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
            placed[r, KIND] = ints[k, 0]
            placed[r, MASK] = compress(ints[k, 1], tile)
            placed[r, ZERO] = compress(ints[k, 2], tile)
            placed[r, ONE] = compress(ints[k, 3], tile)
            placed[r, OUTER] = ints[k, 1] & ~tile
            placed[r, VALUE] = ints[k, 2] & ~tile
    return passes
