"""Operations in the order of their start times."""

import numpy as np
from arrays import Arrays
from reference import operations

from simulators.circuit.time_order import after_writers, reordered, time_order


def test_operations_of_one_time_stay_as_listed() -> None:
    assert time_order(np.array([0.0, 5.0, 5.0 - 1e-9, 7.0])) is None
    assert time_order(np.zeros(0)) is None
    order = time_order(np.array([0.0, 5.0, 9.0, 5.0, 0.0]))
    assert order is not None
    assert order.tolist() == [0, 4, 1, 3, 2]


def test_last_listed_writer_of_a_clbit_stays_the_last() -> None:
    circuit = Arrays(2, 2).add("measure", [0], [0]).add("x", [1]).add("measure", [1], [0])
    circuit.add("x", [1])
    starts = after_writers(circuit.circuit(), np.array([10.0, 0.0, 1.0, 4.0]))
    assert starts.tolist() == [10.0, 0.0, 10.0, 10.0]
    apart = Arrays(2, 2).add("measure", [0], [0]).add("measure", [1], [1]).circuit()
    assert after_writers(apart, np.array([10.0, 0.0])).tolist() == [10.0, 0.0]


def test_reordered_operations_keep_their_operands_and_parameters() -> None:
    circuit = Arrays(3, 3).add("rx", [0], params=[0.1]).add("cx", [0, 1])
    circuit.add("u", [2], params=[0.2, 0.3, 0.4]).add("measure", [1], [2]).add("h", [2])
    built = circuit.circuit()
    order = np.array([2, 4, 0, 1, 3])

    def rows(of: object) -> list[tuple[object, ...]]:
        return [(row.name, *row.qubits, *row.clbits, *row.params) for row in operations(of)]  # type: ignore[arg-type]

    listed = rows(built)
    assert rows(reordered(built, order).circuit) == [listed[k] for k in order]


def test_slots_of_parameters_follow_their_operations() -> None:
    circuit = Arrays(2, 0).add("rx", [0], params=[0.1]).add("u", [1], params=[0.2, 0.3, 0.4])
    circuit.slots, circuit.num_slots = [(0, 1), (2, 0), (3, 1)], 2
    moved = reordered(circuit.circuit(), np.array([1, 0])).circuit
    assert moved.params.tolist() == [0.2, 0.3, 0.4, 0.1]
    assert moved.slots.reshape(-1, 2).tolist() == [[1, 0], [2, 1], [3, 1]]
