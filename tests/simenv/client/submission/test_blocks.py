"""Where a sweep is cut: by the circuit and the wishes alone."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from simenv.client.circuits import load
from simenv.client.circuits.decoder import to_qiskit
from simenv.client.submission.prepare import RESULT_BYTES, bindings_per_task
from simenv.model import MAX_BINDINGS, Program, TaskOptions

COUNTS = TaskOptions()


def layers(num_qubits: int, depth: int) -> Program:
    angles = iter(ParameterVector("a", num_qubits * depth))
    circuit = QuantumCircuit(num_qubits)
    for _ in range(depth):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
        for qubit in range(num_qubits - 1):
            circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return load(circuit).program


SMALL = layers(4, 3)


def test_short_sweep_of_small_circuit_is_split_for_two_workers() -> None:
    assert bindings_per_task(SMALL, COUNTS, 1024, 128) == 64
    assert bindings_per_task(SMALL, COUNTS, 1024, 0) >= 1


@pytest.mark.parametrize("total", [100, 1_000, 10_000, 100_000])
def test_bindings_of_small_circuit_are_grouped_into_few_tasks(total: int) -> None:
    rows = bindings_per_task(SMALL, COUNTS, 1024, total)
    assert 64 <= rows <= MAX_BINDINGS
    assert rows == max(64, total // 16) or rows == MAX_BINDINGS or rows * 16 >= total


def test_bindings_of_slow_circuit_are_separate_tasks() -> None:
    assert bindings_per_task(layers(18, 20), COUNTS, 1024, 500) == 1


@given(st.integers(1, 14), st.integers(1, 2**20), st.integers(1, 10**5))
def test_result_size_of_task_is_bounded(num_qubits: int, shots: int, total: int) -> None:
    program = layers(num_qubits, 1)
    rows = bindings_per_task(program, COUNTS, shots, total)
    assert 1 <= rows <= MAX_BINDINGS
    assert rows == 1 or rows * min(shots, 2**num_qubits) * 12 <= RESULT_BYTES
    states = bindings_per_task(program, TaskOptions(("statevector",)), 0, total)
    assert states == 1 or states * 16 * 2**num_qubits <= RESULT_BYTES


def test_qubits_of_a_device_that_a_circuit_leaves_alone_cost_nothing() -> None:
    placed = QuantumCircuit(127, 4)
    placed.compose(to_qiskit(SMALL), range(100, 104), range(4), inplace=True)
    alone = bindings_per_task(SMALL, COUNTS, 1024, 1000)
    assert bindings_per_task(load(placed).program, COUNTS, 1024, 1000) == alone > 1
