"""Agreement of a distribution with counts, without bias where an outcome has few counts.

The square root of a count K with the Poisson distribution of mean N p is sqrt(N p) only if N p is
large: its expected value is lower, E[sqrt(K)] < sqrt(E[K]). A model that is compared by sqrt(p)
with sqrt(K / N) is therefore scored best when it is sharper than the truth. The loss here is

    sum over all outcomes (E[sqrt(K)] - sqrt(K))^2 / N,   K ~ Poisson(N p),

whose expected value has its minimum at the true p for every N. It is the squared Hellinger distance
2 - 2 sum sqrt(p q) where all outcomes have many counts, and `fidelity` = (1 - loss / 2)^2 is then
Qiskit's Hellinger fidelity. (Variance-stabilising square root: Anscombe, Biometrika 35, 246, 1948.)

The log-likelihood of a shot, sum q log(p), needs no outcome to be seen twice; its expected value
for counts of the model itself is `expected_log_likelihood`. Its expected value for the true
distribution, which no model exceeds, is minus the entropy of that; `log_likelihood_ceiling`
estimates it from the counts.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_END = 12.0  # of the table, sqrt(N p); beyond it, the asymptotic series
_STEP = 1.0 / 512.0
_TERMS = 340  # of a sum over K, for means up to _END^2
_SERIES = (1.0, -1.0 / 8.0, -7.0 / 128.0, -75.0 / 1024.0)  # of E[sqrt(K)] / sqrt(x) in 1 / x
_LEAST_PROBABILITY = 1e-6  # part of the uniform distribution in a log-likelihood


@functools.cache
def _table() -> tuple[Floats, Floats, Floats]:
    """Multiples of _STEP up to _END, E[sqrt(K)] for these square roots of the mean, and its
    derivative E[sqrt(K + 1) - sqrt(K)] by the mean."""
    roots = np.arange(round(_END / _STEP) + 1) * _STEP
    mean = np.maximum(roots**2, 1e-300)[:, None]
    k = np.arange(_TERMS)
    logs = np.array([math.lgamma(n + 1.0) for n in range(_TERMS)])
    weights = np.exp(k * np.log(mean) - mean - logs)
    values: Floats = weights @ np.sqrt(k)
    slopes: Floats = weights @ (np.sqrt(k + 1.0) - np.sqrt(k))
    return roots.astype(np.float64), values, slopes


def expected_root(mean: Floats) -> tuple[Floats, Floats]:
    """E[sqrt(K)] for K ~ Poisson(mean), and its derivative by the mean; both of the shape of
    `mean` >= 0. By linear interpolation in sqrt(mean), error below 1e-6."""
    roots, values, slopes = _table()
    root = np.sqrt(mean)
    result, slope = np.interp(root, roots, values), np.interp(root, roots, slopes)
    large = root >= _END
    if large.any():
        inverse = 1.0 / mean[large]
        powers = enumerate(_SERIES)
        pairs = [(c * inverse**n, c * (0.5 - n) * inverse**n) for n, c in powers]
        result[large] = root[large] * sum(value for value, _ in pairs)
        slope[large] = sum(value for _, value in pairs) / root[large]
    return np.asarray(result), np.asarray(slope)


def residual(p: Floats, frequencies: Floats, shots: int) -> tuple[Floats, Floats]:
    """(E[sqrt(K)] - sqrt(K)) / sqrt(N) of each outcome, and its derivative by p. `frequencies`:
    K / N."""
    root, slope = expected_root(shots * np.maximum(p, 0.0))
    scale = math.sqrt(shots)
    return root / scale - np.sqrt(frequencies), scale * slope


def loss(p: Floats, frequencies: Floats, shots: int) -> float:
    """Sum of the squared residuals over all outcomes that p or the counts have."""
    rest, _ = residual(p, frequencies, shots)
    return float(rest @ rest)


def root_variance(p: Floats, shots: int) -> Floats:
    """Variance of sqrt(K / N) of each outcome: 1 - p of that of a Poisson distribution where K is
    binomial."""
    mean = shots * np.maximum(p, 0.0)
    root, _ = expected_root(mean)
    return np.asarray((mean - root**2) * (1.0 - np.minimum(p, 1.0)) / shots)


def expected_loss(p: Floats, shots: int) -> float:
    """Loss of the true distribution, on average."""
    return float(root_variance(p, shots).sum())


def fidelity(loss: float) -> float:
    """Hellinger fidelity (1 - loss / 2)^2; 0 for a loss of 2, that of distributions without common
    outcomes."""
    return max(1.0 - loss / 2.0, 0.0) ** 2


def ceiling(p: Floats, shots: int) -> float:
    """Fidelity of the true distribution to so many counts of it."""
    return fidelity(expected_loss(p, shots))


def log_likelihood(p: Floats, frequencies: Floats, num_bits: int) -> float:
    """Mean natural logarithm of the probability of a shot. A part of _LEAST_PROBABILITY of the
    distribution is uniform, so that the result is finite for shots that the model excludes."""
    return float(frequencies @ np.log(_with_uniform(p, num_bits)))


def expected_log_likelihood(p: Floats, num_bits: int) -> float:
    """`log_likelihood` for shots of the model itself, on average."""
    weights = np.maximum(p, 0.0)
    return float(weights @ np.log(_with_uniform(p, num_bits)) / weights.sum())


# Least estimated probability of all outcomes that were seen. The ceiling of random distributions is
# then too high by at most 0.05, on average.
LEAST_SEEN = 0.75


def log_likelihood_ceiling(frequencies: Floats, shots: int) -> float:
    """Mean logarithm of the probability of a shot by the true distribution, estimated from counts;
    nan where outcomes with less than LEAST_SEEN of the probability were seen: the counts then say
    little about the entropy.

    The estimate of the entropy is that of Chao, Wang and Jost (Methods in Ecology and Evolution 4,
    1091): nearly without the bias of the frequencies' own entropy for outcomes that were seen, and
    for the others by the numbers of outcomes that were seen once (f1) and twice (f2)."""
    counts = np.rint(frequencies[frequencies > 0.0] * shots)
    once, twice = int((counts == 1.0).sum()), int((counts == 2.0).sum())
    if shots < 2 or 1.0 - once / shots < LEAST_SEEN:
        return math.nan
    sums = np.append(0.0, np.cumsum(1.0 / np.arange(1, shots)))  # of 1 / k for k < n
    number = counts.astype(np.int64)
    entropy = float((counts / shots) @ (sums[shots - 1] - sums[number - 1]))
    if not once:
        return -entropy
    if twice:
        rate = 2.0 * twice / ((shots - 1) * once + 2.0 * twice)
    else:
        rate = 2.0 / ((shots - 1) * (once - 1) + 2.0)
    return -entropy - once / shots * _unseen(rate, shots)


def _unseen(rate: float, shots: int) -> float:
    """Sum of x^(j + 1) / (N + j) over j >= 0 with x = 1 - `rate`: x times the integral of
    exp(-N v) / (1 - x exp(-v)) over v > 0, by the trapezoidal rule in log(v)."""
    logs = np.linspace(-60.0, math.log(60.0 / shots), _POINTS)
    v = np.exp(logs)
    values = v * np.exp(-shots * v) / (rate * np.exp(-v) - np.expm1(-v))
    return (1.0 - rate) * float(values.sum() * (logs[1] - logs[0]))


_POINTS = 4001  # of an integral


def _with_uniform(p: Floats, num_bits: int) -> Floats:
    least = _LEAST_PROBABILITY
    return np.asarray((1.0 - least) * np.maximum(p, 0.0) + least * 2.0**-num_bits)


def variation_distance(p: Floats, q: Floats) -> float:
    """Half of sum |p - q|."""
    return float(0.5 * np.abs(p - q).sum())
