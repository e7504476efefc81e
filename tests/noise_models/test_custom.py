"""Devices that users describe, and their documents."""

import json
import math

import numpy as np
import pytest
from failing import fails
from qiskit.quantum_info import PTM
from qiskit_aer import noise as aer

from noise_models import channel, document, library
from noise_models.build import build
from noise_models.channel import Channel
from noise_models.custom import ChannelEntry, CustomModel
from noise_models.document import ChannelModel, dump, from_values, load
from noise_models.options import NoiseOptions
from noise_models.relations import compare, compose
from noise_models.strict_json import NoiseError, SnapshotError
from tests.noise_models.snapshots import transmons
from tests.noise_models.test_channel import random_kraus

DAMPED = [[[1, 0], [0, math.sqrt(0.9)]], [[0, math.sqrt(0.1)], [0, 0]]]
DOCUMENT = {
    "kind": "channels",
    "name": "mine",
    "num_qubits": 3,
    "channels": [
        {"gate": "sx", "depolarizing": 0.01},
        {"gate": "sx", "qubits": [2], "kraus": DAMPED},
        {"gate": "sx", "qubits": [2], "paulis": {"I": 0.9, "Y": 0.1}},
        {"gate": "cx", "paulis": {"II": 0.9, "XZ": 0.1}},
        {"gate": "cx", "operands": [1], "relaxation": {"t1_us": 50.0, "t2_us": 120.0}},
        {"gate": "cz", "qubits": [0, 1], "device_qubits": [2], "unitary": [[1, 0], [0, [0, 1]]]},
        {"gate": "reset", "paulis": {"I": 0.98, "X": 0.02}},
        {"gate": "preparation", "qubits": [0], "paulis": {"I": 0.97, "X": 0.03}},
    ],
    "idle": [{"t1_us": 50.0, "t2_us": 70.0, "excited": 0.1}, {"qubits": [1]}],
    "readout": [
        {"p01": 0.01, "p10": 0.02},
        {"qubits": [1], "p01": 0.1},
        {"qubits": [0, 1], "confusion": np.eye(4)[[1, 0, 2, 3]].tolist()},
    ],
    "durations": [{"gate": "cx", "duration_ns": 300.0}],
    "zz": [{"qubits": [0, 1], "rate_khz": 20.0}],
}


def model(document: object = DOCUMENT, **options: object) -> ChannelModel:
    outcome = load(json.dumps(document).encode())
    named = {name.replace("__", "."): value for name, value in options.items()}
    return ChannelModel(outcome, NoiseOptions.parse(named))


def same(made: Channel | None, expected: Channel) -> bool:
    return made is not None and bool(np.abs(made.ptm - expected.ptm).max() < 1e-14)


def test_channels_of_a_gate_are_those_of_its_qubits_or_of_all() -> None:
    result = model()
    (first,) = result.after_gate("sx", (0,))
    assert same(first.channel, channel.depolarizing(0.01, 1))
    second = result.after_gate("sx", (2,))
    assert [each.qubits for each in second] == [(2,), (2,)]
    assert same(second[0].channel, channel.from_kraus([np.array(k) for k in DAMPED]))
    assert same(second[1].channel, channel.from_paulis(np.array([0.9, 0.0, 0.1, 0.0])))
    assert result.after_gate("h", (0,)) == result.after_gate("preparation", (0,)) == ()


def test_channels_act_on_operands_or_device_qubits() -> None:
    mixture, relaxed = model().after_gate("cx", (2, 0))
    assert mixture.qubits == (2, 0)
    weights = np.zeros(16)
    weights[0], weights[4 * 1 + 3] = 0.9, 0.1  # X on the second operand, Z on the first
    assert same(mixture.channel, channel.from_paulis(weights))
    assert relaxed.qubits == (0,)
    assert same(relaxed.channel, channel.relaxation(300.0, 50.0, 100.0))
    (spectator,) = model().after_gate("cz", (0, 1))
    assert spectator.qubits == (2,)
    assert same(spectator.channel, channel.from_unitary(np.diag([1.0, 1j])))


def test_idle_preparation_reset_readout_and_crosstalk_are_given() -> None:
    result = model()
    assert same(result.idle(0, 90.0), channel.relaxation(90.0, 50.0, 70.0, 0.1))
    assert result.idle(1, 90.0) is None
    assert result.has_idle_noise
    assert same(result.preparation(0), channel.from_paulis(np.array([0.97, 0.03, 0.0, 0.0])))
    assert result.preparation(1) is None
    assert same(result.after_reset(1), channel.from_paulis(np.array([0.98, 0.02, 0.0, 0.0])))
    readout = result.readout()
    assert (readout.p01.tolist(), readout.p10.tolist()) == ([0.01, 0.1, 0.01], [0.02, 0.0, 0.02])
    assert readout.groups[0].confusion[0].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert (result.crosstalk_pairs, result.duration_ns("cx", (0, 1))) == (((0, 1),), 300.0)


def test_factors_scale_the_given_noise() -> None:
    assert same(model(gate=0.5).after_gate("sx", (0,))[0].channel, channel.depolarizing(0.005, 1))
    assert (model(gate=0).after_gate("sx", (2,)), model(gate=0).crosstalk_pairs) == ((), ())
    assert same(
        model(qubit__thermal=0, qubit__idle=2).idle(0, 90.0), channel.relaxation(180.0, 50.0, 70.0)
    )
    assert not model(idle=False).has_idle_noise
    assert model(all=0).readout() is None
    assert model(qubit__correlated_readout=0).readout().groups == ()  # type: ignore[union-attr]
    assert model(gate=0.5).digest != model().digest


@pytest.mark.parametrize(
    "options", [{"recipe": "aer"}, {"gate.coherent": 0}, {"qubit.t1_us": 5}, {"gate": 2}]
)
def test_options_without_meaning_are_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(NoiseError) as caught:
        ChannelModel(from_values(DOCUMENT), NoiseOptions.parse(options))
    (name,) = options
    assert (str(options["recipe"]) if name == "recipe" else name) in caught.value.message


def test_model_is_exported_and_read_back() -> None:
    result = from_values(DOCUMENT)
    data = dump(result)
    assert (load(data), dump(load(data)), json.loads(data)["kind"]) == (result, data, "channels")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "noise"}, "kind"),
        ({"format": 2}, "format"),
        ({"name": ""}, "name"),
        ({"colour": 1}, "colour"),
        ({"num_qubits": -1}, "num_qubits"),
        ({"channels": [{"gate": "x"}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "depolarizing": 0.1, "paulis": {"I": 1}}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "depolarizing": 1.5}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "paulis": {"I": 0.5}}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "paulis": {"I": 0.5, "Q": 0.5}}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "paulis": {"III": 1}}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "kraus": [[[1, 0], [0, 2]]]}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "kraus": [[[1, 0], [0]]]}]}, "channels[0]"),
        ({"channels": [{"gate": "x", "kraus": [[["a", 0], [0, 1]]]}]}, "channels[0].kraus[0][0]"),
        ({"channels": [{"gate": "x y", "depolarizing": 0.1}]}, "channels[0].gate"),
        ({"channels": [{"gate": "measure", "depolarizing": 0.1}]}, "channels[0].gate"),
        ({"channels": [{"gate": "x", "qubits": [3], "depolarizing": 0.1}]}, "channels[0].qubits"),
        ({"channels": [{"gate": "x", "qubits": [1, 1], "unitary": [[1]]}]}, "channels[0].qubits"),
        ({"channels": [{"gate": "ccx", "qubits": [0, 1, 2], "depolarizing": 0.1}]}, "channels[0]"),
        ({"idle": [{"t1_us": 0}]}, "idle[0].t1_us"),
        ({"idle": [{"t1_us": 5}, {"t1_us": 6}]}, "idle[1].qubits"),
        ({"readout": [{"p01": 1.2}]}, "readout[0].p01"),
        ({"readout": [{"confusion": [[1, 0.5], [0, 0.4]]}]}, "readout[0].confusion"),
        ({"readout": [{"confusion": np.eye(4).tolist()}]}, "readout[0].confusion"),
        ({"durations": [{"gate": "x", "duration_ns": -1}]}, "durations[0].duration_ns"),
        ({"zz": [{"qubits": [0, 9], "rate_khz": 1}]}, "zz[0].qubits"),
    ],
)  # fmt: skip
def test_wrong_documents_are_refused_by_field(change: dict[str, object], field: str) -> None:
    caught = fails(SnapshotError, "", load, json.dumps({**DOCUMENT, **change}).encode())
    assert caught.field.startswith(field)


def test_channel_of_the_wrong_size_for_its_gate_is_refused() -> None:
    result = model({**DOCUMENT, "channels": [{"gate": "cx", "kraus": DAMPED}]})
    fails(NoiseError, "", result.after_gate, "cx", (0, 1))


def test_nearly_trace_preserving_kraus_operators_are_corrected() -> None:
    entry = ChannelEntry(gate="x", kraus=(((1.0 + 1e-10, 0.0), (0.0, 1.0)),))
    channel_model = ChannelModel(CustomModel(name="near", channels=(entry,)), NoiseOptions())
    assert channel.from_kraus([np.diag([1.0 + 1e-10, 1.0])]).cptp_error < 1e-15
    assert channel_model.after_gate("x", (0,)) == ()


def aer_model() -> aer.NoiseModel:
    """An Aer model with errors of every kind of instruction."""
    noise_model = aer.NoiseModel()
    noise_model.add_all_qubit_quantum_error(aer.depolarizing_error(0.1, 1), ["sx", "x"])
    relaxed = aer.thermal_relaxation_error(50, 70, 1)
    reset = aer.thermal_relaxation_error(50, 30, 1, 0.1)
    noise_model.add_quantum_error(relaxed.expand(reset), "cx", [0, 1])
    noise_model.add_quantum_error(
        aer.depolarizing_error(0.05, 2).compose(reset.tensor(relaxed)), "cx", [1, 2]
    )
    noise_model.add_quantum_error(aer.kraus_error([np.array(k) for k in DAMPED]), "id", [1])
    mixed = aer.kraus_error(random_kraus(2, 3, 4))
    noise_model.add_quantum_error(mixed, "cz", [1, 0])
    noise_model.add_quantum_error(aer.coherent_unitary_error(np.diag([1, 1, 1, 1j])), "cz", [0, 2])
    noise_model.add_quantum_error(aer.pauli_error([("XZ", 0.2), ("IY", 0.8)]), "ecr", [2, 0])
    noise_model.add_quantum_error(aer.reset_error(0.1, 0.05), "reset", [0])
    noise_model.add_all_qubit_readout_error([[0.99, 0.01], [0.02, 0.98]])
    noise_model.add_readout_error([[0.9, 0.1], [0.2, 0.8]], [2])
    return noise_model


def test_channels_of_an_aer_model_are_its_errors() -> None:
    result = aer_model()
    values = json.dumps(result.to_dict(serializable=True)).encode()
    document = load(values)
    channel_model = ChannelModel(document, NoiseOptions())
    count = 0
    for name, by_qubits in result._local_quantum_errors.items():
        for qubits, error in by_qubits.items():
            expected = PTM(error).data.real
            if name == "reset":
                assert np.abs(channel_model.after_reset(qubits[0]).ptm - expected).max() < 1e-14  # type: ignore[union-attr]
            else:
                (value,) = channel_model.after_gate(name, qubits)
                assert value.qubits == qubits
                assert np.abs(value.channel.ptm - expected).max() < 1e-14
                assert value.channel.cptp_error < 1e-14
            count += 1
    assert count == 7
    for name in ("sx", "x"):
        error = result._default_quantum_errors[name]
        assert (
            np.abs(channel_model.after_gate(name, (1,))[0].channel.ptm - PTM(error).data.real).max()
            < 1e-14
        )
    readout = channel_model.readout()
    assert readout.p01.tolist() == [0.01, 0.01, 0.1, 0.01]
    assert (readout.p10.tolist(), load(dump(document))) == ([0.02, 0.02, 0.2, 0.02], document)


def test_correlated_readout_of_aer_has_true_outcomes_in_rows() -> None:
    rows = np.random.default_rng(2).dirichlet(np.ones(4), size=4)
    noise_model = aer.NoiseModel()
    noise_model.add_readout_error(rows.tolist(), [0, 1])
    document = from_values(noise_model.to_dict(serializable=True))
    (group,) = ChannelModel(document, NoiseOptions()).readout().groups  # type: ignore[union-attr]
    assert np.abs(group.confusion - rows.T).max() < 1e-15


def test_aer_model_holds_for_more_qubits_than_it_names() -> None:
    noise_model = aer.NoiseModel()
    noise_model.add_all_qubit_readout_error([[0.9, 0.1], [0.2, 0.8]])
    noise_model.add_readout_error([[0.7, 0.3], [0.4, 0.6]], [1])
    document = from_values(noise_model.to_dict(serializable=True))
    assert document.num_qubits == 0
    extended = ChannelModel(document, NoiseOptions())
    readout = extended.readout()
    assert readout.widened(5).p01.tolist() == [0.1, 0.3, 0.1, 0.1, 0.1]
    assert readout.widened(5).p10.tolist() == [0.2, 0.4, 0.2, 0.2, 0.2]
    snapshot = library.load("superconducting-lattice")
    device = build(snapshot, NoiseOptions())
    assert len(compose(device, extended).readout().p01) == device.num_qubits
    rows = [row for row in compare(snapshot, document) if row.kind == "readout"]
    assert {row.qubits for row in rows} == {(qubit,) for qubit in range(device.num_qubits)}
    without = from_values({"errors": []})
    rows = [row for row in compare(without, document) if row.kind == "readout"]
    assert {row.qubits: row.distance for row in rows} == {(0,): 0.2, (1,): 0.4}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("probabilities",), [0.5, 0.5], "errors[0].probabilities"),
        (("probabilities",), ["x"], "errors[0].probabilities"),
        (("type",), "herror", "errors[0].type"),
        (("instructions", 0, 0, "name"), "teleport", "errors[0].instructions[0][0].name"),
        (("instructions", 0, 0, "qubits"), [0, 1], "errors[0].instructions[0][0].qubits"),
        (("instructions", 0, 0, "qubits"), [2], "errors[0]"),
        (("instructions", 0, 0, "params"), [[[1, "z"]]], "errors[0].instructions[0][0].params"),
        (("instructions", 0, 0, "params"), [[[1, 0], [0, 5]]], "errors[0]"),
        (("operations",), ["measure"], "channels[0].gate"),
    ],
)  # fmt: skip
def test_wrong_models_are_refused(path: tuple[object, ...], value: object, field: str) -> None:
    noise_model = aer.NoiseModel()
    noise_model.add_quantum_error(aer.kraus_error([np.array(k) for k in DAMPED]), "x", [0])
    values = noise_model.to_dict(serializable=True)
    at = values["errors"][0]
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    caught = fails(SnapshotError, "", from_values, json.loads(json.dumps(values)))
    assert caught.field.startswith(field)


def test_value_that_the_size_of_a_gate_forbids_is_refused_with_the_gate() -> None:
    noise = from_values({"kind": "channels", "name": "x", "channels": [
        {"gate": "cx", "depolarizing": 1.07}  # the limit of one qubit is 4/3, of two 16/15
    ]})  # fmt: skip
    with pytest.raises(NoiseError, match=r"after cx on \(0, 1\): depolarizing parameter 1.07"):
        ChannelModel(noise, NoiseOptions()).after_gate("cx", (0, 1))


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"gates": {}}, "known: name, num_qubits, format, channels, idle"),
        ({"channels": [{"gate": "cx", "depolarising": 0.1}]}, "did you mean depolarizing? known: "),
    ],
)
def test_fields_that_exist_are_named_for_an_unknown_one(values: object, hint: str) -> None:
    assert isinstance(values, dict)
    with pytest.raises(SnapshotError, match="unknown field") as caught:
        from_values({"kind": "channels", "name": "x", **values})
    assert caught.value.hint.startswith(hint)


CUSTOM = CustomModel(name="mine", channels=(ChannelEntry(gate="x", depolarizing=0.1),))


@pytest.mark.parametrize("given", [transmons(), CUSTOM])
def test_documents_are_read_back(given: document.Document) -> None:
    data = dump(given)
    assert (load(data), dump(load(data)), document.digest(data)) == (given, data, given.digest)


@pytest.mark.parametrize("data", [b"{}", b"[]", b'{"kind": "x"}', b"1", b"{", b"\xff"])
def test_other_data_is_refused(data: bytes) -> None:
    assert fails(SnapshotError, "", load, data).field
