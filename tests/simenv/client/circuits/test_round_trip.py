"""Round trips of packed circuits, and modules that are imported for them."""

import drawing
import engine_judge
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from interpreter import python
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
def test_packed_static_circuit_has_statevector_of_qiskit(circuit: QuantumCircuit) -> None:
    expected = Operator(circuit).data[:, 0]
    np.testing.assert_allclose(engine_judge.state(load(circuit).program), expected, atol=1e-9)


@QUICK
@given(drawing.circuits())
def test_packed_dynamic_circuit_has_outcomes_of_qiskit(circuit: QuantumCircuit) -> None:
    circuit = engine_judge.measured(circuit)
    engine_judge.assert_same(circuit, circuit)


@QUICK
@given(drawing.circuits())
def test_program_bytes_survive_conversion_to_qiskit_and_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert decode_program(loaded.packed) == loaded.program
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


@QUICK
@given(drawing.parametric())
def test_program_with_parameters_survives_conversion_and_back(circuit: QuantumCircuit) -> None:
    loaded = load(circuit)
    assert load(to_qiskit(loaded.program)).packed == loaded.packed


@QUICK
@given(drawing.parametric(), st.lists(drawing.ANGLES, min_size=2, max_size=2))
def test_bound_parameters_equal_qiskit(circuit: QuantumCircuit, values: list[float]) -> None:
    given_values = values[: circuit.num_parameters]
    loaded = load(circuit)
    (row,) = loaded.bind([given_values] if given_values else None)
    expected = Operator(circuit.assign_parameters(given_values)).data[:, 0]
    np.testing.assert_allclose(engine_judge.state(loaded.program, row), expected, atol=1e-9)


PROGRAM = """
import sys
from simenv.client.circuits import load, load_observables
load_observables("ZZ:0.5", 2)
{then}
print([name for name in ("qiskit", "numpy", "openqasm3") if name in sys.modules])
"""
REFUSED = """
from simenv.errors import SimenvError
for value in (None, "qreg q[1];", "OPENQASM 2.0; //" + "a" * 17_000_000):
    try:
        load(value)
    except SimenvError:
        continue
    raise SystemExit("taken")
"""


@pytest.mark.parametrize("then", ["", REFUSED], ids=["import", "refusal"])
def test_observables_and_refused_text_do_not_import_qiskit(then: str) -> None:
    assert python("-c", PROGRAM.format(then=then)).stdout.strip() == "[]"
