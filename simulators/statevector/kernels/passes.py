"""The steps of operations, and their division into passes; see `statevector.passes`."""

from __future__ import annotations

import numpy as np

from simulators.circuit.gates import FIRST_GATE
from simulators.jit import F64, I64, INT, NAMES, REALS2, U16, WORD, WORDS2, kernel, part
from simulators.statevector.passes import KIND, MASK, ONE, OUTER, STEP, VALUE, ZERO
from simulators.statevector.steps import place

_WINDOW = 1000  # steps left behind before a pass is closed: keeps planning linear
_0 = np.uint64(0)
_1 = np.uint64(1)


@kernel(NAMES, U16, U16, F64, INT, INT, INT, INT, WORDS2, REALS2, returns=INT, group="deferred")
def place_all(  # type: ignore[no-untyped-def]
    rows, ops, qubits, params, first, last, at_qubit, at_param, ints, floats
):
    """The steps of operations first .. last - 1, one after the other; returns how many."""
    row = first - first
    for k in range(first, last):
        op = ops[k]
        if rows[op, 0] >= FIRST_GATE:
            row = place(
                rows[op, 0], qubits, at_qubit, rows[op, 1], params, at_param, ints, floats, row
            )
        at_qubit += rows[op, 1]
        at_param += rows[op, 3]
    return row


@part
def compress(word, tile):  # type: ignore[no-untyped-def]
    """The bits of `word` at the positions of `tile`, moved together."""
    result = _0
    at = _0
    while tile:
        low = tile & (~tile + _1)
        if word & low:
            result |= _1 << at
        at += _1
        tile ^= low
    return result


@part
def _count(word):  # type: ignore[no-untyped-def]
    total = 0
    while word:
        word &= word - _1
        total += 1
    return total


@kernel(WORDS2, INT, INT, WORD, I64, I64, WORDS2, WORDS2, returns=INT, group="deferred")
def arrange(ints, n, room, low, next_, starts, tiles, placed):  # type: ignore[no-untyped-def]
    """Divide steps into passes; returns how many.

    Pass p is rows starts[p] .. starts[p + 1] - 1 of `placed` (int columns above; STEP is the row of
    `ints` it came from), with the qubits tiles[p, 0]. `next_`: scratch, int64 [steps + 1].
    """
    steps = ints.shape[0]
    everything = (_1 << np.uint64(n)) - _1
    for k in range(steps + 1):
        next_[k] = k  # a list of the steps not yet taken: next_[k + 1] follows k
    out = 0
    passes = 0
    while next_[0] < steps:
        tile = low & everything
        moved = seen = _0  # qubits on which a step left behind moves amplitude; acts at all
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
