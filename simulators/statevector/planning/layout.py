"""Where wires stand while passes are written down.

The planner speaks of *wires*; they stand at *positions* (the bits of an amplitude's index) and, in
a pass, those of its tile at *places*. Between passes a wire keeps its position unless the plan may
end in another order; then lanes keep whom they have, which saves the way back.
"""

from __future__ import annotations

from simulators.jit import part
from simulators.statevector.planning.masks import count, lowest
from simulators.statevector.planning.written import HERE, HOME, STANDS
from simulators.statevector.sweeps import LANE_WIRES


@part
def enter(tile, standing, places, at, notes):  # type: ignore[no-untyped-def]
    """Begin a pass: its positions into places[at], lanes first; who is where.

    standing[position]: the wire there.
    """
    here, home, place = notes[HERE], notes[HOME], notes[STANDS]
    inside = 0
    for position in range(standing.size):
        wire = standing[position]
        if tile >> wire & 1:
            places[at, inside] = position
            here[inside] = home[inside] = wire
            place[wire] = inside
            inside += 1
        else:
            place[wire] = -1 - position
    return inside


@part
def parts(mask, notes):  # type: ignore[no-untyped-def]
    """A set of wires as (row bits, lane bits, positions outside)."""
    place = notes[STANDS]
    rows = lanes = outside = 0
    while mask:
        at = place[lowest(mask)]
        if at >= LANE_WIRES:
            rows |= 1 << (at - LANE_WIRES)
        elif at >= 0:
            lanes |= 1 << at
        else:
            outside |= 1 << (-1 - at)
        mask &= mask - 1
    return rows, lanes, outside


@part
def exchange(lane, row, notes):  # type: ignore[no-untyped-def]
    """What SWAP_LANE does."""
    here, place = notes[HERE], notes[STANDS]
    one, two = here[lane], here[LANE_WIRES + row]
    here[lane], here[LANE_WIRES + row] = two, one
    place[one], place[two] = LANE_WIRES + row, lane


@part
def leave(width, places, at, notes, standing):  # type: ignore[no-untyped-def]
    """End a pass: wires stand where they are now."""
    here = notes[HERE]
    for k in range(width):
        standing[places[at, k]] = here[k]


@part
def positions(mask, standing):  # type: ignore[no-untyped-def]
    """A set of wires as positions."""
    found = 0
    left = count(mask)
    position = 0
    while left:
        if mask >> standing[position] & 1:
            found |= 1 << position
            left -= 1
        position += 1
    return found
