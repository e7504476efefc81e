"""A circuit that comes out of a Program as another one than went in."""

from __future__ import annotations

import branches as br
import circuit_judge
import drawing
import numpy as np
import program_judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator

from simenv.client.circuits import load, to_qiskit
from simenv.model import decode_program

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@QUICK
@given(drawing.circuits(dynamic=False))
def test_a_gate_acts_differently_after_packing(circuit: QuantumCircuit) -> None:
    ((state, _),) = program_judge.run(load(circuit).program)
    expected = Operator(circuit).data[:, 0]
    np.testing.assert_allclose(state, expected, atol=1e-9)  # the global phase included


@QUICK
@given(drawing.circuits())
def test_a_dynamic_circuit_has_other_outcomes_after_packing(circuit: QuantumCircuit) -> None:
    br.assert_same(program_judge.run(load(circuit).program), circuit_judge.run(circuit))


@QUICK
@given(drawing.circuits())
def test_a_circuit_has_other_outcomes_after_unpacking(circuit: QuantumCircuit) -> None:
    program = load(circuit).program
    br.assert_same(program_judge.run(program), circuit_judge.run(to_qiskit(program)))


@QUICK
@given(drawing.circuits())
def test_bytes_change_when_a_program_goes_to_qiskit_and_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert decode_program(loaded.packed) == loaded.program
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


@QUICK
@given(drawing.parametric())
def test_bytes_of_free_parameters_change_on_the_way_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


@QUICK
@given(drawing.parametric(), st.lists(drawing.ANGLES, min_size=2, max_size=2))
def test_a_bound_slot_has_another_value_than_qiskit_binds(
    circuit: QuantumCircuit, values: list[float]
) -> None:
    given_values = values[: circuit.num_parameters]
    loaded = load(circuit)
    (row,) = loaded.bind([given_values] if given_values else None)
    ((state, _),) = program_judge.run(loaded.program, row)
    expected = Operator(circuit.assign_parameters(given_values)).data[:, 0]
    np.testing.assert_allclose(state, expected, atol=1e-9)
