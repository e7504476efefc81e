"""Gains of fidelity on circuits that a fit did not see, and the bound that a fit must pass.

A gain is significant if the lower end of its one-sided 95 % interval is above LEAST_GAIN: the mean
over runs of the gain in Hellinger fidelity, by a paired bootstrap of circuit bodies. Percentiles of
a bootstrap are too narrow for few bodies; they are expanded to the width that Student's t gives to
a mean. (Efron and Tibshirani, An Introduction to the Bootstrap, section 13.3; Hesterberg, What
teachers should know about the bootstrap, arXiv 1411.5279, section 4.3.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95  # one-sided
LEAST_GAIN = 5e-5  # of Hellinger fidelity: rounds to 0 in a score of four digits
DRAWS = 4000
SEED = 7
_GRID = 200_001  # points of an integral


class HeldOutGain(msgspec.Struct, frozen=True):
    """Gain of a fitted device over its snapshot, on runs of circuits that were left out of the
    fit."""

    mean: float
    low: float  # end of the one-sided interval of the mean
    fitted_median: float
    snapshot_median: float
    fitted_mean: float
    snapshot_mean: float
    circuits: int
    bodies: int
    fitted_p10: float = math.nan
    snapshot_p10: float = math.nan
    aer_median: float = math.nan  # by Aer's recipe for the snapshot, with idle noise
    aer_p10: float = math.nan
    aer_mean: float = math.nan
    aer_properties_median: float = math.nan  # the same, with p01 and p10
    aer_properties_p10: float = math.nan
    aer_properties_mean: float = math.nan

    @property
    def is_below_aer(self) -> bool:
        """True if median or 10th percentile is below that of Aer's recipe, in either form."""
        return self.shortfall > LEAST_GAIN

    @property
    def shortfall(self) -> float:
        """Largest difference by which median or 10th percentile is below Aer's recipe."""
        return self._shortfall(self.fitted_median, self.fitted_p10)

    @property
    def is_snapshot_below_aer(self) -> bool:
        """True if the snapshot's median or 10th percentile is below that of Aer's recipe, in either
        form."""
        return self._shortfall(self.snapshot_median, self.snapshot_p10) > LEAST_GAIN

    def _shortfall(self, median: float, p10: float) -> float:
        medians, tails = (
            [each for each in both if not math.isnan(each)]
            for both in (
                (self.aer_median, self.aer_properties_median),
                (self.aer_p10, self.aer_properties_p10),
            )
        )
        return max([each - median for each in medians] + [each - p10 for each in tails], default=0)

    @property
    def is_significant(self) -> bool:
        """True if the mean gain is above LEAST_GAIN beyond chance, and the median is not lower."""
        return self.low > LEAST_GAIN and self.fitted_median >= self.snapshot_median

    @property
    def is_worse(self) -> bool:
        """True if mean or median is below the snapshot's."""
        return self.mean < 0.0 or self.fitted_median < self.snapshot_median


def gain(
    fitted: NDArray[np.float64],
    snapshot: NDArray[np.float64],
    runs: NDArray[np.int64],
    bodies: Sequence[str],
    aer: Sequence[NDArray[np.float64]] = (),
) -> HeldOutGain:
    """Gain from the fidelities of circuits, each with its number of runs and its body. `aer`: those
    of the recipes `aer` and `aer-properties`."""
    change = fitted - snapshot
    references = [
        value
        for each in aer
        for value in (
            weighted_median(each, runs),
            weighted_quantile(each, runs, 0.1),
            float(np.average(each, weights=runs)),
        )
    ]
    return HeldOutGain(
        float(np.average(change, weights=runs)),
        lower_bound(change, runs, bodies),
        weighted_median(fitted, runs),
        weighted_median(snapshot, runs),
        float(np.average(fitted, weights=runs)),
        float(np.average(snapshot, weights=runs)),
        len(fitted),
        len(set(bodies)),
        weighted_quantile(fitted, runs, 0.1),
        weighted_quantile(snapshot, runs, 0.1),
        *references,
    )


def is_below(values: Sequence[float], reference: Sequence[float]) -> bool:
    """Return whether a value is below its reference by more than LEAST_GAIN."""
    return any(value < least - LEAST_GAIN for value, least in zip(values, reference, strict=True))


def lower_bound(
    change: NDArray[np.float64], runs: NDArray[np.int64], bodies: Sequence[str]
) -> float:
    """Lower end of the interval of the mean change of a run; -inf for fewer than two bodies."""
    _, number = np.unique(np.array(bodies, str), return_inverse=True)
    sums = np.bincount(number, change * runs)
    weights = np.bincount(number, runs)
    count = len(sums)
    if count < 2:
        return -math.inf
    rng = np.random.default_rng(SEED)
    times = rng.multinomial(count, np.full(count, 1.0 / count), size=DRAWS)
    means = (times @ sums) / (times @ weights)
    return float(np.quantile(means, expanded_level(1.0 - CONFIDENCE, count)))


def expanded_level(level: float, count: int) -> float:
    """Level of the percentile that corresponds to `level` for a mean of `count` values."""
    width = math.sqrt(count / (count - 1.0)) * _student_quantile(level, count - 1)
    return NormalDist().cdf(width)


def _student_quantile(level: float, freedom: int) -> float:
    """Quantile of Student's distribution. With x = sqrt(f) tan(a), its density is cos(a)^(f - 1) in
    a."""
    angles = np.linspace(-math.pi / 2.0, math.pi / 2.0, _GRID)
    density = np.cos(angles) ** (freedom - 1)
    sums = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    return math.sqrt(freedom) * math.tan(float(np.interp(level, sums / sums[-1], angles)))


def weighted_median(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    """Median of values with integer weights."""
    return weighted_quantile(values, weights, 0.5)


def weighted_quantile(
    values: NDArray[np.float64], weights: NDArray[np.int64], level: float
) -> float:
    """Quantile of values with integer weights."""
    return float(np.quantile(np.repeat(values, weights), level))
