"""Circuits in the native bases of devices, as Qiskit's transpiler makes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.transpiler import CouplingMap

from bench.circuits import CIRCUITS, Random, built, wide_circuit
from bench.peers.base import Gate

# Name: basis gates; True if two-qubit gates act only on neighbours in a line.
BASES = {
    "heron": (["rz", "sx", "x", "cz"], True),
    "eagle": (["rz", "sx", "x", "ecr"], True),
    "ion": (["r", "rz", "rzz"], False),
    "ion_xx": (["rx", "ry", "rz", "rxx"], False),
}
LEVELS = (0, 1, 2, 3)
KINDS = ("random", "qft", "ansatz", "volume", "tfim", "clifford_t")
_LAYER_GATES = {"h": 0, "t": 0, "rx": 1, "ry": 1, "rz": 1, "u": 3}
_PAIR_GATES = {"cx": 0, "cz": 0, "cp": 1, "rzz": 1}


class NativeCircuit(NamedTuple):
    """A transpiled circuit: its origin and its gates."""

    kind: str
    basis: str
    level: int
    num_qubits: int
    gates: list[Gate]


def native_circuit(num_qubits: int, seed: int, min_gates: int, max_gates: int) -> NativeCircuit:
    """Return a transpiled circuit; the seed determines kind, basis, level and number of gates."""
    random = np.random.default_rng(seed)
    basis = list(BASES)[int(random.integers(len(BASES)))]
    kind = KINDS[int(random.integers(len(KINDS)))]
    level = int(random.choice(LEVELS))
    wanted = int(random.integers(min_gates, max_gates))
    names, is_line = BASES[basis]
    gates: list[Gate] = []
    while len(gates) < wanted:
        result = transpile(
            _logical(kind, num_qubits, random),
            basis_gates=names,
            coupling_map=CouplingMap.from_line(num_qubits) if is_line else None,
            optimization_level=level,
            seed_transpiler=seed,
        )
        gates += _gates(result)
    return NativeCircuit(kind, basis, level, num_qubits, gates[:max_gates])


def _logical(kind: str, num_qubits: int, random: Random) -> QuantumCircuit:
    """Return a circuit of that kind without measurements."""
    if kind in CIRCUITS:
        gates = wide_circuit(kind, num_qubits, int(random.integers(2**31)))
    else:
        gates = _random_gates(num_qubits, random)
    return built(num_qubits, gates)


def _random_gates(num_qubits: int, random: Random) -> list[Gate]:
    """Return layers of random gates on one qubit and on random pairs."""
    results: list[Gate] = []
    for _ in range(6):
        for table, size in ((_LAYER_GATES, 1), (_PAIR_GATES, 2)):
            order = random.permutation(num_qubits).tolist()
            for first in range(0, num_qubits - size + 1, size):
                name = list(table)[int(random.integers(len(table)))]
                angles = random.uniform(-np.pi, np.pi, table[name]).tolist()
                results.append((name, tuple(order[first : first + size]), tuple(angles)))
    return results


def _gates(circuit: QuantumCircuit) -> list[Gate]:
    places = {bit: place for place, bit in enumerate(circuit.qubits)}
    return [
        (
            each.operation.name,
            tuple(places[bit] for bit in each.qubits),
            tuple(map(float, each.operation.params)),
        )
        for each in circuit.data
        if each.operation.name != "barrier"
    ]
