"""The same circuits in the libraries one would use instead, in this process, each at its best.

A circuit is a list of gates (name, qubits, angle), so that no peer pays for another's format. What
is timed for a peer: building its own circuit object where it needs one, running, and the counts as
a dict. One thread each: the circuits are too small for more.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable

from qiskit import QuantumCircuit

from simenv.cli.measure.circuits import Gate


@functools.cache
def _aer() -> object:
    from qiskit_aer import AerSimulator

    return AerSimulator(method="statevector", max_parallel_threads=1)


def aer(circuits: list[QuantumCircuit], shots: int) -> list[dict[str, int]]:
    """All of them in one call: Aer's best."""
    result = _aer().run(circuits, shots=shots).result()  # type: ignore[attr-defined]
    return [result.get_counts(k) for k in range(len(circuits))]


def qulacs_circuit(num_qubits: int, made: list[Gate]) -> object:
    """As qulacs has it; its rotations turn the other way."""
    from qulacs import QuantumCircuit as Circuit

    circuit = Circuit(num_qubits)
    for name, qubits, angle in made:
        if name == "cx":
            circuit.add_CNOT_gate(*qubits)
        elif name == "ry":
            circuit.add_RY_gate(qubits[0], -angle)
        else:
            circuit.add_RZ_gate(qubits[0], -angle)
    return circuit


def qulacs(num_qubits: int, made: list[Gate], shots: int) -> dict[str, int]:
    from qulacs import QuantumState

    state = QuantumState(num_qubits)
    qulacs_circuit(num_qubits, made).update_quantum_state(state)  # type: ignore[attr-defined]
    return dict(collections.Counter(state.sampling(shots)))


@functools.cache
def lightning(num_qubits: int, shots: int) -> Callable[[list[Gate]], object]:
    """A qnode of that shape; its circuit is traced anew for each call, as its users have it."""
    import pennylane as qml

    device = qml.device("lightning.qubit", wires=num_qubits)

    @functools.partial(qml.set_shots, shots=shots)
    @qml.qnode(device)
    def run(made: list[Gate]) -> object:
        for name, qubits, angle in made:
            if name == "cx":
                qml.CNOT(qubits)
            elif name == "ry":
                qml.RY(angle, qubits[0])
            else:
                qml.RZ(angle, qubits[0])
        return qml.counts()

    return run
