"""qulacs in double precision; its rotations turn by the negative angle."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable
from typing import Any

from bench.peers.base import NAMES, QULACS, SHOTS, Counts, Gate, matrix

_AXES = {"rxx": (1, 1), "rzz": (3, 3)}


def circuit(num_qubits: int, gates: Iterable[Gate]) -> Any:
    """Convert gates to a qulacs circuit."""
    from qulacs import QuantumCircuit, gate

    converted = QuantumCircuit(num_qubits)
    gates_of = {name: getattr(gate, names[QULACS]) for name, names in NAMES.items()}
    gates_of |= {"tdg": gate.Tdag, "sx": gate.sqrtX}
    for name, qubits, angles in gates:
        if name in gates_of:
            make = gates_of[name]
            converted.add_gate(make(*qubits, -angles[0]) if angles else make(*qubits))
        elif name == "u":
            converted.add_gate(gate.U3(qubits[0], *angles))
        elif name == "r":
            theta, phi = angles
            turned = gate.U3(qubits[0], theta, phi - math.pi / 2, math.pi / 2 - phi)
            converted.add_gate(turned)
        elif name in ("ecr", "unitary"):
            whole = angles[0] if angles else matrix(name)
            converted.add_gate(gate.DenseMatrix(list(qubits), whole))
        elif name == "cp":
            phase = gate.to_matrix_gate(gate.U1(qubits[1], angles[0]))
            phase.add_control_qubit(qubits[0], 1)
            converted.add_gate(phase)
        else:
            rotation = gate.PauliRotation(list(qubits), list(_AXES[name]), -angles[0])
            converted.add_gate(rotation)
    return converted


def sample(num_qubits: int, circuit: Any, shots: int) -> Counts:
    """Run a qulacs circuit and count its shots."""
    from qulacs import QuantumState

    state = QuantumState(num_qubits)
    circuit.update_quantum_state(state)
    return collections.Counter(state.sampling(shots))


class Qulacs:
    """Peer (bench.peers.base) of qulacs. `block`: 0: no optimiser; 1: the light one; above 1: gates
    are fused to at most this number of qubits. An environment variable sets the number of
    threads."""

    def __init__(self, _threads: int, block: int = 0) -> None:
        self._block = block

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        from qulacs.circuit import QuantumCircuitOptimizer

        converted = circuit(num_qubits, gates)
        if self._block == 1:
            QuantumCircuitOptimizer().optimize_light(converted)
        elif self._block:
            QuantumCircuitOptimizer().optimize(converted, self._block)
        return num_qubits, converted

    def run(self, job: Any) -> Any:
        return sample(*job, SHOTS)

    def counts(self, result: Any) -> Counts:
        return result


class QulacsFromGates(Qulacs):
    """The circuit is built while the clock runs, without an optimiser."""

    def prepare(self, num_qubits: int, gates: list[Gate]) -> Any:
        return num_qubits, gates

    def run(self, job: Any) -> Any:
        num_qubits, gates = job
        return sample(num_qubits, circuit(num_qubits, gates), SHOTS)
