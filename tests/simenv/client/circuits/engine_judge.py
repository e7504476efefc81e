"""Runs a circuit on the whole path: packed by the client, checked and run by the engine."""

from collections.abc import Sequence
from typing import Any

import branches as br
import circuit_judge
import numpy as np
import pytest
from engine_runs import probabilities
from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit

from simenv.client.circuits import load
from simenv.model import Program
from simulators.circuit.ir import Circuit
from simulators.circuit.validation.admission import validation_error
from simulators.simulate import counts_of, simulate


def received(program: Program) -> Circuit:
    """The circuit as an engine gets it."""
    circuit = Circuit.from_program(program)
    assert validation_error(circuit) == ""
    return circuit


def exact(circuit: Any) -> dict[int, float]:
    """The distribution over the clbits."""
    result = simulate(received(load(circuit).program), shots=0, outputs=("probabilities",)).row(0)
    return probabilities(result)


def counts(circuit: Any, shots: int = 100, seed: int = 1) -> dict[int, int]:
    """Counts by the value of the clbits."""
    return counts_of(simulate(received(load(circuit).program), shots=shots, seed=seed).row(0))


def state(program: Program, values: Sequence[float] = ()) -> NDArray[np.complex128]:
    """The state at the end, the global phase included; `values` fill the slots."""
    table = np.array([values], np.float64) if len(values) else None
    result = simulate(received(program), shots=0, outputs=("statevector",), bindings=table)
    return np.frombuffer(result.row(0).statevector, np.complex128)


def measured(circuit: QuantumCircuit) -> QuantumCircuit:
    """All qubits measured at the end, in a basis that shows amplitudes and phases."""
    circuit = circuit.copy()
    register = ClassicalRegister(circuit.num_qubits, "end")
    circuit.add_register(register)
    for number, qubit in enumerate(circuit.qubits):
        circuit.u(0.7 + 0.3 * number, 0.4, 0.9 + 0.5 * number, qubit)
    circuit.measure(circuit.qubits, register)
    return circuit


def assert_same(circuit: Any, expected: QuantumCircuit) -> None:
    """The same outcomes with the same probabilities as by Qiskit's meaning of a circuit."""
    found, outcomes = exact(circuit), br.distribution(circuit_judge.run(expected))
    for bits in found.keys() | outcomes.keys():
        assert found.get(bits, 0.0) == pytest.approx(outcomes.get(bits, 0.0), abs=1e-9)
