"""Messages of all prefixes of a circuit, in one order."""

import itertools

import numpy as np
import pytest

from simulators.circuit.analysis import elimination as orders
from simulators.circuit.analysis.elimination import (
    DIAGONAL,
    DRAWN,
    PERMUTING,
    RELABELING,
    GateNetwork,
    elimination,
    gate_network,
    least_fill,
)

Gates = list[tuple[tuple[int, ...], tuple[bool, ...], int]]


def layers(num_qubits: int, count: int, pairs: list[tuple[int, int]]) -> Gates:
    """Gates that are drawn on all qubits, and diagonal ones on the pairs, in turn."""
    gates: Gates = []
    for layer in range(count):
        gates += [((q,), (True,), DRAWN) for q in range(num_qubits)]
        if layer < count - 1:
            gates += [(pair, (False, False), DIAGONAL) for pair in pairs]
    return gates


def chain(num_qubits: int) -> list[tuple[int, int]]:
    return list(itertools.pairwise(range(num_qubits)))


def test_relabeled_qubits_and_phases_of_zero_have_no_node() -> None:
    gates: Gates = [
        ((0, 1), (False, False), DIAGONAL),
        ((0,), (True,), DRAWN),
        ((0, 1), (True, True), RELABELING),
        ((0, 1), (False, True), PERMUTING),
    ]
    network = gate_network(2, gates)
    assert network.places.tolist() == [1, 3]
    assert network.line == (-1, 1)
    assert network.indices.tolist() == [0, 1, 0]
    assert network.wires.tolist() == [[-1, 0], [-1, -1], [0, 1]]
    assert network.drawn == 1


def test_a_draw_in_a_chain_changes_few_messages() -> None:
    found = elimination(gate_network(60, layers(60, 3, chain(60))))
    assert found.widest <= 5
    assert found.messages < 4_000, "all messages of a prefix are computed again: 11,000"


def test_code_is_that_which_was_counted() -> None:
    network = gate_network(12, layers(12, 4, [(a, 5 * a % 12) for a in range(1, 12) if 4 * a % 12]))
    counted, coded = elimination(network, code=False), elimination(network)
    assert coded.code.size > counted.code.size == 0
    assert (counted.operations, counted.messages) == (coded.operations, coded.messages)
    assert counted.slots == coded.slots


def _width(network: GateNetwork, order: list[int]) -> int:
    """Indices of the largest tensor of the last amplitude, that of the index included."""
    near: dict[int, set[int]] = {index: set() for index in order}
    for k in range(network.drawn):
        own = network.indices[network.begins[k] : network.begins[k + 1]].tolist()
        free = [index for index in own if index in near]
        for index in free:
            near[index].update(free)
    widest = 0
    for index in order:
        clique = near.pop(index) | {index}
        widest = max(widest, len(clique))
        for other in clique - {index}:
            near[other] |= clique
            near[other].discard(index)
    return widest


@pytest.mark.parametrize("seed", range(3))
def test_prefixes_have_no_larger_tensors_than_the_whole(seed: int) -> None:
    """But for the index that is drawn."""
    random = np.random.default_rng(seed)
    pairs = [tuple(random.choice(14, 2, replace=False).tolist()) for _ in range(18)]
    network = gate_network(14, layers(14, 4, pairs))
    wires = network.wires[: network.ends[network.drawn]]
    free = np.unique(wires[(wires[:, 0] >= 0) & (wires[:, 0] != wires[:, 1]), 0])
    order = least_fill(network, network.drawn, free)
    assert order is not None
    assert sorted(order.tolist()) == free.tolist()
    assert elimination(network).widest <= _width(network, order.tolist()) + 1


def test_slices_stay_within_the_limits() -> None:
    network = gate_network(16, layers(16, 4, [*chain(16), *((k, k + 4) for k in range(12))]))
    whole = elimination(network)
    assert whole.slices == 1
    sliced = elimination(network, most_bits=whole.widest - 3, most_slices=64)
    assert sliced.widest <= whole.widest - 3
    assert 8 <= sliced.slices <= 64
    assert sliced.whole == whole.widest
    less = elimination(network, most_values=whole.slots // 4, most_slices=64)
    assert less.slots <= whole.slots // 4
    beyond = elimination(network, most_bits=2, most_slices=2)
    assert beyond.slices <= 2
    assert beyond.widest > 2


def test_messages_above_the_limit_are_unknown() -> None:
    pairs = list(itertools.combinations(range(40), 2))
    assert elimination(gate_network(40, layers(40, 3, pairs))) is orders.UNKNOWN
