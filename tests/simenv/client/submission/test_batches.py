"""Circuits of one call: packed by compiled code or one by one, refused by their places."""

import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from simenv.client.circuits import load, native
from simenv.client.submission.options import item_seeds
from simenv.client.submission.prepare import prepare_many
from simenv.errors import BatchRefusedError
from simenv.model import TaskSpec


def bell(angle: float) -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.h(0)
    circuit.rx(angle, 1)
    circuit.measure([0, 1], [0, 1])
    return circuit


@pytest.fixture(params=[True, False], ids=["compiled", "python"])
def packer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.CHOICE, "packer", native.build() if request.param else None)


@pytest.mark.usefixtures("packer")
def test_repeated_circuits_and_texts_have_programs_of_their_own_places() -> None:
    one, two = bell(0.1), bell(0.2)
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[1]; creg c[1]; h q[0]; measure q[0]->c[0];'
    for work in ([one, two, one], [one, text, two, one, text]):
        specs = prepare_many(work, {"seed": 5, "shots": 10}).specs
        seeds = item_seeds(5, len(work), None)
        expected = [
            TaskSpec(load(each).packed, 10, seed) for each, seed in zip(work, seeds, strict=True)
        ]
        assert specs == expected


@pytest.mark.usefixtures("packer")
def test_bad_circuits_are_refused_at_each_of_their_places() -> None:
    free = QuantumCircuit(1, 1)
    free.rx(Parameter("x"), 0)
    free.measure(0, 0)
    with pytest.raises(BatchRefusedError) as refused:
        prepare_many([bell(0.1), free, bell(0.2), free, bell(0.1)], {})
    assert [error.index for error in refused.value.errors] == [1, 3]
    unmeasured = QuantumCircuit(1)
    with pytest.raises(BatchRefusedError) as refused:
        prepare_many([unmeasured, bell(0.1), unmeasured], {})
    assert [error.index for error in refused.value.errors] == [0, 2]


@pytest.mark.usefixtures("packer")
def test_programs_above_the_limit_are_refused_by_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small, large = bell(0.1), bell(0.2)
    for _ in range(20):
        large.h(0)
    limit = len(load(small).packed)
    monkeypatch.setattr("simenv.client.circuits.text_checks.MAX_PACKED_BYTES", limit)
    with pytest.raises(BatchRefusedError, match=f"the limit is {limit}") as refused:
        prepare_many([small, large, small], {})
    assert [error.index for error in refused.value.errors] == [1]
