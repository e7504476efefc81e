"""Phase estimation, the textbook way and with one qubit measured again and again."""

from __future__ import annotations

import math

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from simenv.cli.gallery.answers import Outcomes
from simenv.cli.gallery.arithmetic import fourier
from simenv.cli.gallery.pieces import Piece, bits

PHASE = 0.2837  # of a turn; no fraction of 2^8, so that the answer has a width


def kernel(phase: float, num_bits: int) -> Outcomes:
    """P(k) = (sin(pi N d) / (N sin(pi d)))^2 with N = 2^num_bits, d = phase - k / N."""
    size = 1 << num_bits

    def probability(k: int) -> float:
        distance = phase - k / size
        if abs(math.sin(math.pi * distance)) < 1e-15:
            return 1.0
        amplitude = math.sin(math.pi * size * distance) / (size * math.sin(math.pi * distance))
        return amplitude * amplitude

    return Outcomes({bits(k, num_bits): probability(k) for k in range(size)})


def phase_estimation(phase: float = PHASE, num_bits: int = 8) -> Piece:
    """The eigenvalue exp(2 pi i phase) of a phase gate, to `num_bits` binary places."""
    counting, eigenstate = QuantumRegister(num_bits, "counting"), QuantumRegister(1, "eigenstate")
    found = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(counting, eigenstate, found, name=f"phase-estimation-{num_bits + 1}")
    circuit.h(counting)
    circuit.x(eigenstate)
    for bit in range(num_bits):
        circuit.cp(2 * math.pi * phase * 2**bit, counting[bit], eigenstate[0])
    fourier(circuit, counting, inverse=True)
    circuit.measure(counting, found)
    return Piece(circuit, kernel(phase, num_bits))


def iterative_phase_estimation(phase: float = PHASE, num_bits: int = 8) -> Piece:
    """The same distribution from two qubits: each bit found turns the next measurement.

    Feed-forward: the lowest bit comes first; bit j that read 1 takes pi / 2^(k-j) off before bit k
    is read (the semiclassical transform of Griffiths and Niu).
    """
    probe, eigenstate = QuantumRegister(1, "probe"), QuantumRegister(1, "eigenstate")
    found = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(probe, eigenstate, found, name=f"iterative-phase-{num_bits}")
    circuit.x(eigenstate)
    for bit in range(num_bits):
        circuit.reset(probe)
        circuit.h(probe)
        circuit.cp(2 * math.pi * phase * 2 ** (num_bits - 1 - bit), probe[0], eigenstate[0])
        for known in range(bit):
            with circuit.if_test((found[known], 1)):
                circuit.p(-math.pi / 2 ** (bit - known), probe[0])
        circuit.h(probe)
        circuit.measure(probe[0], found[bit])
    return Piece(circuit, kernel(phase, num_bits))
