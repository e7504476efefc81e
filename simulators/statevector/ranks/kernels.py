"""What one rank computes that one process alone would not: a pass of gates at other positions.

Masks of qubits become masks of positions. Invariant: an amplitude goes through the very steps, in
the very order, that it would go through in one process, so its bits are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.jit import I64, INT, REALS, SINGLES, U64, WORD, WORDS2, kernel, part
from simulators.statevector.passes import (
    KIND,
    MASK,
    ONE,
    OUTER,
    STEP,
    TILE_QUBITS,
    VALUE,
    ZERO,
    Passes,
    compress,
)
from simulators.statevector.state import State, Sweeper, spread

_0, _1 = np.uint64(0), np.uint64(1)


@kernel(WORDS2, I64, U64, U64)
def _moved(placed, starts, tiles, masks):  # type: ignore[no-untyped-def]
    """masks[p] = the qubits on which pass p moves amplitude."""
    for p in range(tiles.size):
        found = _0
        for row in range(starts[p], starts[p + 1]):
            found |= placed[row, ZERO] ^ placed[row, ONE]
        masks[p] = spread(found, tiles[p])


@part
def _permuted(word, positions):  # type: ignore[no-untyped-def]
    result = _0
    for qubit in range(positions.size):
        if word >> np.uint64(qubit) & _1:
            result |= _1 << np.uint64(positions[qubit])
    return result


@kernel(WORDS2, INT, INT, WORD, WORD, I64, INT, INT, WORDS2, returns=INT)
def _relocate(  # type: ignore[no-untyped-def]
    placed, first, last, old, tile, positions, num_local, rank, found
):
    """Rows first .. last - 1, of the tile `old` of qubits, for the tile `tile` of positions; those
    alone that do anything in this rank. Returns how many."""
    here = (_1 << np.uint64(num_local)) - _1
    there = np.uint64(rank) << np.uint64(num_local)
    out = first - first
    for row in range(first, last):
        mask = _permuted(spread(placed[row, MASK], old) | placed[row, OUTER], positions)
        zero = _permuted(spread(placed[row, ZERO], old) | placed[row, VALUE], positions)
        one = _permuted(spread(placed[row, ONE], old) | placed[row, VALUE], positions)
        if (there ^ zero) & mask & ~here:
            continue
        mask &= here
        zero &= here
        one &= here
        found[out, KIND] = placed[row, KIND]
        found[out, MASK] = compress(mask, tile)
        found[out, ZERO] = compress(zero, tile)
        found[out, ONE] = compress(one, tile)
        found[out, OUTER] = mask & ~tile
        found[out, VALUE] = zero & ~tile
        found[out, STEP] = placed[row, STEP]
        out += 1
    return out


def moved(passes: Passes) -> list[int]:
    """The qubits on which each pass moves amplitude, as masks: they must be local."""
    masks = np.empty(passes.tiles.size, np.uint64)
    _moved(passes.placed, passes.starts, passes.tiles, masks)
    found: list[int] = masks.tolist()
    return found


def relocated(
    passes: Passes, number: int, positions: list[int], moves: int, num_local: int, rank: int
) -> tuple[np.uint64, NDArray[np.uint64]]:
    """The tile of one pass, and its steps in one rank; `moves`: positions that must be in it."""
    tile = moves
    lowest = (p for p in range(num_local) if not moves >> p & 1)
    while tile.bit_count() < min(TILE_QUBITS, num_local):
        tile |= 1 << next(lowest)
    first, last = passes.starts[number : number + 2].tolist()
    found = np.empty((last - first, 7), np.uint64)
    count = _relocate(
        passes.placed,
        first,
        last,
        passes.tiles[number],
        tile,
        np.array(positions),
        num_local,
        rank,
        found,
    )
    return np.uint64(tile), found[:count]


@kernel(REALS, SINGLES, INT, INT, INT, INT)
def _swap(reals, singles, low, high, first, last):  # type: ignore[no-untyped-def]
    """Bits low < high of all indices change places; quadruples first .. last - 1 of amplitudes."""
    below, between = (np.int64(1) << low) - 1, (np.int64(1) << (high - 1)) - 1
    for number in range(first, last):
        base = ((number & ~below) << 1) | (number & below)
        base = ((base & ~((between << 1) | 1)) << 1) | (base & ((between << 1) | 1))
        i, j = 2 * (base | (np.int64(1) << low)), 2 * (base | (np.int64(1) << high))
        if reals.size:
            reals[i], reals[j] = reals[j], reals[i]
            reals[i + 1], reals[j + 1] = reals[j + 1], reals[i + 1]
        else:
            singles[i], singles[j] = singles[j], singles[i]
            singles[i + 1], singles[j + 1] = singles[j + 1], singles[i + 1]


def swap_local(sweeper: Sweeper, state: State, one: int, two: int) -> None:
    """Two positions of each rank change places."""
    low, high = sorted((one, two))

    def work(first: int, last: int, _number: int) -> None:
        _swap(state.reals, state.singles, low, high, first, last)

    sweeper.over(state.num_qubits, 2, work)
