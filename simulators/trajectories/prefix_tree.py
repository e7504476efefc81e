"""Prefix tree of error patterns, and walks through it."""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import device_function, kernel
from simulators.execution.sampling import block, uniform
from simulators.trajectories.noise_table import (
    AFTER_OP,
    FLAG,
    FLAG_COLUMNS,
    FLAG_QUBIT,
    FLAG_STEP,
    LEAKS,
    NO_FLAG,
    RETURNS,
    NoiseTable,
    SortedPatterns,
)

# Walk through all rows: chooses the next state to advance, to reduce or to sample.
#
# Rows with a common prefix are run together up to their first difference. A node of this tree has a
# state and the rows that share it; its children are visited in the order of their next insert, so
# its state only ever advances, and its last child takes it over. So there are never more states
# than segments with an insert on a path, and one (a channel inside a segment divides it in two).
# With fewer states (`cap`), a node whose children find no room gives them its own state, and is
# computed again for the remaining children, from the deepest state that is kept.
#
# A position is a number of executed operations. An insert at position p acts in the segment that
# begins at floor[p]: a child's state advances to the segment's end, ceil[p], in one call with all
# its inserts there; but a channel ends a call at its own position, because its operator is drawn
# from the state there.
#
# `next_action` decides and computes nothing; the caller executes its decision. The operations of a
# row depend on the row alone, not on its neighbours, nor on the cap.

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
    place_at[place]: its position; the last entry: that of the circuit's end."""
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
def _set_flag(flags, entries, chosen, at):  # type: ignore[no-untyped-def]
    """Set the flag of the qubit that leaks at entry `at` of a row, up to where it is cleared."""
    qubit, step = flags[entries[at], FLAG_QUBIT], flags[entries[at], FLAG_STEP]
    at += 1
    while entries[at] < flags.shape[0]:
        place = entries[at]
        if flags[place, FLAG_QUBIT] == qubit and flags[place, FLAG_STEP] != step:
            if flags[place, FLAG] == LEAKS:
                chosen[at] = 1
            elif flags[place, FLAG] != NO_FLAG:
                chosen[at] = 0
                if flags[place, FLAG] == RETURNS:
                    break
        at += 1


@device_function
def choose(  # type: ignore[no-untyped-def]
    probs, choices, order, low, high, begins, entries, depth, chosen, flags, location, first, seed,
    binding, work,
):  # fmt: skip
    """Draw one of `choices` operators for each row order[low : high], with unnormalised `odds`, and
    group rows with the same operator, in stable order. `location`: draw number; `first`: the shot
    of row 0; `work`: room for all rows. flags: of each place; empty: none. The operator of an
    insert with a flag is the last one, if its flag says so."""
    draw = np.uint64(FIRST_DRAW) + np.uint64(location)
    total = 0.0
    for c in range(choices):
        total += probs[c]
    for k in range(low, high):
        row = order[k]
        at = begins[row] + depth
        work[k] = row
        flag = flags[entries[at], FLAG] if flags.shape[0] else NO_FLAG
        if flag != NO_FLAG and chosen[at] == choices - 1:
            continue
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
        if flag == LEAKS and last == 0:
            _set_flag(flags, entries, chosen, at)
    at = low
    for c in range(choices):
        for k in range(low, high):
            if chosen[begins[work[k]] + depth] == c:
                order[at] = work[k]
                at += 1


start = kernel("INTS2 INT INT -> INT", group="trajectories")(begin)  # for callers in Python


next_call = kernel(
    "INTS2 INT INT I64 I64 I64 I64 I64 I64 I64 I64 I64 -> INT", group="trajectories"
)(next_action)


# Walk through sorted rows, for states that are advanced from Python.
#
# The compiled walk of small circuits is `statevector.trajectories.small_kernel`.


class Tree(msgspec.Struct, frozen=True, eq=False):
    """Facts about the circuit for the walk; positions are defined in `prefix_tree`."""

    inserts: NoiseTable
    insert_of: NDArray[np.int64]  # [places]
    place_at: NDArray[np.int64]  # [places + 1]: position of each place, then the circuit's end
    floor: NDArray[np.int64]  # [positions]
    ceil: NDArray[np.int64]
    flags: NDArray[np.int64]  # [places, FLAG_COLUMNS]; empty: none has one

    @classmethod
    def of(
        cls,
        inserts: NoiseTable,
        at: NDArray[np.int64],
        floor: NDArray[np.int64] | None = None,
        ceil: NDArray[np.int64] | None = None,
    ) -> Tree:
        """Make the tree. `at`: position of each insert, then the circuit's end. Without `floor` and
        `ceil`, each position is a segment of its own."""
        after = inserts.table[:, AFTER_OP]
        insert_of = np.lexsort((np.arange(after.size), after, at[:-1]))
        place_at = at[np.append(insert_of, after.size)].astype(np.int64)
        same = np.arange(int(place_at[-1]) + 1)
        return cls(
            inserts, insert_of, place_at, same if floor is None else floor,
            same if ceil is None else ceil,
            np.zeros((0, FLAG_COLUMNS), np.int64) if inserts.flags is None
            else inserts.flags[insert_of],
        )  # fmt: skip

    def choices(self, rows: SortedPatterns) -> NDArray[np.int64]:
        """Operator of each entry of rows before any is drawn."""
        if not len(self.flags):
            return np.zeros_like(rows.entries)
        return np.append(self.inserts.unflagged(self.insert_of), 0)[rows.entries]

    @property
    def shared_before(self) -> NDArray[np.int64]:
        """Operations before each place that rows share which part there: those before its segment;
        and those of the circuit. int64 [places + 1]."""
        return self.floor[self.place_at]

    @property
    def places(self) -> NDArray[np.int64]:
        """Place of each insert: its number in the order they act."""
        result = np.empty(self.insert_of.size, np.int64)
        result[self.insert_of] = np.arange(result.size)
        return result


class Advance(msgspec.Struct, frozen=True, eq=False):
    """A step of the walk; level -1 is |0...0>."""

    source: int
    target: int
    begin: int
    end: int
    inserts: list[tuple[int, int]]  # inserts and their operators, in order of action
    positions: list[int]  # of each


class NodeStates(Protocol):
    """States of the nodes on a path, by level."""

    def advance(self, step: Advance) -> None:
        """Evolve a state from operation to operation. Raises Stopped and OutOfMemory."""

    def probs(self, level: int, insert: int) -> NDArray[np.float64]:
        """Unnormalised weight of each operator of a channel in a state."""

    def finish(self, level: int, rows: NDArray[np.int64]) -> None:
        """Take the final state of these rows, which ascend."""


class RandomDraws(msgspec.Struct, frozen=True):
    """Keys of the random draws: row 0 is shot `first`."""

    seed: int
    binding: int
    first: int


@kernel("REALS I64 INT INT I64 I64 INT I64 INTS2 INT INT WORD WORD I64", group="trajectories")
def _choose(  # type: ignore[no-untyped-def]
    probs, order, low, high, begins, entries, depth, chosen, flags, location, first, seed, binding,
    work,
):  # fmt: skip
    """Compiled `choose`, for callers in Python."""
    choose(
        probs, probs.size, order, low, high, begins, entries, depth, chosen, flags, location, first,
        seed, binding, work,
    )  # fmt: skip


def walk(
    tree: Tree,
    rows: SortedPatterns,
    states: NodeStates,
    draws: RandomDraws,
    cap: int,
    low: int = 0,
    high: int = -1,
) -> None:
    """Run sorted rows low .. high - 1 (-1: all) from the first operation to the last. `cap`:
    largest number of states held at once. Raises the errors of the states."""
    high = rows.order.size if high < 0 else high
    order, begins, entries = rows.order.copy(), rows.begins, rows.entries
    chosen = tree.choices(rows)
    locations = tree.inserts.draw_locations
    drawn = tree.inserts.drawn[tree.insert_of].astype(np.int64)
    frames = np.zeros((frames_of(rows.deepest), FRAME), np.int64)
    call = np.zeros(CALL, np.int64)
    room = np.empty(order.size, np.int64)
    top = start(frames, low, high)
    while True:
        top = next_call(
            frames, top, cap, order, begins, entries, chosen, tree.place_at, drawn, tree.floor,
            tree.ceil, call,
        )  # fmt: skip
        what, source, target, begin, end, first, last, first_row, last_row = call.tolist()
        if what == ADVANCE:
            places = entries[first:last]
            inserts = zip(tree.insert_of[places].tolist(), chosen[first:last].tolist(), strict=True)
            positions = tree.place_at[places].tolist()
            states.advance(Advance(source, target, begin, end, [*inserts], positions))
        elif what == CHOOSE_KRAUS:
            insert = int(tree.insert_of[entries[begins[order[first_row]] + first]])
            _choose(
                states.probs(target, insert), order, first_row, last_row, begins, entries, first,
                chosen, tree.flags, int(locations[insert]), draws.first, draws.seed, draws.binding,
                room,
            )  # fmt: skip
        elif what == SAMPLE:
            states.finish(target, np.sort(order[first_row:last_row]))
        else:
            return
