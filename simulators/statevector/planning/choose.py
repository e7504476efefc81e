"""Which wires a pass has in its tile, and which blocks it does.

Blocks that share no wire, or share it only diagonally, may change places; so a pass may take a
block if no block that is left behind stands in its way. A tile grows wire by wire towards the most
work for what the pass costs: its own sweep, over the part of the state that is not 0.
"""

from __future__ import annotations

from simulators.circuit.fuse import LOOKS, MOVES, SWEEP
from simulators.circuit.masks import count
from simulators.jit import part
from simulators.statevector.planning.written import AFTER, TAKEN

_START = 3e4  # amplitudes that are swept in the time in which a pass is planned and begun
_WINDOW = 1000  # blocks left behind before no more are looked at: keeps planning linear


@part
def scan(blocks, work, after, size, tile, everything, candidates):  # type: ignore[no-untyped-def]
    """The work that a pass with this tile would take, and how many ways there are to widen it.

    `after`: a list of the blocks not yet taken, after[k + 1] follows k. `candidates`: what blocks
    that could be taken lack.
    """
    moved = seen = left = found = 0
    total = 0.0
    k = after[0]
    while k < size and moved != everything and left < _WINDOW:
        moves = blocks[k, MOVES]
        mask = moves | blocks[k, LOOKS]
        fits = not (moves & seen) and not (mask & moved)
        lacks = moves & ~tile
        if fits and not lacks:
            total += work[k]
        else:
            if fits and found < candidates.size:
                known = False
                for c in range(found):
                    known = known or candidates[c] == lacks
                if not known:
                    candidates[found] = lacks
                    found += 1
            moved |= moves
            seen |= mask
            left += 1
        k = after[k + 1]
    return total, found


@part
def _worth(total, wires, width):  # type: ignore[no-untyped-def]
    """Work done for what the pass costs; `wires`: those along which something is not 0."""
    amplitudes = 2.0 ** max(wires, width)
    return total / ((SWEEP + total) * amplitudes + SWEEP * _START)


@part
def choose(  # type: ignore[no-untyped-def]
    blocks, work, after, size, lanes, width, live, num_wires, candidates, spare
):
    """The tile of the next pass: `lanes`, and what work is gained by; not filled up."""
    everything = (1 << num_wires) - 1
    tile = best = lanes
    total, found = scan(blocks, work, after, size, tile, everything, candidates)
    top = _worth(total, count(live | tile), width)
    while found and count(tile) < width:
        wide = max(count(live | tile), width)
        gain = -1.0
        chosen = tile
        for c in range(found):
            wider = tile | candidates[c]
            more = count(wider) - count(tile)
            if more + count(tile) > width:
                continue
            reached, _ = scan(blocks, work, after, size, wider, everything, spare)
            rate = (reached - total) / more
            rate /= 2.0 ** (max(count(live | wider), width) - wide)
            if rate > gain:
                gain = rate
                chosen = wider
        if chosen == tile:
            break
        tile = chosen
        total, found = scan(blocks, work, after, size, tile, everything, candidates)
        worth = _worth(total, count(live | tile), width)
        if worth >= top:
            top = worth
            best = tile
    return best


@part
def take(blocks, size, tile, everything, notes):  # type: ignore[no-untyped-def]
    """Take what a pass with this tile does, in order, off the list; returns how many blocks."""
    after, taken = notes[AFTER], notes[TAKEN]
    moved = seen = left = found = 0
    before = -1
    k = after[0]
    while k < size and moved != everything and left < _WINDOW:
        moves = blocks[k, MOVES]
        mask = moves | blocks[k, LOOKS]
        if not (moves & seen) and not (mask & moved) and not (moves & ~tile):
            taken[found] = k
            found += 1
            after[before + 1] = after[k + 1]
        else:
            moved |= moves
            seen |= mask
            left += 1
            before = k
        k = after[k + 1]
    return found


@part
def filled(tile, live, width, num_wires):  # type: ignore[no-untyped-def]
    """The tile with so many wires: the lowest that are live first."""
    for round_ in range(2):
        for wire in range(num_wires):
            bit = 1 << wire
            if count(tile) < width and (round_ or bit & live):
                tile |= bit
    return tile
