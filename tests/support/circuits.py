"""Circuits for drills: each different, of a chosen size."""

import numpy as np
from qiskit import QuantumCircuit

from simenv.library import ghz


def layered(num_qubits: int, layers: int, seed: int) -> QuantumCircuit:
    """Random one-qubit rotations and a ring of CX, so often; all qubits measured."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for _ in range(layers):
        for qubit, (a, b) in enumerate(rng.uniform(0, 2 * np.pi, (num_qubits, 2))):
            circuit.ry(a, qubit)
            circuit.rz(b, qubit)
        for qubit in range(num_qubits):
            circuit.cx(qubit, (qubit + 1) % num_qubits)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def chain(num_qubits: int) -> QuantumCircuit:
    """Each qubit entangled with the one before it, all measured: all 0 or all 1."""
    return ghz(num_qubits).circuit


def tangled(num_qubits: int = 60) -> QuantumCircuit:
    """Far neighbours in many ways, and not Clifford, all measured: above the width of statevectors
    no engine runs it, for neither a chain of tensors nor small contractions hold it."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for step in (7, 11, 13, 17, 19, 23, 29, 31):
        circuit.h(range(num_qubits))
        circuit.t(range(num_qubits))
        for qubit in range(num_qubits):
            circuit.cx(qubit, (qubit + step) % num_qubits)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def ladder(width: int, layers: int = 1) -> QuantumCircuit:
    circuit = QuantumCircuit(width, width)
    for layer in range(layers):
        for qubit in range(width):
            circuit.ry(0.1 + layer + qubit, qubit)
            circuit.cx(qubit, (qubit + 1) % width)
    circuit.measure(range(width), range(width))
    return circuit


def bell() -> QuantumCircuit:
    return chain(2)


def faulty(code: int) -> QuantumCircuit:
    """A circuit that asks the engine `fault` for a fault: see simulators.fault.engine."""
    from simulators.fault.engine import FAULT_BASE

    circuit = QuantumCircuit(1, 1)
    circuit.rx(FAULT_BASE + code, 0)
    circuit.measure(0, 0)
    return circuit
