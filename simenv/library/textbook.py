"""Entangled states, textbook oracles, and phase estimation with and without feedforward."""

from __future__ import annotations

import math

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from simenv.library.algorithm import Algorithm, ExpectedOutcomes, bits
from simenv.library.arithmetic import fourier


def ghz(num_qubits: int = 16) -> Algorithm:
    """GHZ state: all zeros or all ones with equal probability, from one Hadamard and a chain of
    CX."""
    circuit = QuantumCircuit(num_qubits, num_qubits, name=f"ghz-{num_qubits}")
    circuit.h(0)
    for qubit in range(num_qubits - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure(range(num_qubits), range(num_qubits))
    return Algorithm(
        circuit,
        ExpectedOutcomes({"0" * num_qubits: 0.5, "1" * num_qubits: 0.5}),
        "Greenberger, Horne, Zeilinger, arXiv:0712.0921",
    )


def w_state(num_qubits: int = 10) -> Algorithm:
    """W state: exactly one qubit is 1, each with equal probability, from controlled rotations.

    After step k the excitation has stayed on qubit k with probability 1 / num_qubits, so the
    rotation passes on the share (left - 1) / left of the excitation, where `left` qubits remain.
    """
    circuit = QuantumCircuit(num_qubits, num_qubits, name=f"w-{num_qubits}")
    circuit.x(0)
    for qubit in range(num_qubits - 1):
        left = num_qubits - qubit
        circuit.cry(2 * math.acos(math.sqrt(1 / left)), qubit, qubit + 1)
        circuit.cx(qubit + 1, qubit)
    circuit.measure(range(num_qubits), range(num_qubits))
    answer = {bits(1 << k, num_qubits): 1 / num_qubits for k in range(num_qubits)}
    return Algorithm(
        circuit, ExpectedOutcomes(answer), "Duer, Vidal, Cirac, arXiv:quant-ph/0005115"
    )


def bernstein_vazirani(secret: int = 0b101101110101, num_bits: int = 12) -> Algorithm:
    """Bernstein-Vazirani algorithm: one query finds the secret of f(x) = secret . x (mod 2)."""
    circuit = QuantumCircuit(num_bits + 1, num_bits, name=f"bernstein-vazirani-{num_bits}")
    circuit.x(num_bits)
    circuit.h(range(num_bits + 1))
    for bit in range(num_bits):
        if secret >> bit & 1:
            circuit.cx(bit, num_bits)
    circuit.h(range(num_bits))
    circuit.measure(range(num_bits), range(num_bits))
    return Algorithm(
        circuit,
        ExpectedOutcomes({bits(secret, num_bits): 1.0}),
        "Bernstein, Vazirani, SIAM J. Comput. 26, 1411 (1997)",
    )


def simon(secret: int = 0b10110, num_bits: int = 5) -> Algorithm:
    """Simon's algorithm for f(x) = f(x ^ secret): only y with y . secret = 0 (mod 2) occur, equally
    likely.

    The oracle copies x and, if x has the secret's lowest bit, adds the secret: it is two-to-one.
    """
    x, y = QuantumRegister(num_bits, "x"), QuantumRegister(num_bits, "y")
    result = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(x, y, result, name=f"simon-{num_bits}")
    lowest = (secret & -secret).bit_length() - 1
    circuit.h(x)
    circuit.cx(x, y)
    for bit in range(num_bits):
        if secret >> bit & 1:
            circuit.cx(x[lowest], y[bit])
    circuit.h(x)
    circuit.measure(x, result)
    answer = {
        bits(value, num_bits): 2.0 / 2**num_bits
        for value in range(2**num_bits)
        if (value & secret).bit_count() % 2 == 0
    }
    return Algorithm(circuit, ExpectedOutcomes(answer), "Simon, SIAM J. Comput. 26, 1474 (1997)")


PHASE = 0.2837  # of a turn; no multiple of 2^-8, so that the distribution has a width


def kernel(phase: float, num_bits: int) -> ExpectedOutcomes:
    """Outcome distribution of phase estimation: P(k) = (sin(pi N d) / (N sin(pi d)))^2 with N =
    2^num_bits, d = phase - k / N."""
    size = 1 << num_bits

    def probability(k: int) -> float:
        distance = phase - k / size
        if abs(math.sin(math.pi * distance)) < 1e-15:
            return 1.0
        amplitude = math.sin(math.pi * size * distance) / (size * math.sin(math.pi * distance))
        return amplitude * amplitude

    return ExpectedOutcomes({bits(k, num_bits): probability(k) for k in range(size)})


def phase_estimation(phase: float = PHASE, num_bits: int = 8) -> Algorithm:
    """Phase estimation of the eigenvalue exp(2 pi i phase) of a phase gate, to `num_bits` binary
    places."""
    counting, eigenstate = QuantumRegister(num_bits, "counting"), QuantumRegister(1, "eigenstate")
    result = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(counting, eigenstate, result, name=f"phase-estimation-{num_bits + 1}")
    circuit.h(counting)
    circuit.x(eigenstate)
    for bit in range(num_bits):
        circuit.cp(2 * math.pi * phase * 2**bit, counting[bit], eigenstate[0])
    fourier(circuit, counting, inverse=True)
    circuit.measure(counting, result)
    return Algorithm(
        circuit,
        kernel(phase, num_bits),
        "Cleve, Ekert, Macchiavello, Mosca, arXiv:quant-ph/9708016",
    )


def iterative_phase_estimation(phase: float = PHASE, num_bits: int = 8) -> Algorithm:
    """Phase estimation with two qubits: each measured bit rotates the qubit before the next
    measurement.

    The lowest bit is measured first; if bit j was 1, the phase before the measurement of bit k is
    reduced by pi / 2^(k-j) (the semiclassical Fourier transform of Griffiths and Niu). The
    distribution is that of `phase_estimation`.
    """
    probe, eigenstate = QuantumRegister(1, "probe"), QuantumRegister(1, "eigenstate")
    result = ClassicalRegister(num_bits, "found")
    circuit = QuantumCircuit(probe, eigenstate, result, name=f"iterative-phase-{num_bits}")
    circuit.x(eigenstate)
    for bit in range(num_bits):
        circuit.reset(probe)
        circuit.h(probe)
        circuit.cp(2 * math.pi * phase * 2 ** (num_bits - 1 - bit), probe[0], eigenstate[0])
        for earlier in range(bit):
            with circuit.if_test((result[earlier], 1)):
                circuit.p(-math.pi / 2 ** (bit - earlier), probe[0])
        circuit.h(probe)
        circuit.measure(probe[0], result[bit])
    return Algorithm(circuit, kernel(phase, num_bits), "Griffiths, Niu, arXiv:quant-ph/9511007")
