"""Random greedy search for contraction paths."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

pytest.importorskip("cotengra")
from cotengra.pathfinders.path_basic import ssa_to_linear

from simulators.tensornetwork.contraction.contractor import path_sets
from simulators.tensornetwork.contraction.greedy import GreedySearch

LATTICE = [
    tuple(
        index
        for ok, index in (
            (x < 5, (x, y, 0)),
            (x > 0, (x - 1, y, 0)),
            (y < 5, (x, y, 1)),
            (y > 0, (x, y - 1, 1)),
        )
        if ok
    )
    for x in range(6)
    for y in range(6)
]
_NUMBERS = {index: n for n, index in enumerate(sorted({i for each in LATTICE for i in each}))}
GRID = [tuple(_NUMBERS[index] for index in each) for each in LATTICE]


def found(inputs: Sequence[tuple[int, ...]], output: tuple[int, ...], trials: int) -> GreedySearch:
    search = GreedySearch(inputs, output, seed=5)
    search.run(trials)
    return search


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Networks with indices of one tensor, of many, and of the result; some in several parts."""
    indices = st.integers(0, draw(st.integers(1, 12)))
    inputs = draw(st.lists(st.lists(indices, max_size=5, unique=True), min_size=2, max_size=20))
    present = sorted({index for each in inputs for index in each})
    output = draw(st.lists(st.sampled_from(present), unique=True)) if present else []
    return [tuple(each) for each in inputs], tuple(output)


@given(networks())
@settings(max_examples=200)
def test_a_path_contracts_each_tensor_once_and_costs_what_the_search_says(
    network: tuple[list[tuple[int, ...]], tuple[int, ...]],
) -> None:
    inputs, output = network
    search = found(inputs, output, 4)
    count = len(inputs)
    operands = [each for step in search.path for each in step]
    assert sorted(operands) == list(range(2 * count - 2))
    assert all(max(step) < count + k for k, step in enumerate(search.path))
    everywhere = set(inputs[0]).intersection(*inputs[1:])
    sized = [tuple(index for index in each if index not in everywhere) for each in inputs]
    sets = path_sets(sized, [i for i in output if i not in everywhere], ssa_to_linear(search.path))
    assert search.operations == sets.operations()


def test_equal_seeds_give_equal_paths_however_the_trials_are_divided() -> None:
    whole, parts = found(GRID, (), 30), GreedySearch(GRID, (), seed=5)
    for _ in range(10):
        parts.run(3)
    assert parts.path == whole.path
    assert GreedySearch(GRID, (), seed=6).path == ()


def test_more_trials_find_cheaper_paths_of_a_lattice_than_row_by_row() -> None:
    one, many = found(GRID, (), 1), found(GRID, (), 200)
    rows = path_sets(GRID, (), ssa_to_linear([(0, 1), *((k, 34 + k) for k in range(2, 36))]))
    assert many.operations < min(one.operations, rows.operations())


def test_an_index_of_many_tensors_pairs_none_and_a_long_chain_needs_little_room() -> None:
    star = [(0, k) for k in range(1, 400)]
    assert len(found([*star, (399,)], (), 2).path) == 399
    chain = [(k, k + 1) for k in range(3_000)]
    assert found(chain, (0, 3_000), 1).operations == 2_999 * 8
