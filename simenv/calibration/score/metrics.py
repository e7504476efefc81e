"""Distances between a distribution and measured counts, their limits, and intervals.

HF is the Hellinger fidelity (sum sqrt(p q))^2, as Qiskit defines it; TVD the total variation
distance, half of sum |p - q|. The ceiling is the mean HF of an exact model at this number of shots.
Intervals are percentiles of bootstrap samples of circuit bodies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

DRAWS = 20  # samples of the ceiling
RESAMPLES = 400
COVERAGE = 0.95


def hellinger_fidelity(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """(sum sqrt(p q))^2 of two distributions over the same outcomes."""
    return float(np.sqrt(np.maximum(p, 0.0) * q).sum() ** 2)


def variation_distance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Half of sum |p - q|."""
    return float(0.5 * np.abs(p - q).sum())


def ceiling(p: NDArray[np.float64], shots: int, rng: np.random.Generator) -> float:
    """Mean HF between a distribution and counts that are drawn from it."""
    exact = np.maximum(p, 0.0)
    drawn = rng.multinomial(shots, exact / exact.sum(), size=DRAWS) / shots
    return float((np.sqrt(drawn * exact).sum(axis=1) ** 2).mean())


class Statistic(msgspec.Struct, frozen=True):
    """A statistic of a set of circuits with its bootstrap interval; nan for one circuit body."""

    value: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True):
    """Statistics of the values of many runs."""

    runs: int
    bodies: int
    median: Statistic
    p10: Statistic
    mean: Statistic


def summary(values: Sequence[float], bodies: Sequence[str], seed: int = 7) -> Summary | None:
    """Statistics of the finite values; None if there is none."""
    result = np.array(values, np.float64)
    finite = np.isfinite(result)
    if not finite.any():
        return None
    labels = np.array(bodies, object)[finite]
    result = result[finite]
    names, number = np.unique(labels.astype(str), return_inverse=True)
    members = [np.flatnonzero(number == k) for k in range(len(names))]
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(members), size=len(members))
        samples.append(_statistics(result[np.concatenate([members[k] for k in drawn])]))
    edge = 50.0 * (1.0 - COVERAGE)
    low, high = np.percentile(np.array(samples), [edge, 100.0 - edge], axis=0)
    if len(members) == 1:  # all samples are equal: they say nothing about other circuits
        low = high = np.full(len(low), math.nan)
    value = _statistics(result)
    median, p10, mean = (
        Statistic(value[k], float(low[k]), float(high[k])) for k in range(len(value))
    )
    return Summary(int(result.size), len(names), median, p10, mean)


def _statistics(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(np.median(values)), float(np.percentile(values, 10)), float(values.mean())
