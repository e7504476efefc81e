"""Where wires stand while a pass is written down: at the places of its tile, or outside.

At the begin and at the end of a pass all of a tile stand at their own places; lanes change with row
bits in between.
"""

from __future__ import annotations

from simulators.circuit.masks import lowest
from simulators.jit import part
from simulators.statevector.planning.written import HERE, HOME, STANDS
from simulators.statevector.sweeps import LANE_WIRES


@part
def enter(tile, num_wires, places, at, notes):  # type: ignore[no-untyped-def]
    """Begin a pass: its wires into places[at], the lowest first; who is where."""
    here, home, place = notes[HERE], notes[HOME], notes[STANDS]
    inside = 0
    for wire in range(num_wires):
        if tile >> wire & 1:
            places[at, inside] = wire
            here[inside] = home[inside] = wire
            place[wire] = inside
            inside += 1
        else:
            place[wire] = -1 - wire
    return inside


@part
def parts(mask, notes):  # type: ignore[no-untyped-def]
    """A set of wires as (row bits, lane bits, wires outside)."""
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
