"""A fit is given where its gain on circuits left out is significant, and as far as it is."""

import itertools
import math
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from failing import fails

from bench.calibration_data import PATH, measured, random_circuit, random_counts
from noise_models import library
from noise_models.build import reduced
from noise_models.calibration import CalibrationSnapshot
from noise_models.snapshot import dump, load
from simenv.calibration import accept
from simenv.calibration.accept import HeldOutGain as Gain
from simenv.calibration.data import CountsData
from simenv.calibration.fit import attempt, calibrate as fitting
from simenv.calibration.fit.calibrate import AER, HOMOGENEOUS, SNAPSHOT, FitRefusedError, calibrate
from simenv.calibration.score import Predictor


def test_intervals_of_few_bodies_are_those_of_student() -> None:
    """Student's t with 5 degrees of freedom at 99.5 %: 4.0321 (Abramowitz, Stegun, 26.10)."""
    change = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = accept.interval(change, np.ones(6, np.int64), list("abcdef"))
    width = 4.0321 * np.std(change, ddof=1) / math.sqrt(6.0)
    assert (found.mean, found.high) == (3.5, pytest.approx(3.5 + width, rel=1e-3))


def test_intervals_of_gains_hold_and_count_each_body_once() -> None:
    rng = np.random.default_rng(4)
    outside = 0
    for _ in range(300):
        change = rng.normal(1.0, 1.0, size=12)
        found = accept.interval(change, np.ones(12, np.int64), [str(k) for k in range(12)])
        outside += not found.low < 1.0 < found.high
    assert outside <= 12  # 3 expected
    change = np.array([0.2, 0.03, 0.025, 0.02, 0.004, 0.001, 0.002, 0.002, 0.01])
    runs = np.ones(9, np.int64)
    assert accept.interval(change, runs, list("abcdefghi")).is_above
    assert not accept.interval(change, runs, list("aaaaefghi")).is_above
    alone = accept.interval(change, runs, ["a"] * 9)
    assert (alone.low, alone.high) == (-math.inf, math.inf)


def test_a_gain_is_that_of_the_mean_beyond_chance() -> None:
    before = np.array([0.5, 0.9, 0.9, 0.9, 0.9])
    runs, bodies = np.ones(5, np.int64), list("abcde")
    assert accept.gain(before + 0.05, before, runs, bodies).gain.is_above
    assert not accept.gain(before + accept.LEAST_GAIN / 2, before, runs, bodies).gain.is_above
    one = accept.gain(np.array([0.9, 0.899, 0.899, 0.899, 0.899]), before, runs, bodies).gain
    assert one.mean > 0.0
    assert not one.is_above
    assert not one.is_below
    assert accept.gain(before - 0.05, before, runs, bodies).gain.is_below


def test_devices_between_two_change_by_logarithms() -> None:
    before = library.load("lima")
    qubit = msgspec.structs.replace(before.qubits[0], t1_us=4.0 * (before.qubits[0].t1_us or 1.0))
    after = msgspec.structs.replace(before, name="after", qubits=(qubit, *before.qubits[1:]))
    middle = accept.blended(before, after, 0.5)
    assert middle.name == "after"
    assert middle.qubits[0].t1_us == pytest.approx(2.0 * (before.qubits[0].t1_us or 0.0))
    assert middle.qubits[1] == before.qubits[1]
    assert accept.blended(before, after, 1.0) is after
    assert accept.between(0.0, 0.1, 0.5) == pytest.approx(0.05)
    assert accept.between(None, 0.1, 0.5) is None


def test_counts_of_the_calibrated_device_keep_its_calibration() -> None:
    snapshot = library.load("lima")
    rng = np.random.default_rng(11)
    texts = [random_circuit(PATH[:2], rng) for _ in range(10)]
    counts = CountsData(tuple(measured(texts, snapshot, rng, shots=1000)), "lima")
    try:
        result = calibrate(counts, snapshot, "same")
    except FitRefusedError:
        return
    assert (result.share, result.snapshot.gates) == (0.0, snapshot.gates)
    assert result.snapshot.fitted is None
    assert result.snapshot.qubits == snapshot.qubits
    assert not result.held_out.is_used


def test_a_fit_that_is_worse_at_every_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, snapshot = random_counts(10, 2)
    result = itertools.chain([0.9] * 3, itertools.repeat(0.89))  # snapshot, Aer's recipes, fits

    def fidelities(circuits: list[object], _: list[Predictor]) -> np.ndarray:
        return np.full(len(circuits), next(result))

    monkeypatch.setattr(fitting.accept, "fidelities", fidelities)
    fails(FitRefusedError, r"its snapshot on 10 circuits", calibrate, counts, snapshot, "fitted")


def test_share_with_larger_but_uncertain_gain_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """At share 0.5 all circuits gain; at 1 most gain more and one loses much."""
    counts, snapshot = random_counts(10, 2)
    even = np.full(10, 0.01)
    mixed = np.array([0.04] * 9 + [-0.15])
    fits = itertools.cycle([0.5 * even, even, 0.5 * mixed, mixed])
    gains = itertools.chain([np.zeros(10)] * 3, fits)
    monkeypatch.setattr(fitting.accept, "fidelities", lambda *_: 0.9 + next(gains))
    result = calibrate(counts, snapshot, "fitted")
    assert result.share == 0.5
    full = np.exp(result.latent * result.widths)
    np.testing.assert_allclose(np.array(result.factors), np.sqrt(full))


def held_out(mean: float, low: float, high: float = math.inf, above_aer: float = 0.1) -> Gain:
    """A gain over a snapshot of 0.9, and the upper end of what the fit is above Aer's recipe."""
    fitted = accept.Levels(0.9 + mean, 0.8, 0.9 + mean)
    before = accept.Levels(0.9, 0.8, 0.9)
    aer = (accept.Interval(0.0, -0.1, 0.1), accept.Interval(above_aer, -1.0, above_aer))
    gain = accept.Interval(mean, low, high)
    return Gain(gain, gain, aer, aer[:1], fitted, before, (before, before), 12, 12)


def choice(base: str, gained: Gain, after: np.ndarray | None = None) -> fitting._Choice:
    attempt = SimpleNamespace(base=SimpleNamespace(name=base))
    circuits = [SimpleNamespace(runs=1, record=SimpleNamespace(body=str(k))) for k in range(12)]
    return fitting._Choice(attempt, None, 1.0, 1.0, gained, circuits, after)  # type: ignore[arg-type]


def test_a_homogeneous_device_needs_a_gain_of_the_snapshot_too() -> None:
    better = choice(HOMOGENEOUS, held_out(0.02, 0.01))
    assert fitting._accepted([choice(SNAPSHOT, held_out(0.01, 0.005)), better]) is better
    kept = fitting._accepted([choice(SNAPSHOT, held_out(0.01, -0.005)), better])
    assert (kept.attempt.base.name, kept.share, kept.undated_share) == (SNAPSHOT, 0.0, 0.0)
    worse = choice(SNAPSHOT, held_out(-0.01, -0.02, -0.005))
    assert fitting._accepted([worse, better]).share == 0.0
    unclear = choice(SNAPSHOT, held_out(-0.01, -0.02, 0.005))
    assert fitting._accepted([unclear]).share == 0.0
    both = [worse, choice(HOMOGENEOUS, held_out(-0.02, -0.03, -0.01))]
    fails(FitRefusedError, "worse than its snapshot on 12 circuits", fitting._accepted, both)


def test_no_fit_is_used_that_is_below_a_form_of_the_recipe_of_aer() -> None:
    low = choice(SNAPSHOT, held_out(0.03, 0.01, above_aer=-0.01))
    high = choice(SNAPSHOT, held_out(0.01, 0.005))
    assert fitting._accepted([low, high]) is high
    kept = fitting._accepted([low])
    assert (kept.share, kept.reason) == (0.0, "the fit is below Aer's recipe for the calibration")


def test_a_homogeneous_device_must_gain_beyond_chance_on_a_fit_that_keeps_the_spread() -> None:
    even = np.full(12, 0.91)
    some = even + np.array([0.05] + [-0.001] * 11)
    kept = choice(SNAPSHOT, held_out(0.01, 0.005), even)
    assert fitting._accepted([kept, choice(HOMOGENEOUS, held_out(0.013, 0.005), some)]) is kept
    better = choice(HOMOGENEOUS, held_out(0.02, 0.005), even + 0.01)
    assert fitting._accepted([kept, better]) is better


@pytest.fixture(scope="module")
def few() -> tuple[CountsData, CalibrationSnapshot]:
    return random_counts(9, 2)


def test_a_fit_to_few_different_circuits_acts_on_alike_ones(
    few: tuple[CountsData, CalibrationSnapshot],
) -> None:
    counts, snapshot = few
    result = calibrate(counts, snapshot, "fitted")
    assert result.share > 0.0
    assert not any(each.prior.asymmetry for each in result.scores)
    scope, outside = result.snapshot.fitted, result.snapshot.outside
    assert (scope.device, scope.qubits, scope.widest, scope.bodies) == ("lima", (0, 1), 2, 9)
    assert (scope.placed, scope.pairs) == (False, ((0, 1),))
    assert outside == snapshot
    assert load(dump(result.snapshot)) == result.snapshot
    wider, _ = random_counts(1, 3)
    fitted, before = Predictor(result.snapshot), Predictor(snapshot)
    for record, is_alike in ((counts.records[0], True), (wider.records[0], False)):
        one, other = (each.prediction(record).probabilities for each in (fitted, before))
        assert np.array_equal(one, other) != is_alike


def test_one_body_leaves_no_circuit_to_judge_a_fit_by() -> None:
    """Counts of one circuit, in any basis, keep the calibration."""
    counts, snapshot = random_counts(1, 2)
    result = calibrate(counts, snapshot, "fitted")
    assert (result.share, result.snapshot.qubits) == (0.0, snapshot.qubits)
    assert "at least two bodies" in result.reason


def test_snapshot_below_aer_recipe_is_kept(
    few: tuple[CountsData, CalibrationSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hardware reads 0 and 1 wrongly as often as each other; the fits change nothing."""
    counts, snapshot = few
    fixed = attempt.Prior(1e-6, 1e-6), attempt.Prior(1e-6)
    monkeypatch.setattr(attempt, "CANDIDATES", fixed)
    monkeypatch.setattr(attempt, "_further_unknowns", lambda _: [])
    rng = np.random.default_rng(3)
    texts = [each.source.text for each in counts.records]
    truth = reduced(snapshot, symmetric=True)
    data = CountsData(tuple(measured(texts, truth, rng, shots=100_000)), "lima")
    result = calibrate(data, snapshot, "fitted")
    assert (result.base, result.share) == (AER, 0.0)
    assert result.held_out.is_snapshot_below_aer
    confusion = [each.confusion for each in result.snapshot.qubits]
    assert confusion == [(each.readout_error,) * 2 for each in snapshot.qubits]


def test_what_is_kept_is_the_least_below_both_forms_of_the_recipe_of_aer(
    few: tuple[CountsData, CalibrationSnapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal readout errors lack 0.02 to the recipe with p01 and p10, the calibration 0.01 to that
    without: it stays."""
    counts, snapshot = few
    levels = itertools.chain([0.89, 0.9, 0.89], itertools.repeat(0.88))

    def fidelities(circuits: list[object], _: list[Predictor]) -> np.ndarray:
        return np.full(len(circuits), next(levels))

    monkeypatch.setattr(fitting.accept, "fidelities", fidelities)
    result = calibrate(counts, snapshot, "fitted")
    assert (result.base, result.share, result.snapshot.qubits) == (SNAPSHOT, 0.0, snapshot.qubits)


def test_factors_outside_the_plausible_range_are_named() -> None:
    names = ("relaxation 4", "zz", "zz 0 1", "asymmetry")
    assert accept.implausible(zip(names, (1.2, 0.6, -0.2, -1.0), strict=True)) == ()
    names = ("relaxation 4", "zz", "p01", "asymmetry")
    texts = accept.implausible(zip(names, (19.8, 2.0, 0.1, -2.0), strict=True))
    assert (texts[0], len(texts)) == ("relaxation 4 x 19.8, outside 0.2 to 5", 4)


def test_longest_version_of_a_device_is_no_part_of_the_fitted_one(
    few: tuple[CountsData, CalibrationSnapshot],
) -> None:
    counts, snapshot = few
    long = msgspec.structs.replace(snapshot, version="v" * 100)
    fitted = calibrate(counts, long, "fitted").snapshot
    assert fitted.version == counts.digest[:12]
    assert load(dump(fitted)) == fitted


def test_few_bodies_need_a_gain_that_is_likely_and_shots_that_refute_the_snapshot() -> None:
    levels = accept.Levels(0.9, 0.8, 0.9)
    unclear, likely, unlikely = (accept.Interval(0.01, low, 0.03) for low in (-0.02, 0.001, -0.001))
    for by_body, chance, bodies, is_used in (
        (likely, 0.001, 5, True),
        (unlikely, 0.001, 5, False),
        (likely, 0.02, 5, False),
        (likely, 0.001, 10, False),  # used for all circuits: the gain itself beyond chance
    ):
        found = Gain(unclear, by_body, (), (), levels, levels, (), bodies, bodies, chance)
        assert found.is_used == is_used


def test_a_plausible_share_is_taken_in_place_of_a_fit_that_is_not_plausible() -> None:
    whole, half = choice(SNAPSHOT, held_out(0.02, 0.01)), choice(SNAPSHOT, held_out(0.01, 0.005))
    wild = msgspec.structs.replace(whole, is_plausible=False)
    assert fitting._accepted([half, wild]) is half
    assert fitting._accepted([wild]) is wild
