"""Circuits with feedforward: teleportation and error correction."""

from __future__ import annotations

import math

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from simenv.library.algorithm import Algorithm, ExpectedOutcomes


def teleportation(theta: float = 1.1, phi: float = 0.7) -> Algorithm:
    """Teleportation of a state by two classical bits; the inverse of its preparation must then give
    0."""
    qubits = QuantumRegister(3, "q")
    x_bit, z_bit = ClassicalRegister(1, "x"), ClassicalRegister(1, "z")
    arrived = ClassicalRegister(1, "arrived")
    circuit = QuantumCircuit(qubits, z_bit, x_bit, arrived, name="teleportation-3")
    circuit.ry(theta, 0)
    circuit.rz(phi, 0)
    circuit.h(1)
    circuit.cx(1, 2)
    circuit.cx(0, 1)
    circuit.h(0)
    circuit.measure(qubits[0], z_bit[0])
    circuit.measure(qubits[1], x_bit[0])
    with circuit.if_test((x_bit, 1)):
        circuit.x(2)
    with circuit.if_test((z_bit, 1)):
        circuit.z(2)
    circuit.rz(-phi, 2)
    circuit.ry(-theta, 2)
    circuit.measure(qubits[2], arrived[0])
    return Algorithm(
        circuit,
        ExpectedOutcomes({"0" + pair: 0.25 for pair in ("00", "01", "10", "11")}),
        "Bennett et al., Phys. Rev. Lett. 70, 1895 (1993)",
    )


def repetition_code(rounds: int = 3, theta: float = 0.6) -> Algorithm:
    """Three-qubit bit-flip code that holds |1>; every data qubit is rotated by rx(theta) each
    round.

    Each round measures two parities, corrects the qubit that they indicate and resets the ancillas,
    so the final data bits agree; the probability that they agree on 0 is `_logical_flip`.
    """
    data, ancillas = QuantumRegister(3, "data"), QuantumRegister(2, "ancilla")
    syndromes = [ClassicalRegister(2, f"syndrome{k}") for k in range(rounds)]
    final = ClassicalRegister(3, "final")
    circuit = QuantumCircuit(data, ancillas, *syndromes, final, name=f"repetition-code-{rounds}x")
    circuit.x(data)
    for syndrome in syndromes:
        circuit.rx(theta, data)
        circuit.cx(data[0], ancillas[0])
        circuit.cx(data[1], ancillas[0])
        circuit.cx(data[1], ancillas[1])
        circuit.cx(data[2], ancillas[1])
        circuit.measure(ancillas, syndrome)
        circuit.reset(ancillas)
        for value, guilty in ((1, 0), (3, 1), (2, 2)):
            with circuit.if_test((syndrome, value)):
                circuit.x(data[guilty])
        circuit.barrier()
    circuit.measure(data, final)
    flipped = _logical_flip(rounds, theta)
    return Algorithm(
        circuit,
        ExpectedOutcomes({"000": flipped, "111": 1 - flipped}, width=3),
        "Peres, Phys. Rev. A 32, 3266 (1985)",
    )


def _logical_flip(rounds: int, theta: float) -> float:
    """Return the probability that the logical bit has flipped, with the coherence between rounds.

    With c = cos(theta/2), s = sin(theta/2), measurement and correction leave one of four operators
    on the logical qubit: c^3 + i s^3 X (no qubit indicated), or -i c^2 s - c s^2 X (each qubit).
    """
    c, s = math.cos(theta / 2), math.sin(theta / 2)
    identity, flip = np.eye(2), np.array([[0, 1], [1, 0]])
    quiet = c**3 * identity + 1j * s**3 * flip
    accused = -1j * c**2 * s * identity - c * s**2 * flip
    state = np.diag([0.0, 1.0]).astype(complex)
    for _ in range(rounds):
        state = quiet @ state @ quiet.conj().T + 3 * accused @ state @ accused.conj().T
    return float(state[0, 0].real)
