"""Experiments on atoms find what a device has, and what was altered."""

import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from noise_models import library
from noise_models.atoms import AnalogCalibration
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import atom_certify, atom_experiments as experiments, atom_model
from simenv.calibration.atom_experiments import AtomShots, OnesShare
from simenv.calibration.atom_model import drive_of, expected_share
from simenv.calibration.certify import ClaimVerdict, FigureFit, compare
from simenv.errors import OptionError
from simenv.transpiler.atoms import machine_of

pulser = pytest.importorskip("pulser")
SNAPSHOT = library.load("neutral-atoms-analog")
# One draw of amplitude and detuning is enough for the method; the bundled device has both.
FIGURES: dict[str, Any] = {
    "amplitude_sigma": 0.0, "detuning_sigma_rad_us": 0.0, "t1_us": 20.0, "t_phi_us": 5.0,
}  # fmt: skip


def changed(**figures: Any) -> CalibrationSnapshot:
    assert SNAPSHOT.analog is not None
    analog = msgspec.structs.replace(SNAPSHOT.analog, **{**FIGURES, **figures})
    return msgspec.structs.replace(SNAPSHOT, analog=analog)


def analog_of(snapshot: CalibrationSnapshot) -> AnalogCalibration:
    assert snapshot.analog is not None
    return snapshot.analog


MACHINE = machine_of(json.dumps(analog_of(SNAPSHOT).device))
PLAN = experiments.plan(MACHINE, AtomShots())


def drawn(snapshot: CalibrationSnapshot, seed: int) -> dict[Any, OnesShare]:
    """Shares of bits that are drawn from the exact shares."""
    rng = np.random.default_rng(seed)
    result = {}
    for each in PLAN.experiments:
        expected = expected_share(drive_of(each, PLAN.channel, MACHINE), analog_of(snapshot))
        bits = each.shots * experiments.ATOMS
        mean = rng.binomial(bits, expected.mean) / bits
        result[each] = OnesShare(mean, math.sqrt(mean * (1.0 - mean) / bits), bits)
    return result


def verdicts(device: CalibrationSnapshot, claims: CalibrationSnapshot) -> Mapping[str, Any]:
    found = experiments.estimates(drawn(device, 5))
    claimed = atom_certify.claimed_values(PLAN, MACHINE, claims)
    compared = compare(found, lambda each: claimed.get(each.quantity))
    return {each.quantity: each.verdict for each in compared}


def test_device_as_claimed_is_confirmed() -> None:
    found = verdicts(changed(), changed())
    assert set(found.values()) == {ClaimVerdict.WITHIN}
    assert len(found) == 6


@pytest.mark.parametrize(
    ("figures", "quantity"),
    [
        ({"t1_us": 10.0}, experiments.T1),
        ({"t_phi_us": 2.5}, experiments.T2_STAR),
        ({"p_false_pos": 0.03}, experiments.FALSE_POS),
        ({"p_false_neg": 0.12}, experiments.FALSE_NEG),
        ({"state_prep_error": 0.05}, experiments.FALSE_NEG),
        ({"amplitude_sigma": 0.05}, experiments.RABI_CONTRAST),
    ],
)
def test_altered_device_is_found_out(figures: dict[str, float], quantity: str) -> None:
    assert verdicts(changed(**figures), changed())[quantity] is ClaimVerdict.OUTSIDE


# Of a fifth: figure, its value on the device, quantity, and the figures that act like it.
WRONG: list[tuple[dict[str, Any], str, float, str, set[str]]] = [
    ({}, "t1_us", 60.0, experiments.T1, {"depolarizing_per_us"}),
    ({}, "detuning_sigma_rad_us", 0.22, experiments.T2_STAR, {"temperature_uk", "t_phi_us"}),
    ({"temperature_uk": 50.0}, "temperature_uk", 62.5, experiments.T2_STAR,
     {"detuning_sigma_rad_us", "t_phi_us"}),
    ({}, "p_false_pos", 0.0125, experiments.FALSE_POS, set()),
    ({}, "p_false_neg", 0.1, experiments.FALSE_NEG, {"state_prep_error"}),
]  # fmt: skip


@pytest.mark.parametrize(("others", "name", "value", "quantity", "alike"), WRONG)
def test_figure_that_is_wrong_by_a_fifth_is_named_with_its_value(
    others: dict[str, Any], name: str, value: float, quantity: str, alike: set[str]
) -> None:
    claims = msgspec.structs.replace(analog_of(SNAPSHOT), **others)
    device = msgspec.structs.replace(claims, **{name: value})
    whole = msgspec.structs.replace(SNAPSHOT, analog=claims)
    shares = drawn(msgspec.structs.replace(SNAPSHOT, analog=device), 3)
    claimed = atom_certify.claimed_values(PLAN, MACHINE, whole)
    found = compare(experiments.estimates(shares), lambda each: claimed.get(each.quantity))
    verdict = {each.quantity: each.verdict for each in found}
    assert verdict[quantity] is ClaimVerdict.OUTSIDE
    fits = {each.name: each for each in atom_certify.fitted_figures(PLAN, MACHINE, claims, shares)}
    assert name in fits
    assert fits.keys() <= {name} | alike, "figures that do not act like it"
    assert fits[name].value == pytest.approx(value, rel=0.1)
    assert fits[name].claimed == getattr(claims, name)


def test_no_figure_alone_explains_two_that_are_wrong() -> None:
    claims = analog_of(SNAPSHOT)
    device = msgspec.structs.replace(claims, t1_us=40.0, p_false_pos=0.02, t_phi_us=4.0)
    shares = drawn(msgspec.structs.replace(SNAPSHOT, analog=device), 3)
    assert atom_certify.fitted_figures(PLAN, MACHINE, claims, shares) == ()


def test_probability_of_a_fit_is_that_of_its_chi_square() -> None:
    stats = pytest.importorskip("scipy.stats")
    for chi_square in (5.0, 18.0, 40.0):
        fit = FigureFit("t1_us", 1.0, 1.0, chi_square, 18)
        assert fit.probability == pytest.approx(stats.chi2.sf(chi_square, 18), abs=2e-3)


def test_claims_are_the_figures_of_the_snapshot() -> None:
    claimed = atom_certify.claimed_values(PLAN, MACHINE, changed())
    assert claimed[experiments.T1] == pytest.approx(20.0, rel=1e-3)
    assert claimed[experiments.T2_STAR] == pytest.approx(1.0 / (1.0 / 40.0 + 0.2), rel=0.01)
    assert claimed[experiments.FALSE_POS] == 0.01
    assert claimed[experiments.RABI_SCALE] == pytest.approx(1.0, abs=1e-3)
    unmeasured = changed(t1_us=None, p_false_neg=None, amplitude_sigma=None)
    left = atom_certify.claimed_values(PLAN, MACHINE, unmeasured)
    assert left.keys() == set(claimed) - {experiments.T1, experiments.FALSE_NEG}
    assert left[experiments.RABI_CONTRAST] > claimed[experiments.RABI_CONTRAST], "T1 damps it"


def test_each_figure_claims_the_quantities_that_it_changes() -> None:
    def claimed(**figures: float) -> dict[str, float]:
        analog = AnalogCalibration(device=analog_of(SNAPSHOT).device, **figures)
        snapshot = msgspec.structs.replace(SNAPSHOT, analog=analog)
        return atom_certify.claimed_values(PLAN, MACHINE, snapshot)

    assert claimed().keys() == {"rabi_scale"}
    none = claimed(detuning_sigma_rad_us=0.0)
    assert none.keys() == {"rabi_scale", "rabi_contrast"}, "a time without an end is none"
    found = claimed(depolarizing_per_us=0.1)
    assert found.keys() == {"rabi_scale", "rabi_contrast", "rydberg_t1_us", "rydberg_t2_star_us"}
    for name, value in (("laser_waist_um", 150.0), ("temperature_uk", 1e4), ("t_phi_us", 5.0),
                        ("t1_us", 20.0), ("amplitude_sigma", 0.03)):  # fmt: skip
        contrast = claimed(**{name: value})["rabi_contrast"]
        assert contrast < none["rabi_contrast"] - 0.02, f"{name} damps the oscillation"
    assert found["rydberg_t2_star_us"] == pytest.approx(10.0, rel=0.05)


def test_figures_that_no_experiment_sees_are_named() -> None:
    def untested(**figures: float | None) -> set[str]:
        snapshot = changed(**figures)
        claimed = atom_certify.claimed_values(PLAN, MACHINE, snapshot)
        return {each.quantity for each in atom_certify.untested_figures(snapshot, claimed)}

    assert untested() == set()
    found = untested(p_false_neg=None, state_prep_error=0.2, hyperfine_t_phi_us=1e3)
    assert found == {"state_prep_error", "hyperfine_t_phi_us"}
    assert "trap_waist_um" in untested(trap_waist_um=1.0, trap_depth_uk=20.0)
    fields = set(AnalogCalibration.__struct_fields__) - {"device", "sources"}
    assert fields == set(atom_certify._SEEN_IN), "a figure that no certificate speaks of"


def test_noise_between_shots_is_averaged() -> None:
    wide = changed(t1_us=None, t_phi_us=None, detuning_sigma_rad_us=0.5)
    waits = [each for each in PLAN.experiments if each.name.startswith("ramsey")]
    shares = {
        (each.name, each.wait_ns): expected_share(
            drive_of(each, PLAN.channel, MACHINE), analog_of(wide)
        ).mean
        for each in waits[4:6]
    }
    (wait_ns,) = {wait for _, wait in shares}
    contrast = shares["ramsey +", wait_ns] - shares["ramsey -", wait_ns]
    # A quarter turn counts as 2 / pi of its duration.
    time_us = 1e-3 * (wait_ns + 4 / math.pi * waits[0].steps[0].duration_ns)
    expected = 0.91 * 0.99 * math.exp(-0.5 * (0.5 * time_us) ** 2)
    assert contrast == pytest.approx(expected, abs=0.01)


def test_modulated_pulses_have_few_pieces() -> None:
    """Each piece has an exponential for each draw: a claim of thousands takes minutes."""
    from pulser.sampler import sample

    machine = pulser.AnalogDevice  # its channel has a bandwidth
    plan = experiments.plan(machine, AtomShots())
    for each in plan.experiments:
        sequence = experiments.sequence_of(each, plan.channel, machine)
        drive = sample(sequence, modulation=True).to_nested_dict()["Global"]["ground-rydberg"]
        pieces = atom_model._segments([drive[key] for key in ("amp", "det", "phase")])
        total = sum(duration for *_, duration in pieces)
        assert total == pytest.approx(1e-3 * len(drive["amp"]))
        assert len(pieces) < 1_200, each.name


def test_a_beam_of_a_finite_waist_weakens_pulses_by_the_distances_of_atoms() -> None:
    waist = 100.0
    half = PLAN.experiments[1]
    places = experiments.sequence_of(half, PLAN.channel, MACHINE).register.qubits.values()
    analog = AnalogCalibration(device=analog_of(SNAPSHOT).device, laser_waist_um=waist)
    share = expected_share(drive_of(half, PLAN.channel, MACHINE), analog)
    turns = [math.pi * math.exp(-((float(np.asarray(each)[0]) / waist) ** 2)) for each in places]
    assert share.mean == pytest.approx(np.mean(np.sin(np.array(turns) / 2) ** 2), abs=0.01)


def test_sequences_fit_the_machines_of_pulser() -> None:
    for machine in (pulser.AnalogDevice, pulser.DigitalAnalogDevice, pulser.MockDevice):
        plan = experiments.plan(machine, AtomShots())
        for each in plan.experiments:
            experiments.sequence_of(each, plan.channel, machine)
    raman = pulser.devices.VirtualDevice(
        name="raman", dimensions=2, rydberg_level=60,
        channel_objects=(pulser.channels.Raman.Global(None, None),),
    )  # fmt: skip
    with pytest.raises(OptionError, match="no channel to certify"):
        experiments.plan(raman, AtomShots())


def test_shots_that_share_a_draw_widen_the_error() -> None:
    alone = experiments.share_of({"10": 50, "01": 50})
    together = experiments.share_of({"11": 50, "00": 50})
    assert alone.mean == together.mean == 0.5
    assert together.std_error == pytest.approx(0.05)
    assert 0.0 < alone.std_error < together.std_error


def test_recovered_snapshot_has_the_measured_figures() -> None:
    found = experiments.estimates(drawn(changed(t1_us=10.0), 5))
    result = atom_certify.recovered(SNAPSHOT, found, "measured")
    assert analog_of(result).t1_us == pytest.approx(10.0, rel=0.1)
    assert analog_of(result).sources["t1_us"] == "simenv certify"
    assert analog_of(result).amplitude_sigma == 0.02
