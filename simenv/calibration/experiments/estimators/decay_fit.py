"""Least-squares fits of decays and oscillations, for many data sets at once."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_STEPS = 40
_LARGEST_STEP = 1.0  # largest change of the logarithm of an amplitude in one step
_CONVERGED = 1e-10


class DecayFit(msgspec.Struct, frozen=True, eq=False):
    """Fit of A exp(-k x); arrays [sets]."""

    log_amplitude: Array
    rate: Array
    rate_error: Array  # standard error
    chi_square: Array  # of points - 2 degrees of freedom


def fit_decay(x: Array, signal: Array, variance: Array) -> DecayFit:
    """Gauss-Newton fit of A exp(-k x) to points [sets, points] of known variance.

    Rates may be negative if a signal does not decay within its error.
    """
    scale = np.maximum(x.max(axis=1, keepdims=True), 1e-300)
    u = x / scale
    log_a, k = _start(u, signal, variance)
    for _ in range(_STEPS):
        model = np.exp(log_a[:, None] - k[:, None] * u)
        step, _ = _solve(model, -model * u, signal - model, variance)
        change = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        log_a, k = log_a + change[:, 0], k + change[:, 1]
        if np.abs(change).max() < _CONVERGED:
            break
    model = np.exp(log_a[:, None] - k[:, None] * u)
    _, covariance = _solve(model, -model * u, signal - model, variance)
    chi = (np.square(signal - model) / variance).sum(axis=1)
    size = scale[:, 0]
    return DecayFit(log_a, k / size, np.sqrt(covariance[:, 1, 1]) / size, chi)


def _start(x: Array, signal: Array, variance: Array) -> tuple[Array, Array]:
    """Start values: a weighted straight line through the logarithms of points above their error."""
    floor = np.maximum(np.sqrt(variance), 1e-12)
    safe = np.maximum(signal, floor)
    weight = np.square(safe) / variance
    weight[signal < floor] *= 1e-3
    y = np.log(safe)
    total = weight.sum(axis=1)
    mean_x, mean_y = (weight * x).sum(axis=1) / total, (weight * y).sum(axis=1) / total
    dx = x - mean_x[:, None]
    slope = (weight * dx * (y - mean_y[:, None])).sum(axis=1)
    slope /= np.maximum((weight * dx * dx).sum(axis=1), 1e-300)
    return mean_y - slope * mean_x, -slope


def _solve(
    gradient_a: Array, gradient_b: Array, residual: Array, variance: Array
) -> tuple[Array, Array]:
    """Step [sets, 2] and covariance [sets, 2, 2] of two parameters by their gradients."""
    a = (gradient_a * gradient_a / variance).sum(axis=1)
    b = (gradient_a * gradient_b / variance).sum(axis=1)
    c = (gradient_b * gradient_b / variance).sum(axis=1)
    determinant = np.maximum(a * c - b * b, 1e-14 * a * c + 1e-200)
    covariance = np.array([[c, -b], [-b, a]]).transpose(2, 0, 1) / determinant[:, None, None]
    right = np.stack(
        [
            (gradient_a * residual / variance).sum(axis=1),
            (gradient_b * residual / variance).sum(axis=1),
        ],
        axis=1,
    )
    return np.einsum("sij,sj->si", covariance, right), covariance


class PhaseFit(msgspec.Struct, frozen=True):
    """Angular frequency of an oscillation and its standard error, in rad per unit of x."""

    frequency: float
    error: float
    chi_square: float


def fit_frequency(x: Array, signal: NDArray[np.complex128], variance: Array) -> PhaseFit:
    """Angular frequency w of exp(i w x) from complex points [points] of equal real and imaginary
    variance. The search covers frequencies below half a turn of the shortest time above 0."""
    shortest = float(x[x > 0].min())
    count = 1 + 2 * math.ceil(8.0 * float(x.max()) / shortest)
    grid = np.linspace(-math.pi / shortest, math.pi / shortest, count)
    misses = np.square(np.abs(signal - np.exp(1j * grid[:, None] * x))) / variance
    w = float(grid[misses.sum(axis=1).argmin()])
    weight = np.abs(signal) / variance
    curvature = max(float((x * x * weight).sum()), 1e-300)
    for _ in range(_STEPS):
        phase = np.angle(signal * np.exp(-1j * w * x))
        step = float((x * phase * weight).sum()) / curvature
        w += step
        if abs(step) * float(x.max()) < _CONVERGED:
            break
    chi = float((np.square(np.abs(signal - np.exp(1j * w * x))) / variance).sum())
    return PhaseFit(w, 1.0 / math.sqrt(curvature), chi)
