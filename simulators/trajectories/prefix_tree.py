"""Walk through all rows: chooses the next state to advance, to reduce or to sample.

Rows with a common prefix are run together up to their first difference. A node of this tree has a
state and the rows that share it; its children are visited in the order of their next insert, so its
state only ever advances, and its last child takes it over. So there are never more states than
segments with an insert on a path, and one (a channel inside a segment divides it in two). With
fewer states (`cap`), a node whose children find no room gives them its own state, and is computed
again for the remaining children, from the deepest state that is kept.

A position is a number of executed operations. An insert at position p acts in the segment that
begins at floor[p]: a child's state advances to the segment's end, ceil[p], in one call with all its
inserts there; but a channel ends a call at its own position, because its operator is drawn from the
state there.

`next_action` decides and computes nothing; the caller executes its decision. The operations of a
row depend on the row alone, not on its neighbours, nor on the cap.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import I64, INT, INTS2, device_function, kernel
from simulators.execution.rng import block, uniform

# Next action, and its columns. ADVANCE: evolve state SOURCE (-1: |0...0>) from FROM to TO, with
# inserts FIRST .. LAST - 1 of `entries`, into state TARGET. DRAW: draw the operator of the insert
# at FIRST for each row order[LOW : HIGH], from state TARGET. SAMPLE: these rows end in state
# TARGET.
DONE, ADVANCE, CHOOSE_KRAUS, SAMPLE = range(4)
WHAT, SOURCE, TARGET, FROM, TO, FIRST, LAST, LOW, HIGH = range(9)
CALL = 9

# Columns of a node. DEPTH: number of places applied to its state; AT: its position; DRAWN: rows
# before this one have their operator; LOST: its state must be computed again.
_LEVEL, _LOW, _HIGH, _DEPTH, _AT, _DRAWN, _EVICTED = range(7)
FRAME = 7

FIRST_DRAW = 2**61  # number of the draw for a channel at location 0


def frames_of(deepest: int) -> int:
    """Largest number of nodes on a path."""
    return 2 * deepest + 3


@device_function
def begin(frames, low, high):  # type: ignore[no-untyped-def]
    """Begin the walk through rows order[low : high]; returns the number of open nodes."""
    for k in range(FRAME):
        frames[0, k] = 0
    frames[0, _LOW], frames[0, _HIGH], frames[0, _EVICTED] = low, high, 1
    return 1


@device_function
def _same(a, b, first, last, entries, chosen):  # type: ignore[no-untyped-def]
    """Return whether places first .. last - 1 of two rows are the same, with the same operators."""
    for k in range(first, last):
        if entries[a + k] != entries[b + k] or chosen[a + k] != chosen[b + k]:
            return False
    return True


@device_function
def next_action(  # type: ignore[no-untyped-def]
    frames, top, cap, order, begins, entries, chosen, place_at, drawn, floor, ceil, call
):
    """Write the next action into `call`; returns the number of open nodes after it.

    place_at[place]: its position; the last entry: that of the circuit's end.
    """
    end = place_at.size - 1
    full = place_at[end]
    call[WHAT] = DONE
    while top:
        f = frames[top - 1]
        if f[_LOW] >= f[_HIGH]:
            top -= 1
            continue
        row = begins[order[f[_LOW]]]
        depth = f[_DEPTH]
        level = f[_LEVEL]
        call[TARGET] = level
        if f[_EVICTED]:
            ancestor = top - 2
            while ancestor >= 0 and (
                frames[ancestor, _LEVEL] == level or frames[ancestor, _EVICTED]
            ):
                ancestor -= 1
            f[_EVICTED] = 0
            call[WHAT], call[SOURCE], call[FROM], call[TO] = ADVANCE, -1, 0, f[_AT]
            call[FIRST], call[LAST] = row, row + depth
            if ancestor >= 0:
                call[SOURCE], call[FROM] = frames[ancestor, _LEVEL], frames[ancestor, _AT]
                call[FIRST] = row + frames[ancestor, _DEPTH]
            return top
        place = entries[row + depth]
        at = f[_AT]
        start = full if place == end else floor[place_at[place]]
        if at < start:
            f[_AT] = start
            call[WHAT], call[SOURCE], call[FROM], call[TO] = ADVANCE, level, at, start
            call[FIRST] = call[LAST] = row
            return top
        if place == end:
            call[WHAT], call[LOW], call[HIGH] = SAMPLE, f[_LOW], f[_HIGH]
            f[_LOW] = f[_HIGH]
            return top
        mine = drawn[place] and place_at[place] == at  # a channel at this position
        until = f[_HIGH]
        if mine:
            if f[_DRAWN] <= f[_LOW]:
                high = f[_LOW] + 1
                while high < until and entries[begins[order[high]] + depth] == place:
                    high += 1
                f[_DRAWN] = high
                call[WHAT], call[LOW], call[HIGH] = CHOOSE_KRAUS, f[_LOW], high
                call[FIRST] = depth
                return top
            until = f[_DRAWN]
        # Child: all inserts up to the segment's end, or to a channel in it.
        last = depth + 1 if mine else depth
        target = ceil[place_at[place]]
        while entries[row + last] < end:
            next_ = entries[row + last]
            if floor[place_at[next_]] != floor[place_at[place]]:
                break
            if drawn[next_]:
                target = place_at[next_]
                break
            last += 1
        ahead = entries[row + last]
        cut = ahead < end and floor[place_at[ahead]] == floor[place_at[place]]
        high = f[_LOW] + 1
        while high < until:
            other = begins[order[high]]
            if not _same(row, other, depth, last, entries, chosen):
                break
            theirs = entries[other + last]
            if cut:
                if theirs != ahead:
                    break
            elif theirs < end and floor[place_at[theirs]] == floor[place_at[place]]:
                break
            high += 1
        call[WHAT], call[SOURCE], call[FROM], call[TO] = ADVANCE, level, at, target
        call[FIRST], call[LAST] = row + depth, row + last
        low = f[_LOW]
        if high < f[_HIGH]:
            f[_LOW] = high
            if level + 1 < cap:
                level += 1
            else:
                f[_EVICTED] = 1
            call[TARGET] = level
            f = frames[top]
            top += 1
        f[_LEVEL], f[_LOW], f[_HIGH], f[_DEPTH] = level, low, high, last
        f[_AT], f[_DRAWN], f[_EVICTED] = target, low, 0
        return top
    return top


@device_function
def number_of(seed, binding, draw, shot):  # type: ignore[no-untyped-def]
    """Uniform number of one shot."""
    a, b, c, d = block(np.uint64(shot >> 2) + np.uint64(1), draw, seed, binding)
    k = shot & 3
    return uniform(a if k == 0 else b if k == 1 else c if k == 2 else d)


@device_function
def choose(  # type: ignore[no-untyped-def]
    probs, choices, order, low, high, begins, depth, chosen, location, first, seed, binding, work
):
    """Draw one of `choices` operators for each row order[low : high], with unnormalised `odds`, and
    group rows with the same operator, in stable order. `location`: draw number; `first`: the shot
    of row 0; `work`: room for all rows."""
    draw = np.uint64(FIRST_DRAW) + np.uint64(location)
    total = 0.0
    for c in range(choices):
        total += probs[c]
    for k in range(low, high):
        row = order[k]
        at = begins[row] + depth
        t = number_of(seed, binding, draw, np.int64(first + row)) * total
        last = c = 0
        edge = 0.0
        for c in range(choices):  # never one of zero weight, despite rounding
            if probs[c] > 0.0:
                last = c
                edge += probs[c]
                if edge > t:
                    break
        chosen[at] = last
        work[k] = row
    at = low
    for c in range(choices):
        for k in range(low, high):
            if chosen[begins[work[k]] + depth] == c:
                order[at] = work[k]
                at += 1


start = kernel(INTS2, INT, INT, returns=INT, group="trajectories")(begin)  # for callers in Python


next_call = kernel(
    INTS2, INT, INT, I64, I64, I64, I64, I64, I64, I64, I64, I64, returns=INT, group="trajectories"
)(next_action)
