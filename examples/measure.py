"""Counts for `simenv calibrate`: random circuits on a device that differs from its calibration.

    python examples/measure.py counts.jsonl

The device is emulated, with noise other than that of its snapshot; of a quantum computer's job,
`rows_from_qiskit` takes the circuits and the result. A third of the circuits is kept for scores.
"""

import sys
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit

import simenv
from simenv.calibration import data

DEVICE = "superconducting-lattice"
DRIFTED = {"gate.depolarizing": 2.0, "qubit.readout": 1.5, "qubit.idle": 1.3}
QUBITS = (0, 1, 2)
CIRCUITS = 18


def circuit(layers: int, rng: np.random.Generator) -> QuantumCircuit:
    """Layers of native gates on a chain of qubits, which are measured at the end."""
    result = QuantumCircuit(27, len(QUBITS))
    for layer in range(layers):
        for qubit in QUBITS:
            result.rz(float(rng.uniform(0, 2 * np.pi)), qubit)
            result.sx(qubit)
        result.cz(QUBITS[layer % 2], QUBITS[layer % 2 + 1])
    result.measure(QUBITS, range(len(QUBITS)))
    return result


def main(path: Path) -> None:
    """Run the circuits and write their counts."""
    rng = np.random.default_rng(3)
    circuits = [circuit(4 + k, rng) for k in range(CIRCUITS)]
    with simenv.local(workers=1) as client:
        tasks = client.submit_many(circuits, shots=4096, device=DEVICE, noise=DRIFTED, seed=11)
        for task in tasks:
            task.result()
        rows = list(data.rows_from_history(client, [task.id for task in tasks]))
    for row in rows[::3]:
        row["split"] = "test"
    print(data.write(path, rows, DEVICE), "rows written to", path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
