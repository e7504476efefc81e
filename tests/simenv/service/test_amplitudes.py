"""Tasks with the output `amplitudes`, through messages of the service."""

from __future__ import annotations

from pathlib import Path

import pytest
from qiskit import QuantumCircuit
from service import ServiceHarness, spec

from simenv.client.circuits import load
from simenv.model import Observable, TaskOptions, task_rules
from simenv.wire import codec
from simenv.wire.messages import client as m
from simulators.engine import OUTPUTS


@pytest.fixture
def bench(tmp_path: Path) -> ServiceHarness:
    harness = ServiceHarness(tmp_path)
    harness.join()
    return harness


def terms(*strings: str) -> TaskOptions:
    return TaskOptions(outputs=("amplitudes",), observables=(Observable(strings, b""),))


def asked(bench: ServiceHarness, key: str, *strings: str) -> m.Accepted | m.Refused:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    answer = bench.submit(spec(program=load(circuit).packed), key=key, terms=terms(*strings))
    assert isinstance(answer, m.Accepted | m.Refused), answer
    return answer


def refusal(bench: ServiceHarness, key: str, *strings: str) -> tuple[str, str]:
    answer = asked(bench, key, *strings)
    assert isinstance(answer, m.Refused)
    return answer.refusals[0].code, answer.refusals[0].message


def test_key_stands_for_the_strings_in_their_order(bench: ServiceHarness) -> None:
    task = asked(bench, "one", "00", "11")
    assert isinstance(task, m.Accepted), task
    again = asked(bench, "one", "00", "11")
    assert isinstance(again, m.Accepted)
    assert again.first == task.first
    assert refusal(bench, "one", "11", "00")[0] == "key_conflict"


def test_restart_keeps_the_strings(bench: ServiceHarness) -> None:
    task = asked(bench, "one", "00", "11")
    assert isinstance(task, m.Accepted), task
    bench.restart()
    worker = bench.join()
    bodies = iter(lambda: worker.receive(0.0), None)
    chunks = [each for each in map(codec.to_worker, bodies) if isinstance(each, m.AssignChunk)]
    assert [each.bit_strings for chunk in chunks for each in chunk.terms] == [("00", "11")]


def test_wrong_strings_are_refused(bench: ServiceHarness) -> None:
    assert refusal(bench, "one", "0") == (
        "option",
        "the bit string '0' has 1 bits, the circuit 2 qubits",
    )
    assert "'0x' is not made of 0 and 1" in refusal(bench, "two", "0x")[1]


def test_service_without_this_output_refuses_it_by_name(
    bench: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version knows the other outputs, and ignores no part of the options."""
    monkeypatch.setattr(task_rules, "OUTPUTS", OUTPUTS[:-1])
    monkeypatch.setattr(task_rules, "check_bit_strings", lambda *_: None)
    assert refusal(bench, "one", "00")[1] == "output 'amplitudes' is not known"
