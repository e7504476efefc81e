"""Quadrature over detunings that are constant during a shot.

What a circuit does is, in the detuning x of one qubit in units of its standard deviation, a sum of
exp(i a x) with |a| at most the sum of the qubit's rotations, its reach. A few nodes that integrate
all of these have the same mean as the normal distribution, whatever the circuit does.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

from simulators.circuit.noise import Detunings

EXACT_ERROR, SAMPLED_ERROR = 1e-11, 1e-7  # largest error of the mean of exp(i a x)
MOST_NODES = 64  # of a qubit, for sampled results: with more, nearly every shot has its own
LARGEST_GRID = 1e15  # a number above that of all shots
_HERMITE_NODES = 24
_TRIED = 101  # values of a at which the error is looked at

Array = NDArray[np.float64]


@functools.lru_cache(maxsize=1024)
def nodes(reach: float, error: float) -> tuple[Array, Array]:
    """Nodes and weights of a quadrature of the normal distribution that integrates exp(i a x) for
    |a| <= `reach` with at most this error: Gauss-Hermite, or for a large reach the trapezoidal
    rule, whose error is that of its aliases (Trefethen and Weideman, SIAM Review 56, 385)."""
    x: Array
    weights: Array
    a = np.linspace(0.0, reach, _TRIED)
    wanted = np.exp(-0.5 * a * a)
    for count in range(1, _HERMITE_NODES + 1):
        x, factors = hermegauss(count)
        weights = np.asarray(factors / factors.sum())
        if np.abs(np.cos(np.outer(a, x)) @ weights - wanted).max() <= error:
            return x, weights
    tail = math.sqrt(2.0 * math.log(4.0 / error))
    step = 2.0 * math.pi / (reach + tail)
    x = np.asarray(step * np.arange(-math.ceil(tail / step), math.ceil(tail / step) + 1))
    weights = np.asarray(np.exp(-0.5 * x * x))
    return x, weights / weights.sum()


def reaches(detunings: Detunings, acting: NDArray[np.bool_] | None = None) -> dict[int, float]:
    """Sum of the rotations of each qubit, in rad per standard deviation; infinite in a loop.
    `acting` [rotations]: those that count; None: all."""
    angles = np.abs(detunings.angles)
    if acting is not None:
        angles = np.where(acting, angles, 0.0)
    sums = np.bincount(detunings.qubits, angles)
    scale = math.inf if detunings.loops else 1.0
    return {q: scale * float(sums[q]) for q in np.flatnonzero(sums).tolist()}


def grid_size(detunings: Detunings) -> float:
    """Number of sets of nodes of all qubits, at most LARGEST_GRID; many shots have as many
    different sets of detunings."""
    result = 1.0
    for reach in reaches(detunings).values():
        count = nodes(reach, SAMPLED_ERROR)[0].size if math.isfinite(reach) else LARGEST_GRID
        result = min(result * (count if count <= MOST_NODES else LARGEST_GRID), LARGEST_GRID)
    return result
