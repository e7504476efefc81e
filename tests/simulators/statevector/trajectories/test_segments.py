"""Segments keep what does not commute in order, and are passes."""

import numpy as np
import patterned
from hypothesis import given, settings, strategies as st
from random_circuits import unitary_circuits

from simulators.circuit.ir import Circuit
from simulators.statevector.trajectories.segment_plans import Pieces, insert_matrices
from simulators.statevector.trajectories.segments import divide
from simulators.trajectories.noise_table import PAULI, NoiseTable, operators


@settings(max_examples=60, deadline=None)
@given(unitary_circuits(6, 12), st.integers(6, 9), st.integers(0, 2**32))
def test_order_on_a_qubit_is_kept_with_errors(circuit: Circuit, width: int, seed: int) -> None:
    inserts, _ = patterned.made(circuit, 12, np.random.default_rng(seed), drawn=True)
    result = divide(circuit, inserts, width)
    assert sorted(result.order.tolist()) == list(range(circuit.ops.size))
    assert (result.bounds[0], result.bounds[-1]) == (0, circuit.ops.size)
    counts = circuit.table.rows[circuit.ops, 1]
    ends = np.cumsum(counts)
    wires = [
        set(circuit.qubits[end - count : end].tolist())
        for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
    ]
    position = np.argsort(result.order)
    for later, value in enumerate(wires):
        for earlier in range(later):
            if value & wires[earlier]:
                assert position[earlier] < position[later]
    for row, after in enumerate(inserts.table[:, 0].tolist()):
        touched = int(inserts.supports[row])
        for k, value in enumerate(wires):
            if any(touched >> q & 1 for q in value):
                assert (position[k] < result.place_at[row]) == (k <= after)


def test_paulis_at_one_location_share_one_plan() -> None:
    from arrays import Arrays

    arrays = Arrays(13, 0)
    for qubit in range(13):
        arrays.add("ry", [qubit], (), [0.3 + qubit])
    circuit = arrays.circuit()
    table = np.array([(4, PAULI, x << 4, z << 4, 0, 0) for x, z in ((1, 0), (1, 1), (0, 1))])
    inserts = NoiseTable(table, operators([]))
    segments = divide(circuit, inserts, 9)
    pieces = Pieces(circuit, segments.order, 9)
    at = int(segments.place_at[0])
    tables = []
    for insert in range(3):
        members = insert_matrices(inserts, insert, 0, at)
        piece = pieces.planned(0, circuit.ops.size, members, zero=True)
        tables.append(piece.floats(circuit.params[pieces.params_order], members))
    assert pieces.plan_count == 1
    assert len({each.tobytes() for each in tables}) == 3
