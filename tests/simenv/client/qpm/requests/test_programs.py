"""Programs and noise of a QPM's requests."""

import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector, random_unitary

import simenv
from simenv.client.circuits import load
from simenv.client.qpm import programs, requests
from simenv.errors import ProgramError
from simenv.qpm.contract import ExecutionError


def prepared() -> QuantumCircuit:
    circuit = QuantumCircuit(3, 3)
    circuit.h(0)
    circuit.unitary(random_unitary(4, seed=3), [1, 2])
    circuit.cx(0, 1)
    circuit.barrier()
    circuit.rz(0.3, 2)
    return circuit


def test_only_final_measurements_are_removed(env: simenv.Client) -> None:
    circuit = prepared()
    expected = Statevector(circuit).data
    circuit.measure([2, 0], [0, 1])
    circuit.barrier()
    circuit.measure(1, 2)
    stripped = programs.without_final_measurements(load(circuit).program)
    assert "measure" not in stripped.names
    vector = env.run(stripped, shots=None, outputs=("statevector",)).statevector
    assert abs(np.vdot(vector, expected)) == pytest.approx(1.0)


def test_removal_of_mid_circuit_or_conditional_measurement_is_refused() -> None:
    used_again = prepared()
    used_again.measure(0, 0)
    used_again.x(0)
    with pytest.raises(ProgramError, match="qubit 0, which is used again"):
        programs.without_final_measurements(load(used_again).program)
    conditional = QuantumCircuit(1, 1)
    conditional.measure(0, 0)
    with conditional.if_test((conditional.clbits[0], 1)):
        conditional.x(0)
    with pytest.raises(ProgramError, match="under a condition"):
        programs.without_final_measurements(load(conditional).program)


def test_unwritten_clbits_are_counted_as_zero() -> None:
    assert programs.unwritten(load(QuantumCircuit(2)).program, 7) == {}
    assert programs.unwritten(load(QuantumCircuit(2, 2)).program, 7) == {"00": 7}


X = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; x q[0]; measure q -> c;'


def test_factor_that_is_no_number_is_refused_with_its_component() -> None:
    info = {"qasm": X, "num_shots": 10, "noise": {"gate.depolarizing": "a"}}
    fails(ExecutionError, r"gate.depolarizing = 'a'", requests.read_run, info)


@pytest.mark.parametrize("value", [np.float64(0.5), np.zeros(2), [0.5], b"{}", {1: 2.0}, ""])
def test_value_of_another_type_is_refused_with_those_that_a_host_can_send(value: object) -> None:
    with pytest.raises(ExecutionError, match='a recipe such as "aer"') as caught:
        requests.read_run({"qasm": X, "num_shots": 10, "noise": value})
    assert "bytes" not in caught.value.hint


def test_noise_model_of_a_host_is_refused_by_name() -> None:
    document = {"kind": "channels", "name": "mine", "channels": []}
    with pytest.raises(ExecutionError, match="noise models of your own are not taken here"):
        requests.read_run({"qasm": X, "num_shots": 10, "noise": document})
