"""PennyLane Lightning (lightning.qubit)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.peers.base import NAMES, PENNYLANE, SHOTS, Counts, Gate, by_outcome, counted


class Lightning:
    """Peer (bench.peers.base) of Lightning: one tape that is ready for the device."""

    def __init__(self, _threads: int, precision: str = "double") -> None:
        self._dtype = np.complex128 if precision == "double" else np.complex64

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        import pennylane as qml

        operations = {name: getattr(qml, names[PENNYLANE]) for name, names in NAMES.items()} | {
            "u": qml.U3, "cp": qml.ControlledPhaseShift, "rzz": qml.IsingZZ, "rxx": qml.IsingXX,
            "sx": qml.SX, "ecr": qml.ECR,
        }  # fmt: skip
        converted = []
        for name, qubits, angles in gates:
            wires = [num_qubits - 1 - qubit for qubit in qubits]
            if name == "tdg":
                converted.append(qml.adjoint(qml.T(wires[0])))
            elif name == "r":
                theta, phi = angles
                half = math.pi / 2
                converted.append(qml.U3(theta, phi - half, half - phi, wires=wires))
            else:
                converted.append(operations[name](*angles, wires=wires))
        device = qml.device("lightning.qubit", wires=num_qubits, c_dtype=self._dtype)
        sample = qml.sample(wires=range(num_qubits))
        script = qml.tape.QuantumScript(converted, [sample], shots=SHOTS)
        (script,), _ = device.preprocess_transforms()([script])
        return device, script

    def run(self, job: Any) -> Any:
        device, script = job
        return counted(np.asarray(device.execute([script])[0]))

    def counts(self, result: Any) -> Counts:
        return by_outcome(result)
