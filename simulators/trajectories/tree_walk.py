"""Walk through sorted rows, for states that are advanced from Python.

The compiled walk of small circuits is `statevector.trajectories.small_kernel`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, INT, REALS, WORD, kernel
from simulators.trajectories import prefix_tree
from simulators.trajectories.error_patterns import SortedPatterns
from simulators.trajectories.noise_table import AFTER_OP, NoiseTable
from simulators.trajectories.prefix_tree import ADVANCE, CALL, CHOOSE_KRAUS, FRAME, SAMPLE


class Tree(msgspec.Struct, frozen=True, eq=False):
    """Facts about the circuit for the walk; positions are defined in `prefix_tree`."""

    inserts: NoiseTable
    insert_of: NDArray[np.int64]  # [places]
    place_at: NDArray[np.int64]  # [places + 1]: position of each place, then the circuit's end
    floor: NDArray[np.int64]  # [positions]
    ceil: NDArray[np.int64]

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
        )  # fmt: skip

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


@kernel(REALS, I64, INT, INT, I64, INT, I64, INT, INT, WORD, WORD, I64, group="trajectories")
def _choose(  # type: ignore[no-untyped-def]
    probs, order, low, high, begins, depth, chosen, location, first, seed, binding, work
):
    """Compiled `prefix_tree.choose`, for callers in Python."""
    prefix_tree.choose(
        probs, probs.size, order, low, high, begins, depth, chosen, location, first, seed, binding,
        work,
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
    """Run sorted rows low .. high - 1 (-1: all) from the first operation to the last.

    `cap`: largest number of states held at once. Raises the errors of the states.
    """
    high = rows.order.size if high < 0 else high
    order, begins, entries = rows.order.copy(), rows.begins, rows.entries
    chosen = np.zeros_like(entries)
    locations = tree.inserts.draw_locations
    drawn = tree.inserts.drawn[tree.insert_of].astype(np.int64)
    frames = np.zeros((prefix_tree.frames_of(rows.deepest), FRAME), np.int64)
    call = np.zeros(CALL, np.int64)
    room = np.empty(order.size, np.int64)
    top = prefix_tree.start(frames, low, high)
    while True:
        top = prefix_tree.next_call(
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
                states.probs(target, insert), order, first_row, last_row, begins, first, chosen,
                int(locations[insert]), draws.first, draws.seed, draws.binding, room,
            )  # fmt: skip
        elif what == SAMPLE:
            states.finish(target, np.sort(order[first_row:last_row]))
        else:
            return
