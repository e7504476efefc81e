"""Chance of a gain by cross-validation: of the largest of all candidates, by circuit bodies."""

import numpy as np
import pytest

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import accept
from simenv.calibration.data import CountsData
from simenv.calibration.fit import attempt
from simenv.calibration.fit.calibrate import SHARES, SNAPSHOT, calibrate
from simenv.calibration.fit.significance import NullGains
from testbed.drawn_devices import changed, circuits, counts_of, device

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
    assert found.held_out is not None
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
