"""Estimators: fits, intervals and their coverage on counts of known decays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.harness.sampled_device import coverage
from simenv.calibration.experiments.estimators.decay_fit import fit_decay, fit_frequency
from simenv.calibration.experiments.estimators.estimates import (
    Estimate,
    simultaneous_z,
    wilson,
)


def test_decay_fit_finds_exact_decays_of_many_sets() -> None:
    x = np.array([[0.0, 100.0, 200.0], [1.0, 10.0, 20.0]])
    rates, sizes = np.array([0.01, 0.05]), np.array([0.9, 0.7])
    signal = sizes[:, None] * np.exp(-rates[:, None] * x)
    result = fit_decay(x, signal, np.full(x.shape, 1e-6))
    np.testing.assert_allclose(result.rate, rates, rtol=1e-8)
    np.testing.assert_allclose(np.exp(result.log_amplitude), sizes, rtol=1e-8)
    assert (result.chi_square < 1e-12).all()


def test_frequency_is_found_beyond_one_turn_and_with_its_sign() -> None:
    x = np.array([1.0, 4.0, 16.0, 48.0])
    for frequency in (-0.31, 0.02, 1.1):
        result = fit_frequency(x, np.exp(1j * frequency * x), np.full(4, 1e-4))
        assert result.frequency == pytest.approx(frequency, abs=1e-9)


def test_wilson_interval_of_no_events_has_an_upper_end() -> None:
    low, high = wilson(0.0, 1000, 2.0)
    assert low == 0.0
    assert high == pytest.approx(4.0 / 1004.0)


def test_time_beyond_the_delays_has_an_infinite_interval() -> None:
    estimate = Estimate("t1_us", (0,), 1e6, 1e-6, "inverse")
    low, high = estimate.interval(3.0)
    assert math.isinf(high)
    assert low == pytest.approx(1.0 / (1e-6 + 3e-6))


def test_simultaneous_intervals_are_wider_the_more_there_are() -> None:
    assert simultaneous_z(1, 0.95) == pytest.approx(1.95996, abs=1e-4)
    assert simultaneous_z(200) == pytest.approx(4.0545, abs=1e-3)


def test_intervals_cover_the_truth_as_often_as_they_state() -> None:
    devices = 6
    share, joint, count = coverage(devices, 0.95)
    assert abs(share - 0.95) < 5.0 * math.sqrt(0.95 * 0.05 / count)
    assert joint == 1.0
