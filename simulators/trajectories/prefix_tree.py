"""Prefix tree of error patterns, and walks through it."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import (
    I64,
    INT,
    INTS2,
    WORD,
    device_function,
    integer_fields,
    kernel,
    record,
    structured,
)
from simulators.execution.philox import block, uniform
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

# Kinds of actions. ADVANCE: evolve state `source` (-1: |0...0>) from position `begin` to `end`,
# with inserts first .. last - 1 of `entries`, into state `target`. CHOOSE_KRAUS: draw the operator
# of insert `first` of each row order[low : high], from state `target`. SAMPLE: these rows end in
# state `target`.
DONE, ADVANCE, CHOOSE_KRAUS, SAMPLE = range(4)
ACTION = integer_fields("kind", "source", "target", "begin", "end", "first", "last", "low", "high")
# Nodes. `level`: number of its state, which is that of rows order[low : high]; `depth`: number of
# places applied to it; `position`: of the state; `chosen`: rows before it have their operator;
# `evicted`: another node has taken the state's memory, so it must be computed again.
NODE = integer_fields("level", "low", "high", "depth", "position", "chosen", "evicted")

FIRST_DRAW = 2**61  # number of the draw for a channel at location 0


@record
class WalkState(NamedTuple):
    """Walk under way: its open nodes, and its next action."""

    nodes: Annotated[NDArray[np.void], structured(NODE)]  # [most open nodes]
    action: Annotated[NDArray[np.void], structured(ACTION)]  # [1]

    @classmethod
    def of(cls, deepest: int) -> WalkState:
        """Room for rows of at most `deepest` inserts."""
        return cls(np.zeros(2 * deepest + 3, NODE), np.zeros(1, ACTION))


@record
class RowArrays(NamedTuple):
    """Rows of a walk, see `SortedPatterns`; the walk regroups `order`."""

    order: I64
    begins: I64
    entries: I64
    chosen: I64  # of each entry: its operator, once it is chosen


@record
class TreeArrays(NamedTuple):
    """Facts about the circuit for a walk, see `Tree`."""

    place_at: I64
    chooses: I64  # [places]: 1 if the operator is drawn from the state
    floor: I64
    ceil: I64
    insert_of: I64
    locations: I64  # of each insert
    flags: INTS2


@record
class RandomDraws(NamedTuple):
    """Keys of the random draws: row 0 is shot `first`."""

    seed: WORD
    binding: WORD
    first: INT

    @classmethod
    def of(cls, key: tuple[int, int], first: int) -> RandomDraws:
        """Keys of a seed and a binding."""
        return cls(np.uint64(key[0]), np.uint64(key[1]), first)


@device_function
def begin(nodes, low, high):  # type: ignore[no-untyped-def]
    """Begin the walk through rows order[low : high]; returns the number of open nodes."""
    node = nodes[0]
    node.level = node.depth = node.position = node.chosen = 0
    node.low, node.high, node.evicted = low, high, 1
    return 1


@device_function
def _same(rows, a, b, first, last):  # type: ignore[no-untyped-def]
    """Return whether places first .. last - 1 of two rows are the same, with the same operators."""
    entries, chosen = rows.entries, rows.chosen
    for k in range(first, last):
        if entries[a + k] != entries[b + k] or chosen[a + k] != chosen[b + k]:
            return False
    return True


@device_function
def _set_advance(action, source, target, begin, end, first, last):  # type: ignore[no-untyped-def]
    action.kind, action.source, action.target = ADVANCE, source, target
    action.begin, action.end, action.first, action.last = begin, end, first, last


@device_function
def next_action(walk, open_nodes, cap, rows, tree):  # type: ignore[no-untyped-def]
    """Write the next action of a `WalkState`; returns the number of open nodes after it."""
    nodes, action = walk.nodes, walk.action[0]
    order, begins, entries = rows.order, rows.begins, rows.entries
    place_at, chooses, floor, ceil = tree.place_at, tree.chooses, tree.floor, tree.ceil
    end = place_at.size - 1
    full = place_at[end]
    action.kind = DONE
    while open_nodes:
        node = nodes[open_nodes - 1]
        if node.low >= node.high:
            open_nodes -= 1
            continue
        row = begins[order[node.low]]
        depth, level, position = node.depth, node.level, node.position
        if node.evicted:
            ancestor = open_nodes - 2
            while ancestor >= 0 and (nodes[ancestor].level == level or nodes[ancestor].evicted):
                ancestor -= 1
            node.evicted = 0
            if ancestor >= 0:
                kept = nodes[ancestor]
                first = row + kept.depth
                _set_advance(action, kept.level, level, kept.position, position, first, row + depth)
            else:
                _set_advance(action, -1, level, 0, position, row, row + depth)
            return open_nodes
        place = entries[row + depth]
        start = full if place == end else floor[place_at[place]]
        if position < start:
            node.position = start
            _set_advance(action, level, level, position, start, row, row)
            return open_nodes
        action.target = level
        if place == end:
            action.kind, action.low, action.high = SAMPLE, node.low, node.high
            node.low = node.high
            return open_nodes
        is_channel = chooses[place] and place_at[place] == position  # at this position
        until = node.high
        if is_channel:
            if node.chosen <= node.low:
                high = node.low + 1
                while high < until and entries[begins[order[high]] + depth] == place:
                    high += 1
                node.chosen = high
                action.kind, action.low, action.high = CHOOSE_KRAUS, node.low, high
                action.first = depth
                return open_nodes
            until = node.chosen
        # Child: all inserts up to the segment's end, or to a channel in it.
        last = depth + 1 if is_channel else depth
        target = ceil[place_at[place]]
        while entries[row + last] < end:
            next_ = entries[row + last]
            if floor[place_at[next_]] != floor[place_at[place]]:
                break
            if chooses[next_]:
                target = place_at[next_]
                break
            last += 1
        ahead = entries[row + last]
        cut = ahead < end and floor[place_at[ahead]] == floor[place_at[place]]
        high = node.low + 1
        while high < until:
            other = begins[order[high]]
            if not _same(rows, row, other, depth, last):
                break
            theirs = entries[other + last]
            if cut:
                if theirs != ahead:
                    break
            elif theirs < end and floor[place_at[theirs]] == floor[place_at[place]]:
                break
            high += 1
        source, low = level, node.low
        if high < node.high:
            node.low = high
            if level + 1 < cap:
                level += 1
            else:
                node.evicted = 1
            node = nodes[open_nodes]
            open_nodes += 1
        _set_advance(action, source, level, position, target, row + depth, row + last)
        node.level, node.low, node.high, node.depth = level, low, high, last
        node.position, node.chosen, node.evicted = target, low, 0
        return open_nodes
    return open_nodes


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
def choose(probs, choices, action, rows, tree, draws, room):  # type: ignore[no-untyped-def]
    """Carry out CHOOSE_KRAUS: choose one of `choices` operators, with unnormalised `probs`, for
    each row, and group rows with the same operator, in stable order. `room`: for all rows, int64.
    The operator of an insert with a flag is the last one, if its flag says so."""
    low, high, depth, flags = action.low, action.high, action.first, tree.flags
    order, begins, entries, chosen = rows.order, rows.begins, rows.entries, rows.chosen
    location = tree.locations[tree.insert_of[entries[begins[order[low]] + depth]]]
    draw = np.uint64(FIRST_DRAW) + np.uint64(location)
    total = 0.0
    for c in range(choices):
        total += probs[c]
    for k in range(low, high):
        row = order[k]
        at = begins[row] + depth
        room[k] = row
        flag = flags[entries[at], FLAG] if flags.shape[0] else NO_FLAG
        if flag != NO_FLAG and chosen[at] == choices - 1:
            continue
        shot = np.int64(draws.first + row)
        t = number_of(draws.seed, draws.binding, draw, shot) * total
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
            if chosen[begins[room[k]] + depth] == c:
                order[at] = room[k]
                at += 1


# The same for callers in Python.


@kernel("WalkState INT INT -> INT", group="trajectories")
def start(walk, low, high):  # type: ignore[no-untyped-def]
    """Begin the walk, as `begin`."""
    return begin(walk.nodes, low, high)


next_call = kernel("WalkState INT INT RowArrays TreeArrays -> INT", group="trajectories")(
    next_action
)


@kernel("REALS WalkState RowArrays TreeArrays RandomDraws I64", group="trajectories")
def _choose(probs, walk, rows, tree, draws, room):  # type: ignore[no-untyped-def]
    """Choose operators as `choose`."""
    choose(probs, probs.size, walk.action[0], rows, tree, draws, room)


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

    def _unchosen(self, rows: SortedPatterns) -> NDArray[np.int64]:
        """Operator of each entry of rows before any is drawn."""
        if not len(self.flags):
            return np.zeros_like(rows.entries)
        return np.append(self.inserts.unflagged(self.insert_of), 0)[rows.entries]

    @property
    def arrays(self) -> TreeArrays:
        """Arrays for the kernels."""
        inserts, insert_of = self.inserts, self.insert_of
        return TreeArrays(
            self.place_at, inserts.drawn[insert_of].astype(np.int64), self.floor, self.ceil,
            insert_of, inserts.draw_locations, self.flags,
        )  # fmt: skip

    def row_arrays(self, rows: SortedPatterns) -> RowArrays:
        """Arrays of rows for one walk."""
        return RowArrays(rows.order.copy(), rows.begins, rows.entries, self._unchosen(rows))

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
    arrays, ordered, state = tree.arrays, tree.row_arrays(rows), WalkState.of(rows.deepest)
    room = np.empty(ordered.order.size, np.int64)
    open_nodes = start(state, low, high)
    while True:
        open_nodes = next_call(state, open_nodes, cap, ordered, arrays)
        (action,) = state.action.tolist()
        kind, source, target, begin, end, first, last, first_row, last_row = action
        if kind == ADVANCE:
            places = ordered.entries[first:last]
            chosen = ordered.chosen[first:last].tolist()
            inserts = zip(tree.insert_of[places].tolist(), chosen, strict=True)
            positions = tree.place_at[places].tolist()
            states.advance(Advance(source, target, begin, end, [*inserts], positions))
        elif kind == CHOOSE_KRAUS:
            row = ordered.begins[ordered.order[first_row]]
            insert = int(tree.insert_of[ordered.entries[row + first]])
            _choose(states.probs(target, insert), state, ordered, arrays, draws, room)
        elif kind == SAMPLE:
            states.finish(target, np.sort(ordered.order[first_row:last_row]))
        else:
            return
