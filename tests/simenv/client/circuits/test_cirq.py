"""Cirq circuits: programs with Cirq's own unitary, and refusals of what they cannot carry."""

from typing import Any

import numpy as np
import pytest
from failing import fails
from qiskit.quantum_info import Operator

from simenv.client.circuits import load
from simenv.client.circuits.decoder import to_qiskit
from simenv.client.client import Client
from simenv.errors import ProgramError

cirq: Any = pytest.importorskip("cirq", reason="cirq is an engine of benchmarks: extra bench")


@pytest.mark.parametrize("seed", range(8))
def test_program_has_the_unitary_of_the_circuit(seed: int) -> None:
    qubits = cirq.LineQubit.range(4)
    circuit = cirq.testing.random_circuit(qubits, 12, 0.8, random_state=seed)
    circuit += cirq.Circuit(
        cirq.I.on_each(*qubits),
        cirq.PhasedXZGate(x_exponent=0.2, z_exponent=0.3, axis_phase_exponent=0.1)(qubits[1]),
        cirq.ISWAP(qubits[0], qubits[2]) ** 0.5,
        cirq.CCX(*qubits[:3]),
    )
    result = cirq.unitary(circuit)
    data = Operator(to_qiskit(load(circuit).program).reverse_bits()).data  # Cirq: qubit 0 first
    phase = np.vdot(result, data) / len(result)
    assert abs(abs(phase) - 1.0) < 1e-12
    assert np.allclose(data, phase * result, atol=1e-12)


def test_measurement_keys_are_registers_and_frozen_circuits_are_taken(env: Client) -> None:
    first, second = cirq.LineQubit.range(2)
    circuit = cirq.Circuit(
        cirq.X(first),
        cirq.measure(first, key="one"),
        cirq.X(second).with_classical_controls("one"),
        cirq.measure(first, second, key="two", invert_mask=(True,)),
    ).freeze()
    assert env.run(circuit, shots=20).counts == {"10 1": 20}


def test_repetitions_of_a_subcircuit_have_keys_of_their_own(env: Client) -> None:
    qubit = cirq.LineQubit(0)
    body = cirq.FrozenCircuit(cirq.X(qubit), cirq.measure(qubit, key="m"))
    circuit = cirq.Circuit(cirq.CircuitOperation(body, repetitions=3, use_repetition_ids=True))
    assert env.run(circuit, shots=20).counts == {"1 0 1": 20}


@pytest.mark.parametrize(
    "case",
    [
        *("parameter", "noise", "qudit", "nothing"),
        *("key", "key of a subcircuit", "endless subcircuit"),
    ],
)
def test_circuit_that_cannot_be_carried_is_refused(case: str) -> None:
    import sympy

    qubit = cirq.LineQubit(0)
    circuit, value = {
        "parameter": (cirq.Circuit(cirq.rx(sympy.Symbol("t"))(qubit)), "free parameters: t"),
        "noise": (cirq.Circuit(cirq.depolarize(0.1)(qubit)), r"cannot carry .*depolarize"),
        "qudit": (cirq.Circuit(cirq.IdentityGate(qid_shape=(3,))(cirq.LineQid(0, 3))), "qudit"),
        "nothing": (cirq.Circuit(), "no qubits"),
        "key": (
            cirq.Circuit(cirq.measure(qubit, key="m"), cirq.X(qubit), cirq.measure(qubit, key="m")),
            "measures the key 'm' 2 times",
        ),
        "key of a subcircuit": (
            cirq.Circuit(
                cirq.CircuitOperation(
                    cirq.FrozenCircuit(cirq.X(qubit), cirq.measure(qubit, key="m")),
                    repetitions=3,
                    use_repetition_ids=False,
                )
            ),
            "measures the key 'm' 3 times",
        ),
        "endless subcircuit": (
            cirq.Circuit(
                cirq.CircuitOperation(
                    cirq.FrozenCircuit(cirq.X(qubit), cirq.measure(qubit, key="m")),
                    use_repetition_ids=False,
                    repeat_until=cirq.KeyCondition(cirq.MeasurementKey("m")),
                )
            ),
            "CircuitOperation",
        ),
    }[case]
    fails(ProgramError, value, load, circuit)
