"""QPY files of others: gates of a few bytes whose definitions take gigabytes or minutes."""

import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import AnnotatedOperation, ControlModifier, Gate, Parameter, PowerModifier
from qiskit.circuit.library import MCXGate, PauliEvolutionGate, QFTGate, UnitaryGate
from qiskit.quantum_info import SparsePauliOp, random_unitary
from qiskit.synthesis import SuzukiTrotter

from simenv.client.circuits import load, untrusted_programs
from simenv.errors import LimitExceededError, ProgramError
from simenv.sandbox import function_process
from simenv.transpiler.qpy import write_qpy


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> Iterator[None]:
    yield
    untrusted_programs.PROGRAMS.close()


def circuit_of(operation: Any) -> QuantumCircuit:
    circuit = QuantumCircuit(operation.num_qubits, 1)
    circuit.append(operation, range(operation.num_qubits))
    circuit.measure(0, 0)
    return circuit


def wrapped(gate: Gate) -> Gate:
    circuit = QuantumCircuit(gate.num_qubits, name="w")
    circuit.append(gate, range(gate.num_qubits))
    result: Gate = circuit.to_gate()
    return result


def evolution() -> Gate:
    """5^9 steps of three terms."""
    terms = SparsePauliOp(["XYZ", "ZZX", "YIY"])
    result: Gate = PauliEvolutionGate(terms, 1.0, synthesis=SuzukiTrotter(order=20))
    return result


HOSTILE: dict[str, Callable[[], QuantumCircuit]] = {
    "controlled": lambda: circuit_of(
        AnnotatedOperation(UnitaryGate(random_unitary(8, seed=1)), ControlModifier(11))
    ),
    "power": lambda: circuit_of(AnnotatedOperation(QFTGate(6), PowerModifier(2.0**30))),
    "wrapped": lambda: circuit_of(wrapped(QFTGate(2_500))),
    "trotter": lambda: circuit_of(evolution()),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_huge_definition_takes_no_memory_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_process, "SECONDS", 3.0)
    data = write_qpy(HOSTILE[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((LimitExceededError, ProgramError), match=r"circuit\.data: "):
        untrusted_programs.load_untrusted(data, "circuit.data")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_sound_file_gives_the_same_program_as_its_circuit() -> None:
    circuit = circuit_of(MCXGate(20))
    circuit.rx(Parameter("angle"), 0)
    expected = load(circuit)
    result = untrusted_programs.load_untrusted(write_qpy(circuit), "circuit.data")
    assert result.packed == expected.packed
    assert (result.num_qubits, result.measures, result.parameters) == (21, True, ("angle",))
