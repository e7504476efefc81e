"""Dynamics: a chain of spins after a quench, and a quantum walk on a ring."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit, QuantumRegister
from qiskit.circuit import ClassicalRegister

from simenv.library.algorithm import Algorithm, ExpectedOutcomes, ExpectedParities, bits


def ising_trotter(num_spins: int = 12, steps: int = 8, angle: float = 0.35) -> Algorithm:
    """Evolution of a domain wall: exp(-i t (sum XX + sum Z) / 2) in Trotter steps.

    The check compares every <Z> with the exact values of free fermions (`_magnetisation`).
    """
    circuit = QuantumCircuit(num_spins, num_spins, name=f"ising-{num_spins}")
    circuit.x(range(num_spins // 2, num_spins))
    for _ in range(steps):
        for first in (0, 1):
            for left in range(first, num_spins - 1, 2):
                circuit.rxx(angle, left, left + 1)
        circuit.rz(angle, range(num_spins))
    circuit.measure(range(num_spins), range(num_spins))
    values = _magnetisation(num_spins, steps, angle)
    return Algorithm(
        circuit,
        ExpectedParities(tuple(((k,), float(z)) for k, z in enumerate(values))),
        "Lieb, Schultz, Mattis, Ann. Phys. 16, 407 (1961)",
    )


def _magnetisation(num_spins: int, steps: int, angle: float) -> NDArray[np.float64]:
    """Return <Z_k> after the same steps, float64 [num_spins], from 2n Majorana operators.

    Jordan-Wigner: c_2k = Z..Z X_k, c_2k+1 = Z..Z Y_k, so Z_k = -i c_2k c_2k+1 and X_k X_k+1 = -i
    c_2k+1 c_2k+2. exp(-angle/2 c_a c_b) rotates the pair (a, b) by `angle`; the covariance G_ab =
    <-i c_a c_b> rotates with it, and <Z_k> = G_2k,2k+1.
    """
    size = 2 * num_spins
    covariance = np.zeros((size, size))
    for spin in range(num_spins):
        up = 1.0 if spin < num_spins // 2 else -1.0
        covariance[2 * spin, 2 * spin + 1] = up
        covariance[2 * spin + 1, 2 * spin] = -up

    def turn(a: int, b: int) -> NDArray[np.float64]:
        rotation = np.eye(size)
        rotation[a, a] = rotation[b, b] = math.cos(angle)
        rotation[a, b], rotation[b, a] = math.sin(angle), -math.sin(angle)
        return rotation

    step = np.eye(size)
    for left in range(num_spins - 1):  # XX terms commute with one another
        step = turn(2 * left + 1, 2 * left + 2) @ step
    for spin in range(num_spins):
        step = turn(2 * spin, 2 * spin + 1) @ step
    for _ in range(steps):
        covariance = step @ covariance @ step.T
    return np.array([covariance[2 * k, 2 * k + 1] for k in range(num_spins)])


def quantum_walk(log_nodes: int = 5, steps: int = 10) -> Algorithm:
    """Quantum walk with a Hadamard coin on a ring of 2^m nodes; it spreads like t, not like
    sqrt(t)."""
    position, coin = QuantumRegister(log_nodes, "position"), QuantumRegister(1, "coin")
    result = ClassicalRegister(log_nodes, "found")
    circuit = QuantumCircuit(position, coin, result, name=f"quantum-walk-{log_nodes + 1}")
    circuit.x(position[log_nodes - 1])
    circuit.h(coin)
    circuit.s(coin)  # a coin in |0> + i|1> makes the walk even to both sides
    for _ in range(steps):
        circuit.h(coin)
        for bit in reversed(range(log_nodes)):  # coin 1: position + 1
            circuit.mcx([coin[0], *position[:bit]], position[bit])
        circuit.x(coin)
        for bit in range(log_nodes):  # coin 0: position - 1
            circuit.mcx([coin[0], *position[:bit]], position[bit])
        circuit.x(coin)
    circuit.measure(position, result)
    return Algorithm(
        circuit,
        ExpectedOutcomes(
            {bits(k, log_nodes): p for k, p in enumerate(_walk_probabilities(2**log_nodes, steps))}
        ),
        "Aharonov, Ambainis, Kempe, Vazirani, arXiv:quant-ph/0012090",
    )


def _walk_probabilities(nodes: int, steps: int) -> list[float]:
    """Return P(node) of the same walk from two arrays of amplitudes, one for each side of the
    coin."""
    left = np.zeros(nodes, dtype=complex)
    right = np.zeros(nodes, dtype=complex)
    left[nodes // 2], right[nodes // 2] = math.sqrt(0.5), 1j * math.sqrt(0.5)
    for _ in range(steps):
        left, right = (left + right) * math.sqrt(0.5), (left - right) * math.sqrt(0.5)
        left, right = np.roll(left, -1), np.roll(right, 1)
    return [float(p) for p in abs(left) ** 2 + abs(right) ** 2]
