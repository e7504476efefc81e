"""The judge scores the truth best, however few counts an outcome has."""

import math

import numpy as np
import pytest

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import accept, judge
from simenv.calibration.data import CountsData
from simenv.calibration.fit import attempt
from simenv.calibration.fit.calibrate import SHARES, SNAPSHOT, calibrate
from simenv.calibration.fit.significance import NullGains
from testbed.drawn_devices import changed, circuits, counts_of, device


@pytest.mark.parametrize("mean", [0.0, 1e-4, 0.03, 0.7, 3.0, 40.0, 143.0, 145.0, 5e4])
def test_expected_roots_are_sums_over_the_poisson_distribution(mean: float) -> None:
    begin = max(int(mean - 12.0 * math.sqrt(mean)), 0)
    k = np.arange(begin, int(mean + 14.0 * math.sqrt(mean)) + 40)
    logs = np.array([math.lgamma(n + 1.0) for n in k.tolist()])
    weights = np.exp(k * math.log(mean) - mean - logs) if mean else (k == 0) * 1.0
    values, slopes = judge.expected_root(np.array([mean]))
    assert values[0] == pytest.approx(weights @ np.sqrt(k), rel=1e-6, abs=1e-6)
    assert slopes[0] == pytest.approx(weights @ (np.sqrt(k + 1) - np.sqrt(k)), rel=1e-5)


@pytest.mark.parametrize("shots", [10, 100, 100_000])
def test_truth_has_the_least_mean_loss(shots: int) -> None:
    """Qiskit's Hellinger fidelity prefers a sharper model where most outcomes have few counts."""
    rng = np.random.default_rng(3)
    ideal = np.zeros(256)
    ideal[:4] = 0.25
    mixtures = (0.05, 0.1, 0.2, 0.3, 0.4)
    models = [(1.0 - x) * ideal + x / 256 for x in mixtures]
    drawn = rng.multinomial(shots, models[2], size=2_000 if shots < 1_000 else 200) / shots
    losses = [np.mean([judge.loss(model, q, shots) for q in drawn]) for model in models]
    assert np.argmin(losses) == 2
    roots = [np.mean([(np.sqrt(q * model)).sum() ** 2 for q in drawn]) for model in models]
    assert (np.argmax(roots) < 2) == (shots < 1_000)


def test_ceiling_is_the_mean_fidelity_of_counts_of_the_model_itself() -> None:
    rng = np.random.default_rng(5)
    p = rng.dirichlet(np.full(32, 0.3))
    for shots in (20, 500, 20_000):
        drawn = rng.multinomial(shots, p, size=400) / shots
        values = [judge.fidelity(judge.loss(p, q, shots)) for q in drawn]
        error = np.std(values) / math.sqrt(len(values))
        assert judge.ceiling(p, shots) == pytest.approx(np.mean(values), abs=5 * error + 1e-3)


def test_log_likelihood_of_own_counts_is_what_the_model_expects() -> None:
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.full(64, 0.2))
    q = rng.multinomial(10**6, p) / 10**6
    expected = judge.expected_log_likelihood(p, 6)
    assert judge.log_likelihood(p, q, 6) == pytest.approx(expected, abs=0.01)
    assert judge.log_likelihood(np.full(64, 1 / 64), q, 6) < expected
    excluded = np.zeros(64)
    excluded[np.argmin(q)] = 1.0
    assert math.isfinite(judge.log_likelihood(excluded, q, 6))


@pytest.mark.parametrize(("bits", "shots"), [(2, 100), (4, 1000), (5, 4000), (8, 4000)])
def test_the_ceiling_of_the_log_likelihood_is_the_entropy_of_the_truth(
    bits: int, shots: int
) -> None:
    """On average, where the frequencies' own entropy is too low; and a wrong model is below it by
    its Kullback-Leibler divergence."""
    rng = np.random.default_rng(bits)
    p = rng.dirichlet(np.ones(1 << bits))
    wrong = 0.8 * p + 0.2 / len(p)
    drawn = rng.multinomial(shots, p, size=200) / shots
    ceilings = np.array([judge.log_likelihood_ceiling(q, shots) for q in drawn])
    error = ceilings.std() / math.sqrt(len(drawn))
    entropy = float(p @ np.log(p))
    assert abs(ceilings.mean() - entropy) < 5.0 * error
    frequencies = [float(q[q > 0.0] @ np.log(q[q > 0.0])) for q in drawn]
    assert np.mean(frequencies - ceilings) > 0.5 * (len(p) - 1) / (2 * shots)
    below = ceilings - [judge.log_likelihood(wrong, q, bits) for q in drawn]
    divergence = float(p @ np.log(p / wrong))
    assert abs(below.mean() - divergence) < 5.0 * below.std() / math.sqrt(len(drawn)) + 1e-6


def test_counts_that_hardly_repeat_have_no_ceiling_of_the_log_likelihood() -> None:
    rng = np.random.default_rng(3)
    q = rng.multinomial(1000, np.full(1 << 14, 2.0**-14)) / 1000
    assert math.isnan(judge.log_likelihood_ceiling(q, 1000))
    assert judge.log_likelihood_ceiling(np.array([1.0, 0.0]), 1000) == 0.0
    assert math.isnan(judge.log_likelihood_ceiling(np.array([1.0]), 1))


SIZE = 3


def null(data: CountsData, snapshot: CalibrationSnapshot) -> NullGains:
    base = attempt.FitBase.of(SNAPSHOT, snapshot, data)
    return NullGains(base.problem, base.folds(), SHARES)


def chances(gains: NullGains) -> list[float]:
    return [
        gains.chance(prior, share, attempt.CANDIDATES)
        for prior in attempt.CANDIDATES
        for share in SHARES
    ]


@pytest.mark.parametrize(("bodies", "trials"), [(2, 10), (4, 10), (14, 8)])
def test_counts_of_the_calibrated_device_gain_by_chance_alone(bodies: int, trials: int) -> None:
    """The least chance of all candidates is at most p in p of all data; 5 standard deviations."""
    random = np.random.default_rng(bodies)
    snapshot = device(random, SIZE)
    least = []
    for _ in range(trials):
        data = counts_of(snapshot, circuits(random, SIZE, bodies), 1000, random)
        least.append(min(chances(null(data, snapshot))))
    for level in (0.02, 0.1, 0.3):
        found = np.count_nonzero(np.array(least) <= level)
        assert found <= trials * level + 5.0 * np.sqrt(trials * level * (1.0 - level))


def test_few_bodies_of_another_device_are_enough() -> None:
    """Student's interval of the gain of five bodies has no power at 99 %."""
    random = np.random.default_rng(3)
    snapshot = device(random, SIZE)
    truth = changed(changed(snapshot, random), random)
    data = counts_of(truth, circuits(random, SIZE, 5), 20_000, random)
    found = calibrate(data, snapshot, "fitted")
    assert found.share > 0.0
    assert found.held_out.chance <= accept.MOST_CHANCE
    assert not found.held_out.gain.is_above


def test_one_draw_is_for_all_candidates() -> None:
    """Gains of equal candidates are equal in each draw, so that a family of them is one."""
    random = np.random.default_rng(5)
    snapshot = device(random, SIZE)
    data = counts_of(changed(snapshot, random), circuits(random, SIZE, 14), 300, random)
    gains, prior = null(data, snapshot), attempt.Prior(0.1, 0.1)
    alone = gains.chance(prior, 1.0, [])
    assert gains.chance(prior, 1.0, [attempt.Prior(0.1, 0.1, heavy=True)]) == alone
    assert gains.chance(prior, 1.0, attempt.CANDIDATES) > alone
