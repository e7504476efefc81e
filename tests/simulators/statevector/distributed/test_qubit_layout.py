"""Where qubits stand in a state that is divided among ranks."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from simulators.catalog.costs import SHARE_QUBITS, ranks_used
from simulators.statevector.distributed.qubit_layout import Layout, bits
from simulators.statevector.planning.planner import tile_width
from simulators.statevector.state import BLOCK_QUBITS


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    divided = draw(st.integers(1, 4))
    num_local = draw(st.integers(SHARE_QUBITS, SHARE_QUBITS + 4))
    layout = Layout(num_local + divided, num_local)
    for _ in range(draw(st.integers(0, 12))):
        one, two = (draw(st.integers(0, num_local + divided - 1)) for _ in range(2))
        layout.swap(one, two)
    return layout


def consistent(layout: Layout) -> bool:
    return all(layout.qubits[p] == q for q, p in enumerate(layout.positions))


@settings(derandomize=True, deadline=None)
@given(layout=layouts(), data=st.data())
def test_exchanges_make_all_wanted_qubits_local(layout: Layout, data: st.DataObject) -> None:
    n = len(layout.qubits)
    wanted = sum(1 << q for q in data.draw(st.sets(st.integers(0, n - 1), max_size=SHARE_QUBITS)))
    for result, value in layout.exchanges(wanted):
        assert value < layout.num_local <= result
        layout.swap(result, value)
    assert consistent(layout)
    assert layout.placed(wanted) < 1 << layout.num_local


def test_highest_unwanted_local_qubits_are_exchanged_first() -> None:
    layout = Layout(18, 16)
    assert layout.exchanges(1 << 16 | 1 << 12) == [(16, 15)]
    assert layout.exchanges(1 << 16 | 1 << 17) == [(16, 15), (17, 14)]
    assert layout.exchanges(1 << 16 | 0xF000) == [(16, 11)]


@settings(derandomize=True, deadline=None)
@given(layout=layouts())
def test_settling_restores_contiguous_blocks(layout: Layout) -> None:
    for one, two in layout.settling():
        layout.swap(one, two)
    assert layout.positions[:BLOCK_QUBITS] == list(range(BLOCK_QUBITS))
    assert consistent(layout)
    ranks = 1 << (len(layout.qubits) - layout.num_local)
    result = np.concatenate([layout.basis_indices(rank) for rank in range(ranks)])
    assert sorted(result.tolist()) == list(range(1 << (len(layout.qubits) - BLOCK_QUBITS)))
    for rank in range(ranks):
        for block, number in enumerate(layout.basis_indices(rank).tolist()):
            index = number << BLOCK_QUBITS
            at = sum(1 << layout.positions[qubit] for qubit in bits(index))
            assert at == rank << layout.num_local | block << BLOCK_QUBITS


@settings(derandomize=True, deadline=None)
@given(layout=layouts(), data=st.data())
def test_aligning_gives_two_layouts_same_order(layout: Layout, data: st.DataObject) -> None:
    other = layout.copy()
    for _ in range(4):
        other.swap(*(data.draw(st.integers(0, len(layout.qubits) - 1)) for _ in range(2)))
    for one, two in layout.aligning(other):
        layout.swap(one, two)
    assert layout.qubits == other.qubits
    assert consistent(layout)


@pytest.mark.parametrize(
    ("num_qubits", "ranks", "used"),
    [
        (2, 8, 1), (13, 8, 1), (14, 8, 2), (15, 3, 2), (26, 4, 4), (26, 7, 4), (26, 1, 1),
        (40, 96, 64), (18, 64, 8), (19, 64, 16),
    ],
)  # fmt: skip
def test_ranks_are_a_power_of_two_limited_by_size(num_qubits: int, ranks: int, used: int) -> None:
    assert ranks_used(num_qubits, ranks) == used


@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("ranks", [2, 8, 1024])
def test_state_slice_is_never_smaller_than_tile(precision: str, ranks: int) -> None:
    for num_qubits in range(SHARE_QUBITS + 1, 48):
        share = num_qubits - ranks_used(num_qubits, ranks).bit_length() + 1
        assert share >= tile_width(num_qubits, precision)
        assert share > BLOCK_QUBITS
