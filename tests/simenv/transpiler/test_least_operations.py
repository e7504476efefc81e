"""Gates of a few bytes with huge definitions are refused before Qiskit computes these."""

from __future__ import annotations

import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.circuit.library import PauliEvolutionGate, QFTGate
from qiskit.quantum_info import SparsePauliOp
from qiskit.synthesis import LieTrotter

from simenv.client.submission.prepare import prepare_one
from simenv.errors import LimitExceededError
from simenv.transpiler.limits import check_operations


class _Undefined(QFTGate):
    def _define(self) -> None:
        raise AssertionError("the definition was computed")


_Undefined.__name__ = "QFTGate"


def _trotter() -> Gate:
    evolved = SparsePauliOp(["XY", "ZZ"])
    gate: Gate = PauliEvolutionGate(evolved, 1.0, synthesis=LieTrotter(reps=10**9))
    return gate


@pytest.mark.parametrize("gate", [_Undefined(3_000), _trotter()], ids=["qft", "trotter"])
def test_gate_with_huge_definition_is_refused_before_it_is_computed(gate: Gate) -> None:
    circuit = QuantumCircuit(gate.num_qubits)
    circuit.append(gate, range(gate.num_qubits))
    circuit.measure_all()
    with pytest.raises(LimitExceededError, match="more than 1000000 operations"):
        prepare_one(circuit, {"shots": 1})
    with pytest.raises(LimitExceededError, match="circuit 3: more than 1000000 operations"):
        check_operations(circuit, "circuit 3")


def test_many_gates_of_medium_size_are_counted_together() -> None:
    circuit = QuantumCircuit(1_000)
    for _ in range(3):
        circuit.append(QFTGate(1_000), range(1_000))
    with pytest.raises(LimitExceededError):
        check_operations(circuit)
    small = QuantumCircuit(100)
    small.append(QFTGate(100), range(100))
    check_operations(small)
