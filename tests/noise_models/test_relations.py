"""Noise models are composed one after the other, and compared place by place."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from noise_models import channel, document
from noise_models.channel import Channel
from noise_models.custom import ChannelEntry, CustomModel, IdleEntry, ReadoutEntry
from noise_models.errors import NoiseError
from noise_models.model import NoiseModel
from noise_models.options import NoiseOptions
from noise_models.relations.compare import compare, distance
from noise_models.relations.compose import compose
from tests.noise_models.snapshots import transmons

EXTRA = CustomModel(
    name="extra",
    channels=(
        ChannelEntry(gate="cz", depolarizing=0.02),
        ChannelEntry(gate="preparation", paulis={"I": 0.9, "X": 0.1}),
    ),
    idle=(IdleEntry(t1_us=30.0),),
    readout=(ReadoutEntry(p01=0.05, p10=0.1),),
)
FIRST = document.model(transmons())
SECOND = document.model(EXTRA)


def acting(model: NoiseModel) -> Channel:
    result = channel.identity(2)
    for located in model.after_gate("cz", (0, 1)):
        result = result.then(located.channel)
    return result


def test_channels_of_the_second_model_follow_those_of_the_first() -> None:
    both = compose(FIRST, SECOND)
    expected = acting(FIRST).then(acting(SECOND))
    assert np.abs(acting(both).ptm - expected.ptm).max() < 1e-15
    assert np.abs(acting(compose(SECOND, FIRST)).ptm - expected.ptm).max() > 1e-6
    idle = both.idle(1, 200.0)
    assert idle is not None
    parts = [model.idle(1, 200.0) for model in (FIRST, SECOND)]
    assert np.abs(idle.ptm - parts[1].ptm @ parts[0].ptm).max() < 1e-15  # type: ignore[union-attr]
    prepared = both.preparation(0)
    assert prepared is not None
    assert prepared.pauli_probabilities[1] == pytest.approx(0.004 * 0.9 + 0.996 * 0.1)
    assert both.num_qubits == 3
    assert both.crosstalk_pairs == ((0, 1),)
    assert both.duration_ns("cz", (0, 1)) == 300.0
    assert both.digest != compose(SECOND, FIRST).digest


def test_what_the_first_model_reads_is_confused_by_the_second() -> None:
    readout = compose(FIRST, SECOND).readout()
    assert readout is not None
    single = np.array([[0.99, 0.03], [0.01, 0.97]])
    again = np.array([[0.95, 0.1], [0.05, 0.9]])
    expected = again @ single
    assert np.abs(readout.p01 - expected[1, 0]).max() < 1e-15
    assert np.abs(readout.p10 - expected[0, 1]).max() < 1e-15
    (group,) = readout.groups
    together = np.array(transmons().correlated_readout[0].confusion)
    assert np.abs(group.confusion - np.kron(again, again) @ together).max() < 1e-15


def test_models_that_do_not_fit_are_refused() -> None:
    smaller = document.model(msgspec.structs.replace(transmons(), num_qubits=4, qubits=()))
    with pytest.raises(NoiseError, match="3 and 4 qubits"):
        compose(FIRST, smaller)
    confusion = tuple(tuple(row) for row in np.eye(4)[[1, 0, 2, 3]].tolist())
    entry = ReadoutEntry(qubits=(1, 2), confusion=confusion)
    overlapping = CustomModel(name="overlapping", num_qubits=3, readout=(entry,))
    with pytest.raises(NoiseError, match="groups"):
        compose(FIRST, document.model(overlapping)).readout()


def test_equal_documents_have_no_difference() -> None:
    assert all(row.distance == 0.0 for row in compare(transmons(), transmons()))


def test_comparison_names_the_changed_places() -> None:
    snapshot = transmons()
    gates = list(snapshot.gates)
    gates[6] = msgspec.structs.replace(gates[6], error=0.02)
    qubits = list(snapshot.qubits)
    qubits[2] = msgspec.structs.replace(qubits[2], p10=0.3)
    changed = msgspec.structs.replace(snapshot, gates=tuple(gates), qubits=tuple(qubits))
    rows = [row for row in compare(snapshot, changed) if row.distance]
    assert [(row.kind, row.name, row.qubits) for row in rows] == [
        ("readout", "", (2,)),
        ("gate", "cz", (0, 1)),
    ]
    assert rows[0].distance == pytest.approx(0.27)
    assert rows[1].first_infidelity == pytest.approx(9e-3)
    assert rows[1].second_infidelity == pytest.approx(0.02)
    options = (NoiseOptions(), NoiseOptions.parse({"qubit.idle": 0}))
    idle = [row for row in compare(snapshot, snapshot, options) if row.distance]
    assert [(row.kind, row.qubits) for row in idle] == [("idle", (q,)) for q in (2, 1, 0)]


def test_distance_of_pauli_mixtures_is_the_total_variation() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(16), size=2)
    result = distance(channel.from_paulis(weights[0]), channel.from_paulis(weights[1]))
    assert result == pytest.approx(np.abs(weights[0] - weights[1]).sum() / 2.0)
    assert distance(channel.identity(1), channel.from_paulis(np.array([0, 1.0, 0, 0]))) == 1.0


def test_comparison_takes_custom_models() -> None:
    rows = compare(transmons(), EXTRA)
    assert {row.kind for row in rows} == {"gate", "idle", "preparation", "reset", "readout"}
    assert next(row for row in rows if row.kind == "reset").second_infidelity == 0.0
