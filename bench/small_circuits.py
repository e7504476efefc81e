"""Circuits of single-angle gates. The same arguments and seed give the same circuit anywhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

from bench.circuits import measured
from bench.peers.base import Gate


def gates(num_qubits: int, operations: int, seed: int) -> list[Gate]:
    """Return `operations` gates: layers of ry, rz and a ring of cx, without measurements."""
    rng = np.random.default_rng(seed)
    results: list[Gate] = []
    while len(results) < operations:
        for qubit in range(num_qubits):
            results.append(("ry", (qubit,), (rng.uniform(0, 6),)))
            results.append(("rz", (qubit,), (rng.uniform(0, 6),)))
        for qubit in range(num_qubits):
            results.append(("cx", (qubit, (qubit + 1) % num_qubits), ()))
    return results[:operations]


def scattered_gates(num_qubits: int, operations: int, seed: int) -> list[Gate]:
    """Return `operations` gates on random qubits: ry, rz and cx as often as in `gates`."""
    rng = np.random.default_rng(seed)
    results: list[Gate] = []
    names, angles = rng.integers(3, size=operations), rng.uniform(0, 6, operations)
    for name, angle in zip(names.tolist(), angles.tolist(), strict=True):
        first, second = rng.choice(num_qubits, 2, replace=False).tolist()
        if name == 2:
            results.append(("cx", (first, second), ()))
        else:
            results.append((("ry", "rz")[name], (first,), (angle,)))
    return results


def layered(
    num_qubits: int,
    operations: int,
    number: int,
    seed: int,
    gates_of: Callable[[int, int, int], list[Gate]] = gates,
) -> list[QuantumCircuit]:
    """Return `number` measured circuits of `gates_of`, each of another seed: those of `gates`
    differ in their angles."""
    seeds = range(seed * 10**6, seed * 10**6 + number)
    return [measured(num_qubits, gates_of(num_qubits, operations, each)) for each in seeds]


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
