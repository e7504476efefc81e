"""Terms of devices in snapshots, models, limits and relations: T2* beside T2, leakage and seepage,
memory errors, transitions and crosstalk of measurements."""

import math

import msgspec
import numpy as np
import pytest

from noise_models import document
from noise_models.build import NOT_AER, build
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCrosstalk,
    QubitCalibration,
    leaked_infidelity,
)
from noise_models.channel import Channel
from noise_models.device_model import DeviceModel
from noise_models.limits import limited
from noise_models.options import COMPONENTS, NoiseOptions
from noise_models.relations import compare, compose
from noise_models.snapshot import clamps, dump, load
from noise_models.strict_json import NoiseError
from tests.noise_models.snapshots import transmons

replace = msgspec.structs.replace


def with_qubits(name: str, *values: float | None) -> CalibrationSnapshot:
    qubits = zip(transmons().qubits, values, strict=True)
    return replace(transmons(), qubits=tuple(replace(each, **{name: v}) for each, v in qubits))


def with_qubit(**values: float) -> CalibrationSnapshot:
    """The first qubit has these values; measurements disturb."""
    first, *others = transmons().qubits
    terms = (MeasurementCrosstalk((0, 1), 0.03, 0.2), MeasurementCrosstalk((), 0.01))
    qubits = (replace(first, **values), *others)
    return replace(transmons(), qubits=qubits, measurement_crosstalk=terms)


def with_gate(**values: float) -> CalibrationSnapshot:
    gates = tuple(replace(g, **values) if g.name == "cx" else g for g in transmons().gates)
    return replace(transmons(), gates=gates)


DETUNED = with_qubits("t2_star_us", 40.0, 20.0, 50.0)  # the last one is above T2
FORGETFUL = with_qubits("memory_error", 2e-4, 0.05, None)
DISTURBING = with_qubit(measure_decay=0.05, measure_excitation=0.02)
LEAKING = with_gate(leakage=2e-3, seepage=0.1)
CX = next(gate for gate in LEAKING.gates if gate.name == "cx")
PLACE = LEAKING.gates.index(CX)


def model(snapshot: CalibrationSnapshot, **options: object) -> DeviceModel:
    named = {name.replace("__", "."): value for name, value in options.items()}
    return build(snapshot, NoiseOptions.parse(named))


def changed_places(snapshot: CalibrationSnapshot, kind: str) -> set[tuple[int, ...]]:
    """Places at which the comparison with the device without the term names a kind of noise."""
    rows = compare(document.load(dump(snapshot)), document.load(dump(transmons())))
    return {row.qubits for row in rows if row.kind == kind}


@pytest.mark.parametrize("snapshot", [DETUNED, LEAKING, FORGETFUL, DISTURBING])
def test_terms_of_a_snapshot_are_kept(snapshot: CalibrationSnapshot) -> None:
    assert load(dump(snapshot)) == snapshot


@pytest.mark.parametrize(
    ("snapshot", "field", "text"),
    [
        (DETUNED, "qubits[2].t2_star_us", "T2* = 50 us is above T2"),
        (with_gate(leakage=0.9), f"gates[{PLACE}].leakage", "above 0.75"),
        (
            with_gate(leakage=0.1),
            f"gates[{PLACE}].leakage",
            "above the error of cx on [0, 1], 0.02; used: leakage, no depolarizing error",
        ),
        (
            with_qubits("memory_error", 0.4, 0.1, 0.1),
            "qubits[0].memory_error",
            "complete dephasing",
        ),
        (
            replace(DISTURBING, measurement_crosstalk=(MeasurementCrosstalk((), 0.5),)),
            "measurement_crosstalk[0].error",
            "complete dephasing",
        ),
        (LEAKING, f"gates[{PLACE}].leakage", ""),
    ],
)
def test_what_acts_in_place_of_a_value_is_stated(
    snapshot: CalibrationSnapshot, field: str, text: str
) -> None:
    notes = dict(clamps(snapshot))
    assert text in notes[field] if text else field not in notes


@pytest.mark.parametrize(
    ("snapshot", "options", "start"),
    [
        (DETUNED, {"qubit.t2_star_us": 100.0}, "qubit.t2_star_us: T2* is not below T2 for qubit 2"),
        (DETUNED, {"qubit.t2_us": 10.0}, "qubit.t2_us: T2* is not below T2 for qubit 0 and 2 more"),
        (LEAKING, {"gate.leakage": 1e4}, "gate.leakage * 10000 is above the physical limit for cx"),
        (
            FORGETFUL,
            {"qubit.memory": 10},
            "qubit.memory * 10 is above the physical limit for qubit 1",
        ),
        (
            DISTURBING,
            {"qubit.measurement_crosstalk": 20},
            "qubit.measurement_crosstalk * 20 is above the physical limit",
        ),
    ],
)
def test_values_and_factors_beyond_a_limit_are_named(
    snapshot: CalibrationSnapshot, options: dict[str, float], start: str
) -> None:
    (text,) = limited(build(snapshot, NoiseOptions.parse(options)))
    assert text.startswith(start)


@pytest.mark.parametrize(
    ("component", "giving"),
    [
        ("qubit.quasistatic", "qubit.t2_star_us gives"),
        ("gate.leakage", "gate.leakage_1q and gate.leakage_2q gives"),
        ("qubit.memory", "qubit.memory_error gives"),
        ("qubit.measurement", "gives"),
        ("qubit.measurement_crosstalk", "gives"),
    ],
)
def test_factors_of_absent_terms_are_named_and_aer_has_no_part_of_them(
    component: str, giving: str
) -> None:
    (text,) = limited(build(transmons(), NoiseOptions.parse({component: 2})))
    assert f"{giving} the device such noise" in text
    with pytest.raises(NoiseError, match=component.partition(".")[2]):
        build(DETUNED, NoiseOptions.parse({"recipe": "aer", component: 0.5}))


def test_the_envelope_with_t2_is_1_over_e_at_t2_star() -> None:
    built = model(DETUNED)
    for qubit, star_us in ((0, 40.0), (1, 20.0)):
        echo_us = DETUNED.qubits[qubit].t2_limited_us
        deviation = 1e3 * built.detuning(qubit)
        left = math.exp(-star_us / echo_us - 0.5 * (deviation * star_us) ** 2)
        assert left == pytest.approx(math.exp(-1.0))
    assert built.detuning(2) == 0.0
    assert QubitCalibration(t1_us=50.0, t2_star_us=30.0).detuning_rad_us == pytest.approx(
        math.sqrt(2.0 * (1.0 - 0.3)) / 30.0
    ), "without T2 it is 2 T1"


def test_factor_and_value_of_the_detuning() -> None:
    plain = model(DETUNED)
    for off in ({"qubit__quasistatic": 0.0}, {"qubit": 0.0}, {"recipe": "aer"}):
        assert model(DETUNED, **off).detuning(0) == 0.0
    assert model(DETUNED, qubit__quasistatic=2.0).detuning(0) == pytest.approx(
        2 * plain.detuning(0)
    )
    assert model(DETUNED, qubit__t2_star_us=10.0).detuning(2) > 0.0
    assert model(DETUNED, qubit__quasistatic=0.0).digest != plain.digest
    assert model(DETUNED, qubit__t2_star_us=1e-3).detuning(0) > 0.0
    with pytest.raises(NoiseError, match=r"qubit\.t2_star_us = 2e-08") as caught:
        model(DETUNED, qubit__t2_star_us=2e-8)
    assert caught.value.hint == "microseconds, at least 0.001"


def test_the_mean_over_detunings_counts_among_the_known_parts_of_a_gate_error() -> None:
    gate = replace(CX, leakage=None, seepage=None)
    rest = model(DETUNED).gates.rest(gate, (0, 1))
    assert rest < build(transmons()).gates.rest(gate, (0, 1))
    assert model(DETUNED, qubit__quasistatic=0).gates.rest(gate, (0, 1)) == rest


def test_detunings_of_composed_models_add_as_independent_ones() -> None:
    composed = compose(model(DETUNED), model(DETUNED, qubit__quasistatic=2.0))
    assert composed.detuning(0) == pytest.approx(math.sqrt(5.0) * model(DETUNED).detuning(0))
    assert changed_places(DETUNED, "detuning") == {(0,), (1,)}


def test_the_leakage_of_a_gate_is_the_mean_over_the_computational_states() -> None:
    p, s = model(LEAKING).leakage("cx", (0, 1))
    states = [1.0 - (1.0 - p * a) * (1.0 - p * b) for a in (0, 1) for b in (0, 1)]
    assert (sum(states) / 4, s) == (pytest.approx(2e-3), 0.1)
    assert model(LEAKING).leakage("sx", (0,)) == (0.0, 0.0)
    assert GateCalibration("sx", leakage=1e-3).leaks_from_one(1) == pytest.approx(2e-3)


def test_factor_and_values_of_leakage() -> None:
    plain = model(LEAKING)
    p, _ = plain.leakage("cx", (0, 1))
    off = model(LEAKING, gate__leakage=0.0)
    assert (off.leaks, off.leakage("cx", (0, 1))) == (False, (0.0, 0.0))
    assert model(LEAKING, gate__leakage=3.0).leakage("cx", (0, 1))[0] == pytest.approx(3.0 * p)
    assert model(LEAKING, gate__leakage_1q=1e-3).leakage("sx", (0,))[0] == pytest.approx(2e-3)
    assert model(LEAKING, gate__seepage=0.4).leakage("cx", (0, 1))[1] == 0.4
    assert model(LEAKING, qubit__leaked_readout=0.3).leaked_readout(0) == 0.3
    assert plain.leaked_readout(0) == 1.0
    assert off.digest != plain.digest
    assert not model(LEAKING, recipe="aer").leaks


@pytest.mark.parametrize("recipe", ["aer", "aer-properties"])
def test_what_a_recipe_does_not_have_can_be_taken_out(recipe: str) -> None:
    plain = model(LEAKING, recipe=recipe)
    for component in COMPONENTS:
        without = build(LEAKING, NoiseOptions.parse({"recipe": recipe, component: 0.0}))
        if component in NOT_AER:
            for name, qubits in (("sx", (0,)), ("cx", (0, 1))):
                pairs = (each.after_gate(name, qubits) for each in (without, plain))
                for a, b in zip(*pairs, strict=True):
                    assert (a.channel.ptm == b.channel.ptm).all()
    with pytest.raises(NoiseError, match=r"gate\.zz_khz"):
        build(LEAKING, NoiseOptions.parse({"recipe": recipe, "gate.zz_khz": 0.0}))


def test_leakage_is_a_known_part_of_a_gate_error() -> None:
    assert leaked_infidelity(CX, 2) == pytest.approx(2e-3, rel=0.3)
    leaking, plain = model(LEAKING).gates, build(transmons()).gates
    assert leaking.rest(CX, (0, 1)) < plain.rest(CX, (0, 1)) + 1e-12
    without = plain.infidelity(replace(CX, leakage=None), (0, 1))
    assert leaking.infidelity(CX, (0, 1)) > without


def test_leakage_of_composed_models_is_that_of_one_after_the_other() -> None:
    p, s = model(LEAKING).leakage("cx", (0, 1))
    both = compose(model(LEAKING), model(LEAKING))
    assert both.leaks
    assert both.leakage("cx", (0, 1)) == pytest.approx((1 - (1 - p) ** 2, 1 - (1 - s) ** 2))
    read = model(LEAKING, qubit__leaked_readout=0.2)
    assert compose(build(transmons()), read).leaked_readout(0) == 0.2


def test_the_infidelity_of_a_layer_is_the_memory_error() -> None:
    built = model(FORGETFUL)
    assert built.memory(0, 1).infidelity == pytest.approx(2e-4)
    assert built.memory(2, 1) is None
    assert built.memory(1, 2).ptm[1, 1] == pytest.approx(0.85**2)
    assert model(FORGETFUL, recipe="aer").memory(1, 1) is None
    beyond = build(with_qubits("memory_error", 0.4, None, None))
    assert beyond.memory(0, 1).infidelity == pytest.approx(1.0 / 3.0)
    every = model(FORGETFUL, qubit__memory_error=0.01)
    assert every.memory(2, 1).infidelity == pytest.approx(0.01)
    composed = compose(built, model(FORGETFUL, qubit__memory=2))
    assert composed.memory(1, 1).ptm[1, 1] == pytest.approx(0.85 * 0.7)
    assert changed_places(FORGETFUL, "memory") == {(0,), (1,)}


def left(built: DeviceModel, state: int, qubit: int = 0) -> float:
    """Probability of |1> after a measurement of a qubit in a basis state."""
    vector = np.array([1.0, 0.0, 0.0, 1.0 - 2.0 * state])
    for each in built.after_gate("measure", (qubit,)):
        if each.qubits == (qubit,):
            vector = each.channel.ptm @ vector
    return float(0.5 - 0.5 * vector[3])


def test_transitions_with_relaxation_are_the_measured_ones() -> None:
    assert left(model(DISTURBING), 0) == pytest.approx(0.02, abs=1e-15)
    assert 1.0 - left(model(DISTURBING), 1) == pytest.approx(0.05, abs=1e-15)
    relaxed = build(transmons())
    assert left(model(DISTURBING, qubit__measurement=0), 1) == left(relaxed, 1)
    below = build(with_qubit(measure_decay=1e-3))
    assert left(below, 1) == pytest.approx(left(relaxed, 1)), "relaxation alone has more"


def test_measurements_of_different_qubits_share_the_channel_on_any_other() -> None:
    built = model(DISTURBING)
    assert built.disturbs
    assert built.disturbance(0).others is built.disturbance(2).others is not None
    assert (built.disturbance(0).own.keys(), built.disturbance(2).own) == ({1}, {})


def disturbed(other: int, **options: object) -> Channel:
    """What a measurement of qubit 0 does to another one."""
    return model(DISTURBING, **options).disturbance(0).on(other)


def test_crosstalk_of_a_pair_stands_before_that_of_any_two() -> None:
    assert [each.qubits for each in model(DISTURBING).by_measurement("measure", 0)] == [(0,)]
    assert disturbed(2).infidelity == pytest.approx(0.01)
    assert disturbed(1).ptm[1, 1] == pytest.approx(0.91 * math.cos(0.2))
    scaled = disturbed(1, qubit__measurement_crosstalk=0.5)
    assert scaled.ptm[2, 1] == pytest.approx(0.955 * math.sin(0.1))
    for other in (1, 2):
        every = disturbed(other, qubit__measurement_crosstalk_error=0.02)
        assert every.infidelity == pytest.approx(0.02)
    assert not model(DISTURBING, qubit__measurement_crosstalk=0).disturbs
    aer = model(DISTURBING, recipe="aer")
    assert aer.by_measurement("measure", 0) == ()
    assert not aer.disturbs
    assert not aer.disturbance(0).acts


def test_measurements_of_composed_and_compared_models() -> None:
    both = compose(model(DISTURBING), model(DISTURBING))
    assert [each.qubits for each in both.by_measurement("measure", 0)] == [(0,), (0,)]
    assert both.disturbs
    for other in (1, 2):
        once, twice = disturbed(other), both.disturbance(0).on(other)
        assert np.allclose(twice.ptm, once.ptm @ once.ptm)
    places = {(0,), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}
    assert changed_places(DISTURBING, "measurement") == places


def test_the_outcome_of_a_readout_that_is_decided_later_is_calibrated_all_the_same() -> None:
    built, early = build(with_qubit(readout_decided=0.5)), build(with_qubit())
    before, flips = built.before_decision("measure", 0), built.flips_inside("measure", 0)
    for state, calibrated in ((0, 0.01), (1, 0.97)):
        vector = before.ptm @ np.array([1.0, 0.0, 0.0, 1.0 - 2.0 * state])
        ones = 0.5 - 0.5 * vector[3]
        read = ones * (1.0 - flips[1]) + (1.0 - ones) * flips[0]
        assert read == pytest.approx(calibrated, abs=1e-15)
    assert early.before_decision("measure", 0) is None
    assert early.flips_inside("measure", 0) is None
    for each in built.after_gate("measure", (0,)):
        if each.qubits == (0,):
            vector = each.channel.ptm @ vector
    assert 0.5 - 0.5 * vector[3] == pytest.approx(left(early, 1)), "the same relaxation in all"
    composed = compose(built, build(transmons()))
    assert composed.flips_inside("measure", 0) is not None
    assert composed.before_decision("measure", 0) is not None
