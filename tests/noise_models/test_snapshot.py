"""Snapshots: their checks, normal form and relations."""

import hashlib
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from failing import fails
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from noise_models import calibration, channel, document, library, normal_form, snapshot
from noise_models.calibration import leaked_infidelity
from noise_models.channel import Channel
from noise_models.confusion import independent_confusion
from noise_models.custom import ChannelEntry, CustomModel, IdleEntry, ReadoutEntry
from noise_models.model import NoiseModel
from noise_models.normal_form import NormalForm
from noise_models.options import NoiseOptions
from noise_models.relations import compare, compose, distance
from noise_models.strict_json import NoiseError, SnapshotError
from tests.noise_models.snapshots import transmons
from tests.noise_models.test_channel import random_kraus


def small(**changes: Any) -> calibration.CalibrationSnapshot:
    """A device of two qubits, with some fields replaced."""
    base = calibration.CalibrationSnapshot(
        name="pair",
        num_qubits=2,
        technology="superconducting",
        calibrated="2026-01-02T03:04:05+00:00",
        native_gates=(calibration.NativeGate("sx", 1), calibration.NativeGate("cz", 2)),
        coupling=((0, 1), (1, 0)),
        qubits=(
            calibration.QubitCalibration(t1_us=100.0, t2_us=80.0, p01=0.01, p10=0.03),
            calibration.QubitCalibration(t1_us=90.0, t2_us=70.0, readout_error=0.02),
        ),
        gates=(
            calibration.GateCalibration("sx", (), 3e-4, 32.0),
            calibration.GateCalibration("cz", (0, 1), 5e-3, 68.0),
        ),
        zz=(calibration.ZZCoupling((0, 1), 12.5),),
        correlated_readout=(
            calibration.CorrelatedReadout(
                (0, 1),
                (
                    (0.97, 0.02, 0.02, 0.0),
                    (0.01, 0.97, 0.01, 0.02),
                    (0.01, 0.01, 0.96, 0.03),
                    (0.01, 0.0, 0.01, 0.95),
                ),
            ),
        ),
        dates={"qubits[0].t1_us": "2026-01-01T00:00:00+00:00"},
    )
    return replace(base, **changes)


def values(given: calibration.CalibrationSnapshot) -> dict[str, Any]:
    document = json.loads(snapshot.dump(given))
    assert isinstance(document, dict)
    return document


def test_joint_flips_of_a_pair_follow_from_its_confusion() -> None:
    alone = independent_confusion(np.array([[0.01, 0.05], [0.02, 0.12]]))
    both = 0.97 * alone + 0.03 * alone[::-1]  # both bits of an outcome flipped
    for confusion, p in ((alone, 0.0), (both, 0.03)):
        group = calibration.CorrelatedReadout((4, 2), tuple(map(tuple, confusion.tolist())))
        assert group.joint_flip == pytest.approx(p, abs=1e-12)


def test_dump_and_load_return_the_same_snapshot_and_bytes() -> None:
    result = small()
    data = snapshot.dump(result)
    assert (snapshot.load(data), snapshot.dump(snapshot.load(data))) == (result, data)
    assert result.digest == hashlib.sha256(data).digest()


def test_layout_of_json_does_not_change_the_digest() -> None:
    result = small()
    turned = dict(reversed(values(result).items()))
    assert snapshot.load(json.dumps(turned, indent=3).encode()).digest == result.digest


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("qubits", 1, "t1_us"), "long", "qubits[1].t1_us"),
        (("qubits", 1, "t1_us"), -1.0, "qubits[1].t1_us"),
        (("qubits", 1, "t1_us"), 0.0, "qubits[1].t1_us"),
        (("qubits", 1, "t1_us"), float("nan"), "qubits[1].t1_us"),
        (("qubits", 1, "t2_us"), float("inf"), "qubits[1].t2_us"),
        (("qubits", 0, "p01"), 1.5, "qubits[0].p01"),
        (("qubits", 0, "p01"), True, "qubits[0].p01"),
        (("qubits", 0, "colour"), 1, "qubits[0].colour"),
        (("qubits",), [], None),
        (("qubits",), [{}], "qubits"),
        (("gates", 1, "qubits"), [0, 2], "gates[1].qubits"),
        (("gates", 1, "qubits"), [1, 1], "gates[1].qubits"),
        (("gates", 1, "qubits"), [0], "gates[1].qubits"),
        (("gates", 1, "error"), 10**30, "gates[1].error"),
        (("gates", 1, "name"), "c\x00z", "gates[1].name"),
        (("gates", 1, "duration_ns"), 1e300, "gates[1].duration_ns"),
        (("coupling", 1), [0, 1], "coupling[1]"),
        (("coupling", 0, 1), 10**40, "coupling[0]"),
        (("num_qubits",), 0, "num_qubits"),
        (("num_qubits",), 10**9, "num_qubits"),
        (("name",), "a\ud800", "name"),
        (("name",), "a" * 101, "name"),
        (("technology",), "abacus", "technology"),
        (("calibrated",), "yesterday", "calibrated"),
        (("dates",), {"qubits[0].t1_us": "noon"}, "dates['qubits[0].t1_us']"),
        (("dates",), {"../x": "2026-01-01"}, "dates['../x']"),
        (("zz", 0, "rate_khz"), 1e9, "zz[0].rate_khz"),
        (("correlated_readout", 0, "confusion"), [[1.0]], "correlated_readout[0].confusion"),
        (("correlated_readout", 0, "confusion", 0, 0), 0.5, "correlated_readout[0].confusion"),
        (("format",), 3, "format"),
        (("format",), True, "format"),
        (("kind",), "channels", "kind"),
        (("all_to_all",), True, "coupling"),
        *(
            (("qubits", 0, "t2_star_us"), x, "qubits[0].t2_star_us")
            for x in (0.0, -1.0, 1e-300, 9e-4)
        ),
        *(
            (("qubits", 0, "memory_error"), x, "qubits[0].memory_error")
            for x in (-1e-4, 1.5, math.inf)
        ),
        (("gates", 0, "leakage"), 1.5, "gates[0].leakage"),
        (("gates", 0, "seepage"), 1.5, "gates[0].seepage"),
        (("qubits", 0, "leaked_readout"), -0.1, "qubits[0].leaked_readout"),
        *(
            (("measurement_crosstalk",), terms, f"measurement_crosstalk[{place}")
            for terms, place in (
                ([{"qubits": [0], "error": 0.1}], "0].qubits"),
                ([{"qubits": [0, 0], "error": 0.1}], "0].qubits"),
                ([{"qubits": [0, 7], "error": 0.1}], "0].qubits"),
                ([{"qubits": [0, 1]}, {"qubits": [0, 1]}], "1].qubits"),
                ([{"qubits": [0, 1], "error": 1.5}], "0].error"),
                ([{"qubits": [], "error": 0.1, "angle_rad": math.nan}], "0].angle_rad"),
            )
        ),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    path: tuple[str | int, ...], value: object, field: str | None
) -> None:
    tree: Any = values(small())
    at = tree
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    data = json.dumps(tree).encode()
    if field is None:
        assert snapshot.load(data).qubits == ()
        return
    assert fails(SnapshotError, "", snapshot.load, data).field == field


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"kind": ' * 50_000,
        b'{"kind": "snapshot", "name": "a", "name": "b"}',
        b'{"kind": "snapshot", "num_qubits": ' + b"9" * 5_000 + b"}",
        snapshot.dump(small())[:-20],
    ],
)
def test_damaged_json_is_a_snapshot_error(data: bytes) -> None:
    assert fails(SnapshotError, "", snapshot.load, data).field


def test_dump_refuses_what_load_would_refuse() -> None:
    wrong = small(dt_ns=float("nan"))
    fails(SnapshotError, "dt_ns", snapshot.dump, wrong)


def test_t2_above_2_t1_is_stored_as_measured_and_reported_as_a_clamp() -> None:
    qubits = (
        calibration.QubitCalibration(t1_us=50.0, t2_us=130.0),
        calibration.QubitCalibration(t1_us=50.0, t2_us=100.0),
    )
    document = snapshot.load(snapshot.dump(small(qubits=qubits)))
    assert (document.qubits[0].t2_us, document.qubits[0].t2_limited_us) == (130.0, 100.0)
    assert [field for field, _ in snapshot.clamps(document)] == ["qubits[0].t2_us"]


def test_readout_error_that_is_not_the_mean_is_reported_as_a_clamp() -> None:
    qubits = (
        calibration.QubitCalibration(p01=0.47, p10=0.0095, readout_error=0.0071),
        calibration.QubitCalibration(p01=0.0042, p10=0.0098, readout_error=0.0132),  # of a Heron
    )
    document = small(qubits=qubits)
    note = "0.0071 is not the mean of p01 and p10, 0.23975; used: p01 and p10"
    assert snapshot.clamps(document) == (("qubits[0].readout_error", note),)
    assert document.qubits[0].confusion == (0.47, 0.0095)


def test_the_error_of_a_gate_that_does_not_work_is_reported_as_a_clamp() -> None:
    gates = (
        calibration.GateCalibration("cz", (0, 1), 1.0),
        calibration.GateCalibration("cz", (1, 0), 0.8),
        calibration.GateCalibration("sx", (0,), 0.7),
    )
    result = snapshot.clamps(small(gates=gates))
    assert [field for field, _ in result] == ["gates[0].error", "gates[2].error"]


def test_confusion_keeps_its_asymmetry_and_completes_a_missing_half() -> None:
    first, second = small().qubits
    assert (first.confusion, second.confusion) == ((0.01, 0.03), (0.02, 0.02))
    half = calibration.QubitCalibration(p01=0.01, readout_error=0.03)
    assert half.confusion == pytest.approx((0.01, 0.05))
    assert calibration.QubitCalibration().confusion is None


@pytest.mark.parametrize("name", library.BUNDLED)
def test_bundled_profiles_load_without_clamps(name: str) -> None:
    document = library.load(name)
    assert (document.name, snapshot.clamps(document)) == (name, ())
    if document.analog is None:
        assert document.all_to_all is not bool(document.coupling)
    assert {gate.name for gate in document.gates} <= {gate.name for gate in document.native_gates}


def test_library_refuses_an_unknown_name_with_the_known_ones() -> None:
    assert "trapped-ions" in fails(SnapshotError, "no device 'abacus'", library.load, "abacus").hint


def test_fields_that_exist_are_named_for_an_unknown_one() -> None:
    rotation = {"paul": "X"}
    values: dict[str, Any] = {"kind": "snapshot", "name": "x", "num_qubits": 1}
    values["gates"] = [{"name": "x", "rotations": [rotation]}]
    with pytest.raises(SnapshotError, match=r"^gates\[0\].rotations\[0\].paul: ") as caught:
        snapshot.from_values(values)
    assert caught.value.hint == "did you mean pauli? known: pauli, angle_rad"


def checked(given: Channel) -> NormalForm:
    """The normal form, with every part checked; those of the norm-based form too."""
    assert _checked(given, normal_form.norm_based_form(given)).rest_weight == 1.0
    return _checked(given, normal_form.normal_form(given))


def _checked(given: Channel, form: NormalForm) -> NormalForm:
    """A form of channels to 1e-12 whose sum is the given one."""
    assert np.abs(form.channel.ptm - given.ptm).max() < 1e-12
    assert form.probabilities.min() >= 0.0
    assert form.probabilities.sum() + form.rest_weight == pytest.approx(1.0, abs=1e-12)
    side = 1 << given.num_qubits
    total = (form.rest.conj().transpose(0, 2, 1) @ form.rest).sum(axis=0)
    if form.rest_weight:
        assert np.abs(total - np.eye(side)).max() < 1e-12
    else:
        assert len(form.rest) == 0
    if form.unitary is not None:
        assert np.abs(form.unitary @ form.unitary.conj().T - np.eye(side)).max() < 1e-13
    return form


def rotation(angle: float, generator: int, num_qubits: int) -> Channel:
    pauli = channel.paulis(num_qubits)[generator]
    half = angle / 2.0
    return channel.from_unitary(math.cos(half) * np.eye(len(pauli)) - 1j * math.sin(half) * pauli)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 5), st.integers(0, 2**32),
    st.sampled_from([0.0, 1e-13, 1e-9, 1e-4, 0.02, 0.5, 1.0]),
    st.sampled_from([0.0, 1e-8, 3e-3, 0.4, 2.0]),
)  # fmt: skip
def test_random_channels_reassemble(
    num_qubits: int, count: int, seed: int, weight: float, angle: float
) -> None:
    size = 4**num_qubits
    noise = channel.from_kraus(random_kraus(num_qubits, count, seed)).ptm
    near = Channel((1.0 - weight) * np.eye(size) + weight * noise)
    checked(near)
    generator = 1 + seed % (size - 1)
    checked(rotation(angle, generator, num_qubits).then(near))
    checked(near.then(channel.depolarizing(3e-3, num_qubits)))


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.5, 1.9, 1.999, 2.0])
@pytest.mark.parametrize("excited", [0.0, 0.05])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 3e-3])
def test_relaxation_reassembles(ratio: float, excited: float, rate: float) -> None:
    one = channel.relaxation(300.0, 100.0, 100.0 * ratio, excited)
    two = channel.tensor(one, channel.relaxation(300.0, 70.0, 50.0, excited))
    checked(one)
    checked(two)
    checked(channel.depolarizing(rate, 1).then(one))
    checked(rotation(0.02, 15, 2).then(channel.depolarizing(rate, 2)).then(two))


@pytest.mark.parametrize(
    ("ratio", "error"),
    [(0.5, 0.0107), (1.0, 0.0085), (1.5, 0.0088), (1.8, 0.0101), (1.95, 0.0112), (2.0, 0.0117)],
)
def test_identity_has_its_largest_weight(ratio: float, error: float) -> None:
    """Depolarizing noise 3e-3 and relaxation of both qubits over 300 ns, T1 = 100 us; the largest
    weight is 1 / <<1|C^-1|1>> of the Choi matrix."""
    outcome = channel.relaxation(300.0, 100.0, 100.0 * ratio)
    result = channel.depolarizing(3e-3, 2).then(channel.tensor(outcome, outcome))
    form = checked(result)
    assert 1.0 - form.probabilities[0] == pytest.approx(error, abs=5e-5)
    ket = np.eye(4).reshape(-1) / 2.0
    largest = 1.0 / float((ket @ np.linalg.solve(result.choi, ket)).real)
    assert form.probabilities[0] == pytest.approx(largest, abs=1e-9)


def test_pure_amplitude_damping_has_no_identity_part() -> None:
    form = checked(channel.relaxation(300.0, 100.0, 200.0))
    assert form.rest_weight > 1.0 - 1e-9
    assert len(form.rest) == 2


def test_pauli_channels_have_no_rest() -> None:
    weights = np.random.default_rng(3).dirichlet(np.ones(16))
    form = checked(channel.from_paulis(weights))
    assert form.unitary is None
    assert np.abs(form.probabilities - weights).max() < 1e-15
    assert form.rest_weight == 0.0


@pytest.mark.parametrize("generator", [1, 3, 6, 15])
def test_coherent_part_is_taken_out_as_the_unitary(generator: int) -> None:
    turned = rotation(0.05, generator, 2)
    form = checked(turned.then(channel.depolarizing(0.01, 2)))
    assert form.unitary is not None
    assert form.rest_weight == 0.0
    assert np.abs(channel.from_unitary(form.unitary).ptm - turned.ptm).max() < 1e-12
    assert 1.0 - form.probabilities[0] == pytest.approx(0.01 * 15 / 16)


def test_pauli_part_is_as_heavy_as_it_can_be() -> None:
    """Weak duality: sum d <= tr(M Y) for every Y >= 0 with a diagonal of at least 1."""
    outcome = channel.relaxation(300.0, 100.0, 150.0)
    result = channel.depolarizing(3e-3, 2).then(channel.tensor(outcome, outcome))
    form = checked(result)
    basis = channel.paulis(2).transpose(0, 2, 1).reshape(16, 16).T
    chi = basis.conj().T @ result.choi @ basis / 4.0
    weights = form.probabilities
    chosen = np.flatnonzero(weights[1:] > 0.0) + 1
    assert len(chosen) == 12  # all outside the block of the identity
    part = chi[np.ix_(chosen, chosen)]
    dual = np.linalg.inv(part - np.diag(weights[chosen]))
    scale = 1.0 / np.sqrt(dual.diagonal().real)
    dual = scale[:, None] * dual * scale
    bound = float(np.trace(part @ dual).real)
    assert weights[chosen].sum() <= bound
    assert weights[chosen].sum() > bound * (1.0 - 1e-3)


def test_equal_channels_have_one_normal_form() -> None:
    first = channel.depolarizing(0.01, 2)
    assert normal_form.normal_form(first) is normal_form.normal_form(Channel(first.ptm.copy()))


def test_ties_of_the_rest_are_decomposed_alike_in_spite_of_rounding() -> None:
    outcome = channel.relaxation(300.0, 100.0, 100.0)
    result = channel.depolarizing(3e-3, 2).then(channel.tensor(outcome, outcome))
    noise = 1e-17 * np.random.default_rng(1).normal(size=(16, 16))
    noise[0] = 0.0
    first = normal_form.normal_form(result)
    second = normal_form.normal_form(Channel(result.ptm + noise))
    assert first.rest.shape == second.rest.shape
    assert np.abs(first.rest - second.rest).max() < 1e-6


def test_norm_based_form_has_a_heavier_leading_term_under_strong_damping() -> None:
    damping = channel.depolarizing(3e-3, 1).then(channel.relaxation(1_000.0, 10.0, 20.0))
    mixed, drawn = normal_form.normal_form(damping), normal_form.norm_based_form(damping)
    assert mixed.probabilities[0] < 0.6
    assert drawn.leading_probability > 0.9
    assert drawn.leading_probability > mixed.leading_probability


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
    parts = [model.idle(1, 200.0) for model in (FIRST, SECOND)]
    assert np.abs(idle.ptm - parts[1].ptm @ parts[0].ptm).max() < 1e-15  # type: ignore[union-attr]
    assert both.preparation(0).pauli_probabilities[1] == pytest.approx(0.004 * 0.9 + 0.996 * 0.1)
    assert (both.num_qubits, both.crosstalk_pairs) == (3, ((0, 1),))
    assert both.duration_ns("cz", (0, 1)) == 300.0
    assert both.digest != compose(SECOND, FIRST).digest


def test_what_the_first_model_reads_is_confused_by_the_second() -> None:
    readout = compose(FIRST, SECOND).readout()
    single = np.array([[0.99, 0.03], [0.01, 0.97]])
    again = np.array([[0.95, 0.1], [0.05, 0.9]])
    expected = again @ single
    assert np.abs(readout.p01 - expected[1, 0]).max() < 1e-15
    assert np.abs(readout.p10 - expected[0, 1]).max() < 1e-15
    (group,) = readout.groups
    together = np.array(transmons().correlated_readout[0].confusion)
    assert np.abs(group.confusion - np.kron(again, again) @ together).max() < 1e-15


def test_models_that_do_not_fit_are_refused() -> None:
    smaller = document.model(replace(transmons(), num_qubits=4, qubits=()))
    fails(NoiseError, "3 and 4 qubits", compose, FIRST, smaller)
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
    gates[6] = replace(gates[6], error=0.02)
    qubits = list(snapshot.qubits)
    qubits[2] = replace(qubits[2], p10=0.3)
    changed = replace(snapshot, gates=tuple(gates), qubits=tuple(qubits))
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


def test_comparison_has_layers_interactions_groups_and_leakage() -> None:
    """Each was compared as if it were not there, and a gate that leaks as a better one."""
    snapshot = transmons()
    gate = next(each for each in snapshot.gates if each.name == "cz" and each.qubits)
    pair = (min(gate.qubits), max(gate.qubits))
    layer = calibration.LayerCalibration(
        (calibration.LayerGate("cz", pair),), pair, (calibration.PauliGenerator("XX", pair, 0.03),)
    )
    flips = np.array([snapshot.qubits[q].confusion or (0.0, 0.0) for q in pair])
    confusion = 0.9 * independent_confusion(flips) + 0.1 * np.eye(4)[::-1]
    group = calibration.CorrelatedReadout(pair, tuple(map(tuple, confusion.tolist())))
    leaking = tuple(
        replace(each, leakage=0.02) if each is gate else each for each in snapshot.gates
    )
    change = msgspec.structs.replace
    plain = change(snapshot, zz=(), correlated_readout=(), layers=())
    expected = {
        "layer": change(plain, layers=(layer,)),
        "crosstalk": change(plain, zz=(calibration.ZZCoupling(pair, 60.0),), zz_strength=1.0),
        "readout": change(plain, correlated_readout=(group,)),
        "gate": change(plain, gates=leaking),
    }
    for kind, other in expected.items():
        rows = [row for row in compare(plain, other) if row.distance > 1e-12]
        assert [(row.kind, row.qubits) for row in rows] == [(kind, pair)], kind
        assert compare(other, other)[0].distance == 0.0
        (back,) = (row for row in compare(other, plain) if row.distance > 1e-12)
        assert (back.first_infidelity, back.distance) == (
            rows[0].second_infidelity,
            rows[0].distance,
        )
        if kind == "layer":
            assert rows[0].name == f"cz {pair[0]}-{pair[1]}"
            assert rows[0].first_infidelity == pytest.approx(gate.error)
            assert rows[0].second_infidelity == pytest.approx(0.8 * (-0.5 * np.expm1(-0.06)))
        elif kind == "readout":
            assert rows[0].second_infidelity == pytest.approx(1.0 - np.diag(confusion).mean())
        elif kind == "gate":
            leaked = leaked_infidelity(change(gate, leakage=0.02), 2)
            assert rows[0].second_infidelity == pytest.approx(leaked, rel=0.2)
            assert rows[0].second_infidelity > rows[0].first_infidelity


def test_distance_of_pauli_mixtures_is_the_total_variation() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(16), size=2)
    result = distance(channel.from_paulis(weights[0]), channel.from_paulis(weights[1]))
    assert result == pytest.approx(np.abs(weights[0] - weights[1]).sum() / 2.0)
    assert distance(channel.identity(1), channel.from_paulis(np.array([0, 1.0, 0, 0]))) == 1.0


def test_comparison_takes_custom_models() -> None:
    rows = compare(transmons(), EXTRA)
    kinds = {"gate", "idle", "crosstalk", "preparation", "reset", "readout"}
    assert {row.kind for row in rows} == kinds
    assert next(row for row in rows if row.kind == "reset").second_infidelity == 0.0


def test_coupled_are_the_pairs_of_usable_qubits_with_a_working_gate() -> None:
    both = ((0, 1), (1, 0))
    gates = [calibration.GateCalibration("cz", pair, 0.01) for pair in both]
    assert small(coupling=both, gates=tuple(gates)).coupled == both
    broken = (gates[0], replace(gates[1], error=1.0))
    assert small(coupling=both, gates=broken).coupled == both[:1]
    assert small(coupling=both, gates=broken[:1]).coupled == both[:1]
    listed = calibration.GateCalibration("cz", (1, 0))  # without figures: it acts
    assert small(coupling=both, gates=(broken[0], listed)).coupled == both
    everywhere = calibration.GateCalibration("cz", (), 0.01)
    assert small(coupling=both, gates=(everywhere, broken[1])).coupled == both[:1]
    assert small(coupling=both, gates=(), unusable=(0,)).coupled == ()
    assert small(coupling=both, gates=()).coupled == both


def test_no_pair_of_fez_is_coupled_without_a_working_gate() -> None:
    if not library.resolve("fez"):
        pytest.skip("qiskit-ibm-runtime is not installed")
    device, report = library.read("fez")
    errors = {gate.qubits: gate.error for gate in device.gates if gate.name == "cz"}
    assert {qubit for pair in device.coupling for qubit in pair} >= {32, 80}
    assert not {qubit for pair in device.coupled for qubit in pair} & {32, 80}
    assert all(errors[pair] < 1.0 for pair in device.coupled)
    notes = {line.note for line in report.missing if line.field == "coupling"}
    assert "32, 80: no gate on two qubits works there" in notes
