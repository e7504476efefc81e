"""Iterative phase estimation with the decisions in Python: a circuit in parts.

Two spins begin in a state that is no eigenstate of their Hamiltonian H. Each part measures one bit
of the phase of exp(-iHt), the least significant first, with one more qubit; the program turns the
next one by an angle that it computes from the bits so far. The spins stay where they are, on the
worker: with each bit their state comes closer to one eigenstate, whose energy is the phase. So the
parts cannot be circuits of their own. At the end the state that is left is asked for its energy.
"""

from __future__ import annotations

import argparse
import math
import os

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

import simenv
from simenv.client.client import Client
from simenv.client.submission.parts import PartTask

HAMILTONIAN = SparsePauliOp(["ZZ", "XI", "IX", "ZI"], [1.0, 0.6, 0.6, 0.3])
TIME = 1.0  # of the evolution: |H| TIME < pi, so that no energy has the phase of another
BITS = 7


def evolution(steps: int) -> np.ndarray:
    """exp(-iHt) after so many times TIME, under the control of qubit 2: complex128 [8, 8]."""
    energies, states = np.linalg.eigh(HAMILTONIAN.to_matrix())
    unitary = (states * np.exp(-1j * energies * TIME * steps)) @ states.conj().T
    result = np.eye(8, dtype=complex)
    result[4:, 4:] = unitary
    return result


def bit_of_phase(number: int, angle: float) -> QuantumCircuit:
    """Measure one bit into a register of its own; `angle`: what the bits behind it amount to."""
    circuit = QuantumCircuit(3)
    circuit.add_register(ClassicalRegister(1, f"bit{number}"))
    circuit.reset(2)
    circuit.h(2)
    circuit.unitary(evolution(2**number), range(3))
    circuit.p(-angle, 2)
    circuit.h(2)
    circuit.measure(2, 0)
    return circuit


def estimate(client: Client, seed: int) -> tuple[float, float]:
    """The energy that the bits say, and that of the state they left."""
    part: PartTask | None = None
    phase = 0.0  # in turns, of the bits so far: 0.b1b2... after all
    for number in reversed(range(BITS)):
        circuit = bit_of_phase(number, math.pi * phase)
        part = client.submit_part(circuit, seed=seed) if part is None else part.submit_part(circuit)
        bit = int(part.measured[f"bit{number}"])
        phase = (phase + bit) / 2
    assert part is not None
    turns = phase if phase < 0.5 else phase - 1.0  # of exp(-iEt)
    energy = SparsePauliOp("I").tensor(HAMILTONIAN)  # the third qubit is none of its spins
    left = part.run(QuantumCircuit(3), observables=energy, shots=None)
    return -2 * math.pi * turns / TIME, left.expectation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = parser.parse_args().seeds
    exact = np.linalg.eigvalsh(HAMILTONIAN.to_matrix())
    print("energies:", "  ".join(f"{energy:+.4f}" for energy in exact))
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=2) as client:
        for seed in range(seeds):
            bits, left = estimate(client, seed)
            print(f"seed {seed}: {bits:+.4f} by {BITS} bits, {left:+.4f} of the state left")


if __name__ == "__main__":
    main()
