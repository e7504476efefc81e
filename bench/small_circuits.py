"""Circuits of single-angle gates. The same arguments and seed give the same circuit anywhere."""

from __future__ import annotations

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

Gate = tuple[str, tuple[int, ...], float]  # name, qubits, angle


def gates(num_qubits: int, operations: int, seed: int) -> list[Gate]:
    """Return `operations` gates: layers of ry, rz and a ring of cx, without measurements."""
    rng = np.random.default_rng(seed)
    results: list[Gate] = []
    while len(results) < operations:
        for qubit in range(num_qubits):
            results.append(("ry", (qubit,), rng.uniform(0, 6)))
            results.append(("rz", (qubit,), rng.uniform(0, 6)))
        for qubit in range(num_qubits):
            results.append(("cx", (qubit, (qubit + 1) % num_qubits), 0.0))
    return results[:operations]


def built(num_qubits: int, operations: list[Gate]) -> QuantumCircuit:
    """Return the gates as a measured QuantumCircuit."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for name, qubits, angle in operations:
        if name == "cx":
            circuit.cx(*qubits)
        else:
            getattr(circuit, name)(angle, *qubits)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def layered(num_qubits: int, operations: int, number: int, seed: int) -> list[QuantumCircuit]:
    """Return `number` circuits that differ in their angles."""
    return [
        built(num_qubits, gates(num_qubits, operations, seed * 10**6 + k)) for k in range(number)
    ]


def ansatz(num_qubits: int, parameters: int, operations: int) -> QuantumCircuit:
    """Return a measured circuit with `parameters` rotations, each with its own angle, and cx and h
    between them."""
    angles = list(ParameterVector("a", parameters))
    circuit = QuantumCircuit(num_qubits, num_qubits)
    fixed = operations - parameters
    for k in range(max(parameters, fixed)):
        if k < parameters:
            (circuit.ry if k % 2 else circuit.rz)(angles[k], k % num_qubits)
        if k < fixed:
            circuit.cx(k % num_qubits, (k + 1) % num_qubits) if k % 3 else circuit.h(k % num_qubits)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit
