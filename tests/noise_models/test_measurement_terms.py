"""Transitions and crosstalk of measurements in snapshots, models, limits and relations."""

import math

import msgspec
import numpy as np
import pytest

from noise_models import document
from noise_models.build import build
from noise_models.calibration import CalibrationSnapshot, MeasurementCrosstalk
from noise_models.channel import Channel
from noise_models.device_model import DeviceModel
from noise_models.limits import limited
from noise_models.options import NoiseOptions
from noise_models.relations import compare, compose
from noise_models.snapshot import clamps, dump, load
from noise_models.strict_json import NoiseError, SnapshotError
from tests.noise_models.snapshots import transmons

TERMS = (MeasurementCrosstalk((0, 1), 0.03, 0.2), MeasurementCrosstalk((), 0.01))


def with_qubit(**values: float) -> CalibrationSnapshot:
    first, *others = transmons().qubits
    return msgspec.structs.replace(
        transmons(),
        qubits=(msgspec.structs.replace(first, **values), *others),
        measurement_crosstalk=TERMS,
    )


SNAPSHOT = with_qubit(measure_decay=0.05, measure_excitation=0.02)


def model(values: dict[str, object]) -> DeviceModel:
    return build(SNAPSHOT, NoiseOptions.parse(values))


def left(built: DeviceModel, state: int, qubit: int = 0) -> float:
    """Probability of |1> after a measurement of a qubit in a basis state."""
    vector = np.array([1.0, 0.0, 0.0, 1.0 - 2.0 * state])
    for each in built.after_gate("measure", (qubit,)):
        if each.qubits == (qubit,):
            vector = each.channel.ptm @ vector
    return float(0.5 - 0.5 * vector[3])


def test_transitions_with_relaxation_are_the_measured_ones() -> None:
    assert left(model({}), 0) == pytest.approx(0.02, abs=1e-15)
    assert 1.0 - left(model({}), 1) == pytest.approx(0.05, abs=1e-15)
    relaxed = build(transmons(), NoiseOptions())
    assert left(model({"qubit.measurement": 0}), 1) == left(relaxed, 1)
    below = build(with_qubit(measure_decay=1e-3), NoiseOptions())
    assert left(below, 1) == pytest.approx(left(relaxed, 1)), "relaxation alone has more"


def disturbed(values: dict[str, object], other: int) -> Channel:
    """What a measurement of qubit 0 does to another one."""
    result = model(values).disturbance(0).on(other)
    assert result is not None
    return result


def test_measurements_of_different_qubits_share_the_channel_on_any_other() -> None:
    built = model({})
    assert built.disturbs
    assert built.disturbance(0).others is built.disturbance(2).others is not None
    assert built.disturbance(0).own.keys() == {1}
    assert built.disturbance(2).own == {}


def test_crosstalk_of_a_pair_stands_before_that_of_any_two() -> None:
    assert [each.qubits for each in model({}).by_measurement("measure", 0)] == [(0,)]
    assert disturbed({}, 2).infidelity == pytest.approx(0.01)
    assert disturbed({}, 1).ptm[1, 1] == pytest.approx(0.91 * math.cos(0.2))
    scaled = disturbed({"qubit.measurement_crosstalk": 0.5}, 1)
    assert scaled.ptm[2, 1] == pytest.approx(0.955 * math.sin(0.1))
    for other in (1, 2):
        every = disturbed({"qubit.measurement_crosstalk_error": 0.02}, other)
        assert every.infidelity == pytest.approx(0.02)
    assert not model({"qubit.measurement_crosstalk": 0}).disturbs
    aer = build(SNAPSHOT, NoiseOptions.parse("aer"))
    assert aer.by_measurement("measure", 0) == ()
    assert not aer.disturbs
    assert not aer.disturbance(0).acts
    with pytest.raises(NoiseError, match=r"measurement_crosstalk"):
        model({"recipe": "aer", "qubit.measurement_crosstalk": 0.5})


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ((MeasurementCrosstalk((0,), 0.1),), r"\[0\]\.qubits: 1 qubits"),
        ((MeasurementCrosstalk((0, 0), 0.1),), r"\[0\]\.qubits"),
        ((MeasurementCrosstalk((0, 7), 0.1),), r"\[0\]\.qubits"),
        ((MeasurementCrosstalk((0, 1)), MeasurementCrosstalk((0, 1))), r"\[1\]\.qubits"),
        ((MeasurementCrosstalk((0, 1), 1.5),), r"\[0\]\.error"),
        ((MeasurementCrosstalk((), 0.1, math.nan),), r"\[0\]\.angle_rad"),
    ],
)
def test_crosstalk_that_no_device_has_is_refused(
    terms: tuple[MeasurementCrosstalk, ...], field: str
) -> None:
    values = msgspec.structs.replace(SNAPSHOT, measurement_crosstalk=terms)
    with pytest.raises(SnapshotError, match=f"measurement_crosstalk{field}"):
        dump(values)


def test_a_snapshot_keeps_its_values_and_states_what_acts() -> None:
    assert load(dump(SNAPSHOT)) == SNAPSHOT
    strong = msgspec.structs.replace(
        SNAPSHOT, measurement_crosstalk=(MeasurementCrosstalk((), 0.5),)
    )
    assert "complete dephasing" in dict(clamps(strong))["measurement_crosstalk[0].error"]
    (text,) = limited(model({"qubit.measurement_crosstalk": 20}))
    assert text.startswith("qubit.measurement_crosstalk * 20 is above the physical limit")
    for name in ("qubit.measurement", "qubit.measurement_crosstalk"):
        (text,) = limited(build(transmons(), NoiseOptions.parse({name: 2})))
        assert "gives the device such noise" in text


def test_measurements_of_composed_and_compared_models() -> None:
    both = compose(model({}), model({}))
    assert [each.qubits for each in both.by_measurement("measure", 0)] == [(0,), (0,)]
    assert both.disturbs
    for other in (1, 2):
        once, twice = disturbed({}, other), both.disturbance(0).on(other)
        assert twice is not None
        assert np.allclose(twice.ptm, once.ptm @ once.ptm)
    rows = compare(document.load(dump(SNAPSHOT)), document.load(dump(transmons())))
    places = {row.qubits for row in rows if row.kind == "measurement"}
    assert places == {(0,), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}


def test_the_outcome_of_a_readout_that_is_decided_later_is_calibrated_all_the_same() -> None:
    built = build(with_qubit(readout_decided=0.5), NoiseOptions())
    before, flips = built.before_decision("measure", 0), built.flips_inside("measure", 0)
    assert before is not None
    assert flips is not None
    for state, calibrated in ((0, 0.01), (1, 0.97)):
        vector = before.ptm @ np.array([1.0, 0.0, 0.0, 1.0 - 2.0 * state])
        ones = 0.5 - 0.5 * vector[3]
        read = ones * (1.0 - flips[1]) + (1.0 - ones) * flips[0]
        assert read == pytest.approx(calibrated, abs=1e-15)
    early = build(with_qubit(), NoiseOptions())
    assert early.before_decision("measure", 0) is None
    assert early.flips_inside("measure", 0) is None
    whole = left(early, 1)
    vector = before.ptm @ np.array([1.0, 0.0, 0.0, -1.0])
    for each in built.after_gate("measure", (0,)):
        if each.qubits == (0,):
            vector = each.channel.ptm @ vector
    assert 0.5 - 0.5 * vector[3] == pytest.approx(whole), "the same relaxation in all"
    composed = compose(built, build(transmons(), NoiseOptions()))
    assert composed.flips_inside("measure", 0) is not None
    assert composed.before_decision("measure", 0) is not None
