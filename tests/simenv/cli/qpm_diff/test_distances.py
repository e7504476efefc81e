"""Distances of counts, and what shot noise makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simenv.cli.qpm_diff.distances import distance


def test_total_variation_and_hellinger_follow_their_definitions() -> None:
    result = distance({"0": 75, "1": 25}, {"0": 50, "1": 50})
    assert result.total_variation == pytest.approx(0.25)
    overlap = math.sqrt(0.75 * 0.5) + math.sqrt(0.25 * 0.5)
    assert result.hellinger == pytest.approx(math.sqrt(1 - overlap))
    apart = distance({"0": 10}, {"1": 20})
    assert apart.total_variation == pytest.approx(1.0)
    assert apart.hellinger == pytest.approx(1.0)
    assert not apart.is_noise


def test_equal_samples_have_distance_zero() -> None:
    result = distance({"00": 512, "11": 512}, {"00": 512, "11": 512})
    assert (result.total_variation, result.hellinger) == (0.0, pytest.approx(0.0, abs=1e-7))
    assert result.is_noise


@pytest.mark.parametrize("outcomes", [2, 64, 4096])
def test_two_samples_of_one_distribution_differ_by_noise_only(outcomes: int) -> None:
    rng = np.random.default_rng(outcomes)
    p = rng.dirichlet(np.ones(outcomes))
    for _ in range(5):
        value, other = (
            {str(k): int(n) for k, n in enumerate(rng.multinomial(shots, p)) if n}
            for shots in (1000, 4000)
        )
        assert distance(value, other).is_noise


def test_expected_noise_agrees_with_half_normal_mean() -> None:
    """Of two outcomes: E|p - q| = sqrt(2 / pi) sigma, sigma^2 = p(1 - p)(1/n + 1/m)."""
    shots = 10_000
    result = distance({"0": shots // 2, "1": shots // 2}, {"0": shots // 2, "1": shots // 2})
    expected = math.sqrt(2 / math.pi) * math.sqrt(0.25 * 2 / shots)
    # The mean of 200 half-normal values has a relative spread of 0.756 / sqrt(200) = 5.3 %.
    assert result.noise_total_variation == pytest.approx(expected, rel=5 * 0.053)


def test_hardware_errors_are_not_classified_as_noise() -> None:
    ideal = {"00": 5000, "11": 5000}
    machine = {"00": 4700, "11": 4650, "01": 330, "10": 320}
    assert not distance(ideal, machine).is_noise
