"""Documents are read by their kind, and written as canonical JSON."""

from __future__ import annotations

import json

import pytest
from qiskit_aer import noise as aer

from noise_models import document
from noise_models.custom import ChannelEntry, CustomModel
from noise_models.errors import SnapshotError
from noise_models.options import NoiseOptions
from tests.noise_models.snapshots import transmons

CUSTOM = CustomModel(name="mine", channels=(ChannelEntry(gate="x", depolarizing=0.1),))


@pytest.mark.parametrize("given", [transmons(), CUSTOM])
def test_documents_are_read_back(given: document.Document) -> None:
    data = document.dump(given)
    assert document.load(data) == given
    assert document.dump(document.load(data)) == data
    assert document.digest(data) == given.digest


def test_models_are_those_of_the_document() -> None:
    assert document.model(transmons()).after_gate("sx", (0,))
    assert document.model(CUSTOM).after_gate("x", (0,))
    assert not document.model(CUSTOM, NoiseOptions.parse("off")).after_gate("x", (0,))


def test_aer_models_are_documents() -> None:
    noise_model = aer.NoiseModel()
    noise_model.add_all_qubit_quantum_error(aer.depolarizing_error(0.1, 1), "x")
    outcome = document.load(json.dumps(noise_model.to_dict(serializable=True)).encode())
    assert document.model(outcome).after_gate("x", (5,))


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"kind": "x"}', b"1", b"{", b"\xff"])
def test_other_data_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError) as caught:
        document.load(data)
    assert caught.value.field
