"""ZZ interaction acts over the times between operations."""

import numpy as np
from arrays import Arrays
from device_models import DeviceModel

from simulators.circuit import tokens as tk
from simulators.circuit.operands import Operands
from simulators.circuit.passes.attach_noise import attach_noise
from simulators.circuit.passes.crosstalk import CoupledPairs, interaction_times
from simulators.circuit.schedule import schedule

PAIR = (0, 1)
NS = {"h": 10.0, "x": 10.0, "measure": 1000.0, "delay": 500.0}
NS |= dict.fromkeys(("cz", "cx", "ecr", "iswap"), 100.0)


def pieces(circuit: Arrays) -> list[tuple[int, tuple[int, int], float]]:
    outcome = circuit.circuit()
    durations = np.array([NS.get(outcome.table.names[row], 0.0) for row in outcome.ops.tolist()])
    pairs = CoupledPairs.of([PAIR], outcome.num_qubits)
    result = interaction_times(
        outcome, Operands.of(outcome), schedule(outcome, durations, "asap"), pairs
    )
    assert not result.pair.any()
    return [
        (k, PAIR, time)
        for k, time in zip(result.after.tolist(), result.time_ns.tolist(), strict=False)
    ]


def both(num_clbits: int = 0) -> Arrays:
    return Arrays(2, num_clbits).add("h", [0]).add("h", [1])


def test_nothing_acts_before_both_qubits_had_an_operation() -> None:
    circuit = Arrays(2, 0).add("h", [0]).add("x", [0]).add("x", [0]).add("h", [1])
    assert pieces(circuit) == [(3, PAIR, 10.0)], "since the start of the last x"


def test_the_time_between_operations_acts_before_the_later_one() -> None:
    circuit = both().add("delay", [0], params=[500.0]).add("delay", [1], params=[500.0])
    circuit.add("x", [0]).add("h", [1])
    assert pieces(circuit) == [(3, PAIR, 510.0), (5, PAIR, 10.0)]


def test_diagonal_gates_do_not_cut_the_time() -> None:
    circuit = both().add("delay", [0], params=[500.0]).add("rz", [0], params=[0.3]).add("x", [0])
    assert pieces(circuit)[0] == (3, PAIR, 510.0)


def test_the_time_of_a_gate_on_both_is_left_out() -> None:
    circuit = both().add("cz", [0, 1]).add("h", [1])
    assert pieces(circuit) == [(2, PAIR, 10.0), (3, PAIR, 10.0)]


def test_inside_a_block_there_is_none() -> None:
    circuit = both(1).add("measure", [0], [0]).begin((tk.CLBIT, 0, 0)).add("x", [1]).add("x", [0])
    circuit.add("end").add("h", [1])
    assert [after for after, _, _ in pieces(circuit)] == [1, 2, 7]


def test_attached_channels_are_on_used_pairs_only() -> None:
    model = DeviceModel(4, crosstalk_pairs=((0, 1), (1, 2), (2, 3)))
    circuit = Arrays(4, 0).add("h", [1]).add("h", [2]).add("x", [1]).circuit()
    result = attach_noise(circuit, model, "asap")
    assert [row for row in result.locations[:, [0, 2, 3]].tolist() if row[2] >= 0] == [
        [1, 1, 2],
        [2, 1, 2],
    ]


def test_the_echo_of_a_cross_resonance_gate_removes_the_interaction_with_neighbours() -> None:
    """The gate on qubits 1 and 2 lasts 100 ns while qubit 0 waits; each h lasts 10 ns."""
    for gate, total in (("cx", 20.0), ("ecr", 20.0), ("cz", 120.0), ("iswap", 120.0)):
        circuit = Arrays(3, 0).add("h", [0]).add("h", [1]).add("h", [2]).add(gate, [1, 2])
        circuit.add("h", [1])
        assert sum(time for _, _, time in pieces(circuit)) == total, gate
