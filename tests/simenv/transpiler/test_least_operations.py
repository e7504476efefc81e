"""Gates of a few bytes with huge definitions are refused before Qiskit computes these."""

from collections.abc import Callable

import numpy as np
import pytest
from failing import fails
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, Gate, PowerModifier
from qiskit.circuit.library import PauliEvolutionGate, QFTGate, UnitaryGate, XGate
from qiskit.quantum_info import SparsePauliOp
from qiskit.synthesis import LieTrotter, ProductFormula, SuzukiTrotter

from simenv.client.submission.prepare import prepare_one
from simenv.errors import LimitExceededError
from simenv.transpiler.qiskit_runtime import check_operations


class _Undefined(QFTGate):
    def _define(self) -> None:
        raise AssertionError("the definition was computed")


_Undefined.__name__ = "QFTGate"


def _evolution(synthesis: ProductFormula) -> Gate:
    evolved = SparsePauliOp(["XY", "ZZ"])
    gate: Gate = PauliEvolutionGate(evolved, 1.0, synthesis=synthesis)
    return gate


HUGE = {
    "qft": _Undefined(3_000),
    "trotter": _evolution(LieTrotter(reps=10**9)),
    "suzuki": _evolution(SuzukiTrotter(order=10**6)),
}


@pytest.mark.parametrize("gate", HUGE.values(), ids=list(HUGE))
def test_gate_with_huge_definition_is_refused_before_it_is_computed(gate: Gate) -> None:
    circuit = QuantumCircuit(gate.num_qubits)
    circuit.append(gate, range(gate.num_qubits))
    circuit.measure_all()
    fails(LimitExceededError, "more than 1000000 operations", prepare_one, circuit, {"shots": 1})
    with pytest.raises(LimitExceededError, match="circuit 3: more than 1000000 operations"):
        check_operations(circuit, "circuit 3")


def test_many_gates_of_medium_size_are_counted_together() -> None:
    circuit = QuantumCircuit(1_000)
    for _ in range(3):
        circuit.append(QFTGate(1_000), range(1_000))
    fails(LimitExceededError, "", check_operations, circuit)
    small = QuantumCircuit(100)
    small.append(QFTGate(100), range(100))
    check_operations(small)


def _inner(gate: Gate) -> QuantumCircuit:
    circuit = QuantumCircuit(gate.num_qubits, 1, name="inner")
    circuit.append(gate, range(gate.num_qubits))
    return circuit


def _wrapped() -> QuantumCircuit:
    inner = QuantumCircuit(2, name="inner")
    inner.append(HUGE["trotter"], range(2))
    return _inner(inner.to_gate())


def _blocks() -> QuantumCircuit:
    circuit = QuantumCircuit(3_000, 1)
    circuit.if_test((circuit.clbits[0], 1), _inner(HUGE["qft"]), range(3_000), [0])
    return circuit


def _power(power: float) -> QuantumCircuit:
    circuit = QuantumCircuit(3)
    circuit.append(AnnotatedOperation(QFTGate(3), PowerModifier(power)), range(3))
    return circuit


HIDDEN: dict[str, Callable[[], QuantumCircuit]] = {
    "definition": _wrapped,
    "block": _blocks,
    "power": lambda: _power(2.0**60),
    "unitary": lambda: _inner(UnitaryGate(np.eye(2**10))),
}


@pytest.mark.parametrize("make", HIDDEN.values(), ids=list(HIDDEN))
def test_huge_definition_in_an_operation_is_refused(make: Callable[[], QuantumCircuit]) -> None:
    fails(LimitExceededError, "more than 1000000 operations", check_operations, make())


def test_operations_of_small_definitions_are_within_the_limit() -> None:
    for circuit in (_inner(XGate()), _power(1_000.0), _inner(UnitaryGate(np.eye(4)))):
        check_operations(circuit)
