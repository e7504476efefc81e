"""The benchmarks' gates as a circuit of qulacs, and samples of its final state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

_AXES = {"rx": [1], "ry": [2], "rz": [3], "rzz": [3, 3]}


def converted(num_qubits: int, gates: Sequence[tuple[Any, ...]]) -> Any:
    """A circuit of gates (name, qubits, angles). ImportError where qulacs is not installed."""
    from qulacs import QuantumCircuit, gate

    plain = {
        "h": gate.H, "x": gate.X, "s": gate.S, "t": gate.T, "tdg": gate.Tdag, "sx": gate.sqrtX,
        "cx": gate.CNOT, "cz": gate.CZ, "swap": gate.SWAP,
    }  # fmt: skip
    circuit = QuantumCircuit(num_qubits)
    for name, qubits, angles in gates:
        if name in plain:
            circuit.add_gate(plain[name](*qubits))
        elif name == "u":
            circuit.add_gate(gate.U3(qubits[0], *angles))
        elif name == "cp":
            turned = gate.to_matrix_gate(gate.U1(qubits[1], angles[0]))
            turned.add_control_qubit(qubits[0], 1)
            circuit.add_gate(turned)
        else:  # its rotations turn the other way
            circuit.add_gate(gate.PauliRotation(list(qubits), _AXES[name], -angles[0]))
    return circuit


def sampled(num_qubits: int, circuit: Any, shots: int) -> Counter[int]:
    """How often each outcome's number was found."""
    from qulacs import QuantumState

    state = QuantumState(num_qubits)
    circuit.update_quantum_state(state)
    return Counter(state.sampling(shots))
