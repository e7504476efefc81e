"""Circuits in parts, through messages of the service."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from qiskit import QuantumCircuit
from service import ServiceHarness

from simenv.client.circuits import load
from simenv.model import TaskOptions, TaskParts
from simenv.service.admission.background_checks import look
from simenv.wire.messages import client as m
from simulators.catalog import builtin_card, state_bytes
from simulators.catalog.costs import CostQuery


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    harness = ServiceHarness(tmp_path)
    harness.join()
    return harness


def asked(bench: ServiceHarness, parts: TaskParts, key: str) -> m.Accepted | m.Refused:
    answer = bench.submit(key=key, terms=TaskOptions(parts=parts, ranks=1))
    assert isinstance(answer, m.Accepted | m.Refused), answer
    return answer


def test_key_of_a_part_stands_for_it_whatever_worker_is_preferred(bench: ServiceHarness) -> None:
    parts = TaskParts((1,), 5.0, (), "main-0")
    task = asked(bench, parts, "part")
    assert isinstance(task, m.Accepted)
    again = asked(bench, msgspec.structs.replace(parts, worker="main-1"), "part")
    assert isinstance(again, m.Accepted)
    assert again.first == task.first
    other = asked(bench, msgspec.structs.replace(parts, keep_s=6.0), "part")
    assert isinstance(other, m.Refused)
    assert other.refusals[0].code == "key_conflict"


WIDTH = 26


def measuring(num_qubits: int = WIDTH) -> QuantumCircuit:
    """A qubit is measured and used again."""
    circuit = QuantumCircuit(num_qubits, 1)
    circuit.h(range(num_qubits))
    circuit.measure(0, 0)
    circuit.h(0)
    return circuit


def resetting() -> QuantumCircuit:
    """A first operation that branches, on qubits that a part has used."""
    circuit = QuantumCircuit(WIDTH, 1)
    circuit.reset(0)
    circuit.h(0)
    return circuit


def states_charged(circuit: QuantumCircuit, end: int) -> int:
    """States in the memory that the engine is expected to need."""
    terms = TaskOptions(
        parts=TaskParts((end,), 5.0), ranks=1, engine="statevector", outputs=("probabilities",)
    )
    _, profile = look(load(circuit).packed, terms)
    card = builtin_card("statevector")
    profile = card.effective_profile(profile, ())
    return card.costs.memory_bytes(profile, CostQuery()) // state_bytes(WIDTH)


def test_part_is_charged_with_its_state_and_the_one_before_it_whatever_it_measures() -> None:
    circuit = measuring()
    assert states_charged(circuit, len(circuit.data)) == 2


def test_what_follows_a_part_is_charged_with_its_states_and_the_one_it_begins_with() -> None:
    part = measuring()
    end = len(part.data)
    assert states_charged(part.compose(QuantumCircuit(WIDTH, 1)), end) == 2
    for then in (measuring(), resetting()):
        result = part.compose(then)
        assert states_charged(result, len(result.data)) == 2
        assert states_charged(result, end) == 9
