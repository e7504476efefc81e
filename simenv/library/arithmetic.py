"""Fourier transform, addition and order finding."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
from qiskit.circuit import Qubit

from simenv.library.algorithm import Algorithm, ExpectedOutcomes, bits


def fourier(circuit: QuantumCircuit, qubits: Sequence[Qubit], inverse: bool = False) -> None:
    """Append the quantum Fourier transform, or its inverse, on `qubits` (the lowest first)."""
    count = len(qubits)
    gates = [
        (high, low) for high in range(count - 1, -1, -1) for low in range(high, -1, -1)
    ]  # (k, k) stands for a Hadamard, (k, j) for a controlled phase pi / 2^(k-j)
    if not inverse:
        _apply(circuit, qubits, gates, 1.0)
    for low in range(count // 2):
        circuit.swap(qubits[low], qubits[count - 1 - low])
    if inverse:
        _apply(circuit, qubits, gates[::-1], -1.0)


def _apply(
    circuit: QuantumCircuit,
    qubits: Sequence[Qubit],
    gates: Sequence[tuple[int, int]],
    sign: float,
) -> None:
    for high, low in gates:
        if high == low:
            circuit.h(qubits[high])
        else:
            circuit.cp(sign * math.pi / 2 ** (high - low), qubits[low], qubits[high])


def fourier_adder(num_qubits: int = 14, a: int = 0x1B6D, b: int = 0x0A5C) -> Algorithm:
    """Addition of a constant in Fourier space (Draper, quant-ph/0008033), modulo 2^n.

    Three bits of a are in superposition, so eight sums are measured.
    """
    open_bits = (1, 6, 11)
    circuit = QuantumCircuit(num_qubits, num_qubits, name=f"qft-adder-{num_qubits}")
    for qubit in range(num_qubits):
        if qubit in open_bits:
            circuit.h(qubit)
        elif a >> qubit & 1:
            circuit.x(qubit)
    fourier(circuit, circuit.qubits)
    for qubit in range(num_qubits):
        circuit.p(2 * math.pi * b * 2**qubit / 2**num_qubits, qubit)
    fourier(circuit, circuit.qubits, inverse=True)
    circuit.measure(range(num_qubits), range(num_qubits))
    summands = [a]
    for bit in open_bits:
        summands = [value & ~(1 << bit) | flag << bit for value in summands for flag in (0, 1)]
    sums = [(value + b) % 2**num_qubits for value in summands]
    return Algorithm(
        circuit,
        ExpectedOutcomes({bits(value, num_qubits): 1 / 8 for value in sums}),
        "Draper, arXiv:quant-ph/0008033",
    )


def adder(num_bits: int = 6, a: int = 43, b: int = 21) -> Algorithm:
    """Ripple-carry addition after Cuccaro et al. (quant-ph/0410184), with b in superposition.

    The two highest bits of b are in superposition, so four sums are measured. Registers: the low
    half of a key is a, the high half a + b with its carry.
    """
    carry, x = QuantumRegister(1, "carry"), QuantumRegister(num_bits, "a")
    y, high = QuantumRegister(num_bits, "b"), QuantumRegister(1, "high")
    unchanged = ClassicalRegister(num_bits, "unchanged")
    total = ClassicalRegister(num_bits + 1, "total")
    circuit = QuantumCircuit(carry, x, y, high, unchanged, total, name=f"adder-{2 * num_bits + 2}")
    for bit in range(num_bits):
        if a >> bit & 1:
            circuit.x(x[bit])
        if bit >= num_bits - 2:
            circuit.h(y[bit])
        elif b >> bit & 1:
            circuit.x(y[bit])
    chain = [carry[0], *x]
    for bit in range(num_bits):
        circuit.cx(x[bit], y[bit])
        circuit.cx(x[bit], chain[bit])
        circuit.ccx(chain[bit], y[bit], x[bit])
    circuit.cx(x[num_bits - 1], high[0])
    for bit in reversed(range(num_bits)):
        circuit.ccx(chain[bit], y[bit], x[bit])
        circuit.cx(x[bit], chain[bit])
        circuit.cx(chain[bit], y[bit])
    circuit.measure(x, unchanged)
    circuit.measure([*y, high[0]], total)
    fixed = b % 2 ** (num_bits - 2)
    sums = [a + fixed + (top << num_bits - 2) for top in range(4)]
    answer = {bits(value, num_bits + 1) + bits(a, num_bits): 0.25 for value in sums}
    return Algorithm(
        circuit, ExpectedOutcomes(answer), "Cuccaro, Draper, Kutin, Moulton, arXiv:quant-ph/0410184"
    )


def order_finding(num_counting: int = 6) -> Algorithm:
    """Order finding of 7 modulo 15, which is 4: peaks at the multiples of 2^t / 4 (Shor's core).

    Modulo 15, multiplication by 8 rotates the four bits and x -> 15 - x inverts them; 7 = -8.
    """
    counting, work = QuantumRegister(num_counting, "counting"), QuantumRegister(4, "work")
    result = ClassicalRegister(num_counting, "found")
    circuit = QuantumCircuit(counting, work, result, name=f"order-finding-{num_counting + 4}")
    circuit.h(counting)
    circuit.x(work[0])
    for low in range(3):  # times 7
        circuit.cswap(counting[0], work[low], work[low + 1])
    for qubit in work:
        circuit.cx(counting[0], qubit)
    for low in range(2):  # times 7^2 = 4; 7^4 = 1 and higher powers need no gates
        circuit.cswap(counting[1], work[low], work[low + 2])
    fourier(circuit, counting, inverse=True)
    circuit.measure(counting, result)
    spacing = 2**num_counting // 4
    return Algorithm(
        circuit,
        ExpectedOutcomes({bits(k * spacing, num_counting): 0.25 for k in range(4)}),
        "Shor, arXiv:quant-ph/9508027",
    )
