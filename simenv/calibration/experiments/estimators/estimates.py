"""Estimated quantities with their errors, from counts alone."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import msgspec

Scale = Literal["linear", "inverse", "proportion"]
SIGNAL_ERRORS = 5.0  # standard errors of a signal below which nothing is estimated from its decay


class Estimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One quantity of one qubit or pair.

    Without a signal, value and standard error are infinite, and so is the interval.

    `scale`: the scale of the normal approximation: the value; its inverse (a time, estimated by its
    rate; `std_error` is that of the rate); a proportion of `trials` (Wilson's interval).
    """

    quantity: str
    qubits: tuple[int, ...]
    value: float
    std_error: float
    scale: Scale = "linear"
    gate: str = ""
    trials: int = 0

    @property
    def has_signal(self) -> bool:
        """True if the counts contain a signal from which the quantity could be estimated."""
        return math.isfinite(self.std_error)

    def interval(self, z: float) -> tuple[float, float]:
        """Confidence interval at z standard errors; an unbounded time is infinite."""
        if not self.has_signal:
            return (0.0 if self.scale == "inverse" else -math.inf), math.inf
        if self.scale == "inverse":
            rate, width = 1.0 / self.value, z * self.std_error
            low = 1.0 / (rate + width) if rate + width > 0.0 else math.inf
            return low, (1.0 / (rate - width) if rate - width > 0.0 else math.inf)
        if self.scale == "proportion":
            return wilson(self.value, self.trials, z)
        return self.value - z * self.std_error, self.value + z * self.std_error


def without_signal(quantity: str, qubits: tuple[int, ...], *, gate: str = "") -> Estimate:
    """Estimate of a quantity about which the counts say nothing."""
    scale: Scale = "inverse" if quantity.endswith("_us") else "linear"
    return Estimate(quantity, qubits, math.inf, math.inf, scale, gate)


def wilson(share: float, trials: int, z: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, J. Am. Stat. Assoc. 22, 209)."""
    weight = z * z / trials
    center = (share + weight / 2.0) / (1.0 + weight)
    half = z / (1.0 + weight) * math.sqrt(share * (1.0 - share) / trials + weight / (4.0 * trials))
    return max(0.0, center - half), min(1.0, center + half)


def simultaneous_z(count: int, confidence: float = 0.99) -> float:
    """Number of standard errors of two-sided intervals that hold simultaneously at a confidence
    (Sidak, J. Am. Stat. Assoc. 62, 626)."""
    tail = -math.expm1(math.log(confidence) / max(1, count)) / 2.0
    return -NormalDist().inv_cdf(tail)
