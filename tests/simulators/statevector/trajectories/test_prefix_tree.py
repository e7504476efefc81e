"""Prefix trees and Pauli frames."""

import numpy as np
import pytest
from arrays import Arrays
from hypothesis import given, settings, strategies as st
from noisy import Exact, after_gates, p_value, program
from noisy_runs import LEAST_P, run
from numpy.typing import NDArray
from patterned import sort

from noise_models.channel import Channel, depolarizing, relaxation
from simulators.circuit.gates import GATES
from simulators.circuit.ir import Circuit
from simulators.circuit.noise import NoiseProgram
from simulators.simulate import counts_of
from simulators.statevector import noisy
from simulators.statevector.trajectories.pauli_frames import FrameRules, carry
from simulators.statevector.trajectories.segments import ranges
from simulators.trajectories import prefix_tree
from simulators.trajectories.noise_table import (
    PAULI,
    ErrorPatterns,
    NoiseTable,
    SortedPatterns,
    operators,
    row_work,
)

Range = tuple[int, int, tuple[tuple[int, int], ...]]  # operations; places, with their operators
Trace = tuple[int, tuple[Range, ...]]  # a position, and all that was done up to there
_OPERATORS = 3


def _passed(state: Trace) -> list[tuple[int, int]]:
    return [place for each in state[1] for place in each[2]]


class Recorder:
    """Does what the walk says, and keeps what each state has gone through."""

    def __init__(
        self, rows: SortedPatterns, place_at: list[int], drawn: list[int], bounds: list[int]
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
        self.number = 0  # of row 0, for what rows draw

    def operator(self, row: int, place: int) -> int:
        """That a row draws: any function of the two."""
        return hash(((self.number + row) % 7, place)) % _OPERATORS if self.drawn[place] else 0

    def run(self, cap: int) -> None:
        rows, states = self.rows, dict[int, Trace]()
        order, chosen = rows.order.copy(), np.zeros_like(rows.entries)
        arrays = prefix_tree.RowArrays(order, rows.begins, rows.entries, chosen)
        none = np.zeros(0, np.int64)
        tree = prefix_tree.TreeArrays(
            self.place_at, self.drawn, self.floor, self.ceil, none, none, np.zeros((0, 3), np.int64)
        )
        walk = prefix_tree.WalkState.of(rows.deepest)
        walk.nodes.fill(-7)
        open_nodes = prefix_tree.start(walk, 0, order.size)
        while True:
            open_nodes = prefix_tree.next_call(walk, open_nodes, cap, arrays, tree)
            assert open_nodes <= len(walk.nodes)
            (action,) = walk.action.tolist()
            kind, source, target, begin, end, first, last, low, high = action
            if kind == prefix_tree.ADVANCE:
                at, passed = states[source] if source >= 0 else (0, ())
                assert at == begin <= end
                assert target < cap
                states[target] = end, passed + self._ranges(begin, end, first, last, chosen)
                self.operations += end - begin
                self.most = max(self.most, target + 1)
            elif kind == prefix_tree.CHOOSE_KRAUS:
                self._draw(states[target], order, low, high, first, chosen)
            elif kind == prefix_tree.SAMPLE:
                for row in order[low:high].tolist():
                    assert row not in self.ended
                    self.ended[row] = states[target]
            else:
                return

    def _ranges(
        self, begin: int, end: int, first: int, last: int, chosen: NDArray
    ) -> tuple[Range, ...]:
        """What is done in one go each: operations, and places with their operators."""
        places = self.rows.entries[first:last].tolist()
        entries = [*zip(places, chosen[first:last].tolist(), strict=True)]
        cut = ranges(
            self.floor.tolist(), self.ceil.tolist(), begin, end,
            [int(self.place_at[place]) for place in places], [bool(self.drawn[p]) for p in places],
        )  # fmt: skip
        return tuple((one, two, tuple(entries[low:high])) for one, two, low, high in cut)

    def _draw(
        self, state: Trace, order: NDArray, low: int, high: int, depth: int, chosen: NDArray
    ) -> None:
        group = order[low:high].tolist()
        at = self.rows.begins[group] + depth
        (place,) = set(self.rows.entries[at].tolist())
        assert self.place_at[place] == state[0], "drawn from a state that is elsewhere"
        assert len(_passed(state)) == depth
        chosen[at] = [self.operator(row, place) for row in group]
        order[low:high] = sorted(group, key=lambda row: self.operator(row, place))


@st.composite
def _cases(draw: st.DrawFn) -> tuple[ErrorPatterns, list[int], list[int], list[int]]:
    result = draw(st.integers(0, 12))
    place_at = sorted(draw(st.lists(st.integers(0, result), min_size=1, max_size=9)))
    drawn = draw(st.lists(st.integers(0, 1), min_size=len(place_at), max_size=len(place_at)))
    inner = draw(st.sets(st.integers(0, result)))
    lists = draw(
        st.lists(st.sets(st.integers(0, len(place_at) - 1), max_size=5).map(list), max_size=25)
    )
    entries = np.array([place for each in lists for place in each], np.int64)
    patterns = ErrorPatterns(entries, np.cumsum([0, *map(len, lists)]))
    return patterns, [*place_at, result], [*drawn, 0], sorted({0, result} | inner)


def _check(
    patterns: ErrorPatterns, place_at: list[int], drawn: list[int], bounds: list[int], cap: int
) -> None:
    rows = sort(patterns, np.arange(len(place_at) - 1))
    free = Recorder(rows, place_at, drawn, bounds)
    free.run(100)
    for row in range(patterns.count):
        ordered = sorted(patterns.entries[patterns.ends[row] : patterns.ends[row + 1]].tolist())
        at, done = free.ended[row]
        assert at == place_at[-1]
        assert _passed((at, done)) == [(place, free.operator(row, place)) for place in ordered]
        assert [k for each in done for k in range(*each[:2])] == list(range(at))
        assert all(place_at[p] in range(each[0], each[1] + 1) for each in done for p, _ in each[2])
    tight = Recorder(rows, place_at, drawn, bounds)
    tight.run(cap)
    assert tight.ended == free.ended
    assert tight.most <= cap
    for row in range(patterns.count):  # alone it goes the same way
        low, high = patterns.ends[row], patterns.ends[row + 1]
        only = ErrorPatterns(patterns.entries[low:high], np.array([0, high - low]))
        alone = Recorder(sort(only, np.arange(len(place_at) - 1)), place_at, drawn, bounds)
        alone.number = row
        alone.run(cap)
        assert alone.ended[0] == free.ended[row]


@settings(deadline=None)
@given(_cases(), st.integers(1, 4))
def test_each_pattern_runs_its_own_operations_and_errors(
    case: tuple[ErrorPatterns, list[int], list[int], list[int]], cap: int
) -> None:
    _check(*case, cap)


@pytest.mark.parametrize("cap", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("drawn", [[0] * 7, [0, 1, 0, 0, 1, 1, 0]])
def test_all_64_error_patterns_run_their_own_errors(cap: int, drawn: list[int]) -> None:
    lists = [[k for k in range(6) if row >> k & 1] for row in range(64)]
    entries = np.array([place for each in lists for place in each])
    patterns = ErrorPatterns(entries, np.cumsum([0, *map(len, lists)]))
    _check(patterns, [0, 2, 2, 3, 5, 5, 6], drawn, [0, 1, 4, 6], cap)


@settings(deadline=None)
@given(_cases())
def test_prefixes_are_shared(case: tuple[ErrorPatterns, list[int], list[int], list[int]]) -> None:
    """Where each operation is a segment, no more is done than there are distinct beginnings; and
    never are more states held than segments with an insert on a path, and one."""
    patterns, place_at, drawn, bounds = case
    rows = sort(patterns, np.arange(len(place_at) - 1))
    none = [0] * len(drawn)
    fine = Recorder(rows, place_at, none, list(range(place_at[-1] + 1)))
    fine.run(100)
    floor = int(row_work(rows, np.array(place_at)).sum())
    assert fine.operations == floor
    starts = set()  # of all paths, each operation behind its inserts
    for row in range(patterns.count):
        result = patterns.entries[patterns.ends[row] : patterns.ends[row + 1]].tolist()
        for k in range(place_at[-1]):
            starts.add((k, tuple(sorted(place for place in result if place_at[place] <= k))))
    assert floor == len(starts)
    coarse = Recorder(rows, place_at, none, bounds)
    coarse.run(100)
    hit = [
        {int(coarse.floor[place_at[place]]) for place in patterns.entries[first:last]}
        for first, last in zip(patterns.ends, patterns.ends[1:], strict=False)
    ]
    assert coarse.most <= max(map(len, hit), default=0) + 1


def test_patterns_are_sorted_by_error_location() -> None:
    patterns = ErrorPatterns(np.array([2, 0, 1, 0, 2, 2]), np.array([0, 1, 1, 3, 5, 5, 6]))
    rows = sort(patterns, np.array([1, 2, 0]))  # places of inserts 0, 1, 2
    listed = [
        rows.entries[rows.begins[row] :].tolist()[
            : rows.entries[rows.begins[row] :].tolist().index(3)
        ]
        for row in rows.order.tolist()
    ]
    assert listed == [[0, 1], [0], [0], [1, 2], [], []]
    assert row_work(rows, np.array([1, 2, 4, 9])).tolist() == [9, 7, 0, 8, 7, 0]
    assert rows.deepest == 2


def native(num_qubits: int, layers: int, random: np.random.Generator) -> Circuit:
    """Gates of devices, with a wide one at the beginning."""
    arrays = Arrays(num_qubits, num_qubits)
    for layer in range(layers):
        for q in range(num_qubits):
            arrays.add("rz", [q], (), [float(random.uniform(0, 6))]).add("sx", [q])
            arrays.add(("h", "s", "rx")[int(random.integers(2))], [q])
        for q in range(layer % 2, num_qubits - 1, 2):
            name = ("cz", "ecr", "cx", "rzz", "cp")[int(random.integers(5))]
            arrays.add(name, [q, q + 1], (), [0.4] * GATES[name].params)
        if layer == 0:
            arrays.add("ccx", [0, 1, 2])
    return arrays.measure(range(num_qubits)).circuit()


def _noise(circuit: Circuit, one: Channel) -> NoiseProgram:
    pair = depolarizing(0.05, 2)
    silent = {"measure", "ccx", "rz"}
    return program(
        after_gates(
            circuit,
            lambda row: (
                [] if row.name in silent else [(row.qubits, pair if len(row.qubits) == 2 else one)]
            ),
        )
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kraus", [False, True])
def test_carried_errors_have_the_exact_distribution(
    seed: int, kraus: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit = native(4, 3, np.random.default_rng(seed))
    actual = relaxation(300, 10, 15, 0.02) if kraus else depolarizing(0.02, 1)
    noise = _noise(circuit, actual)
    output = run(circuit, noise, 100_000)
    monkeypatch.setattr(noisy, "FRAMES_FROM", 0)
    outcome = run(circuit, noise, 100_000)
    assert p_value(Exact(circuit, noise).probs, counts_of(outcome)) > LEAST_P
    patterns = [int(result.remark.split()[0]) for result in (output, outcome)]
    assert patterns[1] < 0.8 * patterns[0]


def test_outcomes_do_not_depend_on_the_other_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on which member of a class is run."""
    monkeypatch.setattr(noisy, "FRAMES_FROM", 0)
    circuit = native(4, 3, np.random.default_rng(7))
    noise = _noise(circuit, relaxation(300, 10, 15, 0.02))
    result = run(circuit, noise, 3_000)
    monkeypatch.setattr("simulators.trajectories.shot_blocks.SHOTS_AT_ONCE", 70)
    parts = run(circuit, noise, 3_000)
    assert (parts.outcomes, parts.counts) == (result.outcomes, result.counts)


def test_pauli_that_reaches_the_end_costs_no_pattern() -> None:
    circuit = Arrays(2, 0).add("ry", [0], (), [0.3]).add("cx", [0, 1]).add("t", [1]).circuit()
    rows = [
        (0, PAULI, 1, 0, 0, 0),  # X before cx: on both qubits after it, stopped by t on one
        (0, PAULI, 0, 1, 0, 0),  # Z: to the end
        (1, PAULI, 1, 0, 0, 0),  # X on qubit 0 after cx: to the end, where it inverts
        (1, PAULI, 2, 0, 0, 0),  # X on qubit 1 before t
    ]
    table = NoiseTable(np.array(rows), operators([]))
    patterns = ErrorPatterns(np.array([0, 1, 2, 3, 2, 3]), np.array([0, 1, 2, 3, 4, 6, 6]))
    result = carry(patterns, table, FrameRules.of(circuit), np.arange(4))
    sizes = np.diff(result.patterns.ends).tolist()
    assert sizes == [1, 0, 0, 1, 1, 0]  # the fifth is the fourth and an inverted bit
    assert result.patterns.entries.tolist() == [3, 3, 3]
    assert result.frames.tolist() == [1, 0, 1, 0, 1, 0]
    assert result.final_x.tolist() == [0, 0, 0, 0, 0, 0]
