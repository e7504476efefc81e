"""A run of minutes, watched: a deep random circuit and whether its amplitudes look random.

`task.wait(progress=True)` keeps one line on the terminal; the task belongs to the environment and
would go on without this program. Of a random state of dimension D the sum of squared probabilities
is 2 / (D + 1) (Porter and Thomas).

    python examples/long_run.py --qubits 24 --layers 200      # minutes
"""

from __future__ import annotations

import argparse
import math
import os

import numpy as np
from qiskit import QuantumCircuit

import simenv


def random_circuit(qubits: int, layers: int, seed: int) -> QuantumCircuit:
    """Random turns of every qubit, and a brick wall of CZ, so often."""
    rng = np.random.default_rng(seed)
    circuit = QuantumCircuit(qubits, name="random")
    for layer in range(layers):
        for qubit, (a, b, c) in enumerate(rng.uniform(0, 2 * math.pi, (qubits, 3))):
            circuit.u(a, b, c, qubit)
        for qubit in range(layer % 2, qubits - 1, 2):
            circuit.cz(qubit, qubit + 1)
    return circuit


def main() -> None:
    parser = argparse.ArgumentParser(description="A deep random circuit, watched.")
    parser.add_argument("--qubits", type=int, default=20)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    circuit = random_circuit(args.qubits, args.layers, args.seed)
    # Under `simenv exec` there is an environment for us; else we bring our own.
    with simenv.connect() if "SIMENV_SERVICE" in os.environ else simenv.local(workers=1) as client:
        task = client.submit(circuit, shots=None, outputs=("statevector",), name="random")
        print(f"{task.id}: {circuit.size():,} gates on {args.qubits} qubits")
        task.wait(progress=True)
        result = task.result()
        probabilities = np.abs(result.statevector) ** 2
    squared = float(np.sum(probabilities**2)) * (len(probabilities) + 1)
    print(f"done in {result.timing.run_s:.1f} s on {result.slots} slots of {result.node}")
    print(f"norm {probabilities.sum():.9f}")
    print(f"(D + 1) x sum of squared probabilities: {squared:.3f}; of a random state 2")


if __name__ == "__main__":
    main()
