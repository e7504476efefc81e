"""The walk, with lists in place of states: who passes where, and how much of it is done twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulators.errors import BadCircuit
from simulators.statevector.patterns import walk
from simulators.statevector.patterns.rows import Patterns, Rows, alike, least_work, sort

Trace = tuple[int, tuple[tuple[int, int], ...]]  # a position; places, with their operators
_OPERATORS = 3


class Recorder:
    """Does what the walk says, and keeps what each state has gone through."""

    def __init__(
        self, rows: Rows, place_at: list[int], drawn: list[int], bounds: list[int]
    ) -> None:
        self.rows = rows
        self.place_at = np.array(place_at)
        self.drawn = np.array(drawn)
        number = np.searchsorted(bounds, np.arange(place_at[-1] + 1), side="right") - 1
        self.floor = np.array(bounds)[number]
        self.ceil = np.array(bounds)[np.minimum(number + 1, len(bounds) - 1)]
        self.ended: dict[int, Trace] = {}
        self.operations = 0
        self.most = 0

    def operator(self, row: int, place: int) -> int:
        """That a row draws: any function of the two."""
        return hash((row % 7, place)) % _OPERATORS if self.drawn[place] else 0

    def run(self, cap: int) -> None:
        rows, states = self.rows, dict[int, Trace]()
        order, chosen = rows.order.copy(), np.zeros_like(rows.entries)
        frames = np.full((walk.frames_of(rows.deepest), walk.FRAME), -7)
        call = np.zeros(walk.CALL, np.int64)
        top = walk.start(frames, 0, order.size)
        while True:
            top = walk.next_call(
                frames, top, cap, order, rows.begins, rows.entries, chosen, self.place_at,
                self.drawn, self.floor, self.ceil, call,
            )  # fmt: skip
            assert top <= len(frames)
            what, source, target, begin, end, first, last, low, high = call.tolist()
            if what == walk.ADVANCE:
                at, passed = states[source] if source >= 0 else (0, ())
                assert at == begin <= end
                assert target < cap
                here = zip(rows.entries[first:last].tolist(), chosen[first:last].tolist())  # noqa: B905
                states[target] = end, passed + tuple(here)
                self.operations += end - begin
                self.most = max(self.most, target + 1)
            elif what == walk.DRAW:
                self._draw(states[target], order, low, high, first, chosen)
            elif what == walk.SAMPLE:
                for row in order[low:high].tolist():
                    assert row not in self.ended
                    self.ended[row] = states[target]
            else:
                return

    def _draw(
        self, state: Trace, order: NDArray, low: int, high: int, depth: int, chosen: NDArray
    ) -> None:
        group = order[low:high].tolist()
        at = self.rows.begins[group] + depth
        (place,) = set(self.rows.entries[at].tolist())
        assert self.place_at[place] == state[0], "drawn from a state that is elsewhere"
        assert len(state[1]) == depth
        chosen[at] = [self.operator(row, place) for row in group]
        order[low:high] = sorted(group, key=lambda row: self.operator(row, place))


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Patterns, list[int], list[int], list[int]]:
    whole = draw(st.integers(0, 12))
    place_at = sorted(draw(st.lists(st.integers(0, whole), min_size=1, max_size=9)))
    drawn = draw(st.lists(st.integers(0, 1), min_size=len(place_at), max_size=len(place_at)))
    inner = draw(st.sets(st.integers(0, whole)))
    lists = draw(
        st.lists(st.sets(st.integers(0, len(place_at) - 1), max_size=5).map(list), max_size=25)
    )
    entries = np.array([place for one in lists for place in one], np.int64)
    patterns = Patterns(entries, np.cumsum([0, *map(len, lists)]))
    return patterns, [*place_at, whole], [*drawn, 0], sorted({0, whole} | inner)


@settings(max_examples=300, deadline=None)
@given(_cases(), st.integers(1, 4))
def test_a_row_goes_elsewhere(
    case: tuple[Patterns, list[int], list[int], list[int]], cap: int
) -> None:
    patterns, place_at, drawn, bounds = case
    rows = sort(patterns, np.arange(len(place_at) - 1))
    free = Recorder(rows, place_at, drawn, bounds)
    free.run(100)
    for row in range(patterns.count):
        mine = sorted(patterns.entries[patterns.ends[row] : patterns.ends[row + 1]].tolist())
        wanted = tuple((place, free.operator(row, place)) for place in mine)
        assert free.ended[row] == (place_at[-1], wanted)
    tight = Recorder(rows, place_at, drawn, bounds)
    tight.run(cap)
    assert tight.ended == free.ended
    assert tight.most <= cap


@settings(max_examples=200, deadline=None)
@given(_cases())
def test_work_is_done_twice(case: tuple[Patterns, list[int], list[int], list[int]]) -> None:
    """Where each operation is a segment, no more is done than there are distinct beginnings; and
    never are more states held than segments with an insert on a path, and one."""
    patterns, place_at, drawn, bounds = case
    rows = sort(patterns, np.arange(len(place_at) - 1))
    none = [0] * len(drawn)
    fine = Recorder(rows, place_at, none, list(range(place_at[-1] + 1)))
    fine.run(100)
    floor = least_work(rows, np.array(place_at), place_at[-1])
    assert fine.operations == floor
    starts = set()  # of all paths, each operation behind its inserts
    for row in range(patterns.count):
        mine = patterns.entries[patterns.ends[row] : patterns.ends[row + 1]].tolist()
        for k in range(place_at[-1]):
            starts.add((k, tuple(sorted(place for place in mine if place_at[place] <= k))))
    assert floor == len(starts)
    coarse = Recorder(rows, place_at, none, bounds)
    coarse.run(100)
    hit = [
        {int(coarse.floor[place_at[place]]) for place in patterns.entries[first:last]}
        for first, last in zip(patterns.ends, patterns.ends[1:], strict=False)
    ]
    assert coarse.most <= max(map(len, hit), default=0) + 1


def test_rows_are_in_another_order() -> None:
    patterns = Patterns(np.array([2, 0, 1, 0, 2, 2]), np.array([0, 1, 1, 3, 5, 5, 6]))
    rows = sort(patterns, np.array([1, 2, 0]))  # places of inserts 0, 1, 2
    listed = [
        rows.entries[rows.begins[row] :].tolist()[
            : rows.entries[rows.begins[row] :].tolist().index(3)
        ]
        for row in rows.order.tolist()
    ]
    assert listed == [[0, 1], [0], [0], [1, 2], [], []]
    assert alike(rows).tolist() == [1, -1, 0, 0, -1]
    assert rows.deepest == 2


@pytest.mark.parametrize(
    ("entries", "ends"),
    [([3], [0, 1]), ([-1], [0, 1]), ([1, 1], [0, 2]), ([0], [0, 2]), ([0, 1], [0, 2, 1, 2])],
)
def test_a_pattern_that_cannot_be_is_sorted(entries: list[int], ends: list[int]) -> None:
    with pytest.raises(BadCircuit):
        sort(Patterns(np.array(entries), np.array(ends)), np.arange(3))
