"""Least squares of sqrt(p) - sqrt(q) under a Gaussian prior, by Gauss-Newton with damping.

The components are v = B z with independent standard normal z, so that the columns of B hold the
prior's widths: a column for a change of all qubits together, and one for each qubit's own. The cost
is sum w (sqrt(p) - sqrt(q))^2 + |z|^2, or the logarithm of Student's distribution in place of the
square (`PriorMatrix.penalty`). (Nocedal and Wright, Numerical Optimization, second edition,
sections 10.2 and 10.3; the weight is the inverse variance of sqrt(q), 1/(4 shots), plus that of
the model.)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit.components import Component
from simenv.calibration.fit.observations import Distributions, FittedCircuit
from simenv.calibration.fit.prior import Prior, PriorMatrix

MOST_STEPS = 20
_ENOUGH = 1e-4  # relative change of the cost
_LEAST_PROBABILITY = 1e-9
_PRECISION_STEPS = 8  # iterations of the weights of a heavy-tailed prior


class NormalBlock(msgspec.Struct, frozen=True, eq=False):
    """Part of one observation in the normal equations, at one value of the components."""

    loss: float  # sum (sqrt(p) - sqrt(q))^2 = 2 - 2 sum sqrt(p q)
    params: NDArray[np.int64]  # [k] its components
    gradient: NDArray[np.float64]  # [k] J^T r
    hessian: NDArray[np.float64]  # [k, k] J^T J
    num_outcomes: int  # with a probability above 1 / shots


class FitProblem(msgspec.Struct, frozen=True, eq=False):
    """Observations of a device whose components are unknown."""

    distributions: Distributions
    components: tuple[Component, ...]
    observations: tuple[FittedCircuit, ...]

    def columns(self, prior: Prior) -> PriorMatrix:
        """Unknowns of a prior. If the qubits of some circuits are given, qubits that the compiler
        chose for other circuits have no own unknowns."""
        fixed = {
            qubit
            for each in self.observations
            if not each.was_placed
            for qubit in self.distributions.programs[each.place].qubits
        }
        used = {qubit for component in self.components for qubit in component.qubits}
        return PriorMatrix(prior, self.components, used - fixed if fixed else ())

    def part(self, places: Sequence[int]) -> FitProblem:
        """Problem with some of the observations."""
        return FitProblem(
            self.distributions, self.components, tuple(self.observations[k] for k in places)
        )

    def blocks(self, values: NDArray[np.float64]) -> list[NormalBlock]:
        """Normal equations of all observations at these values."""
        places = [each.place for each in self.observations]
        channels = self.distributions.channels(places, self.components, values, derivatives=True)
        built = self.distributions.outcomes(places, channels)
        blocks = []
        for each in self.observations:
            outcome = built[each.place]
            root = np.sqrt(np.maximum(outcome.probabilities, _LEAST_PROBABILITY))
            jacobian = outcome.jacobian / (2.0 * root[:, None])
            rest = root - np.sqrt(each.frequencies)
            seen = int((root * root * each.shots > 1.0).sum())
            blocks.append(
                NormalBlock(
                    float(rest @ rest),
                    np.array(outcome.params, np.int64),
                    jacobian.T @ rest,
                    jacobian.T @ jacobian,
                    seen,
                )
            )
        return blocks

    def losses(
        self, values: NDArray[np.float64], among: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """sum (sqrt(p) - sqrt(q))^2 of each observation, or of those in `among`."""
        chosen = self.observations if among is None else [self.observations[k] for k in among]
        places = [each.place for each in chosen]
        channels = self.distributions.channels(places, self.components, values, derivatives=False)
        built = self.distributions.outcomes(places, channels)
        results = []
        for each in chosen:
            root = np.sqrt(np.maximum(built[each.place].probabilities, 0.0))
            rest = root - np.sqrt(each.frequencies)
            results.append(float(rest @ rest))
        return np.array(results)


def normal_equations(
    blocks: Sequence[NormalBlock], weights: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted sums of the blocks: hessian [size, size] and gradient [size]."""
    hessian, gradient = np.zeros((size, size)), np.zeros(size)
    for block, weight in zip(blocks, weights.tolist(), strict=True):
        if weight:
            hessian[np.ix_(block.params, block.params)] += weight * block.hessian
            gradient[block.params] += weight * block.gradient
    return hessian, gradient


def linear_solution(
    hessian: NDArray[np.float64],
    gradient: NDArray[np.float64],
    prior: PriorMatrix,
    at: NDArray[np.float64],
    offset: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Latent values z that minimise the cost with the residuals linearised at `at`."""
    columns = prior.matrix
    matrix = columns.T @ hessian @ columns
    right = columns.T @ (hessian @ (at - offset) - gradient)
    result: NDArray[np.float64] = np.zeros(len(right))
    for _ in range(_PRECISION_STEPS if prior.prior.heavy else 1):
        result = np.asarray(np.linalg.solve(matrix + np.diag(prior.precision(result)), right))
    return result


class Solution(msgspec.Struct, frozen=True, eq=False):
    """Values of the components at the least cost, and the normal equations there.

    `weights` [observations]: weights of this fit.
    """

    values: NDArray[np.float64]
    latent: NDArray[np.float64]
    cost: float
    steps: int
    blocks: list[NormalBlock]
    weights: NDArray[np.float64]


def solve(
    problem: FitProblem,
    prior: PriorMatrix,
    weights: NDArray[np.float64],
    start: NDArray[np.float64] | None = None,
    offset: NDArray[np.float64] | float = 0.0,
    *,
    max_steps: int = MOST_STEPS,
    blocks: list[NormalBlock] | None = None,
) -> Solution:
    """Minimise the cost in at most `max_steps` steps; `weights` [observations]. `start`: latent
    values, with their `blocks` if known; `offset`: values of the components at latent 0."""
    columns = prior.matrix
    latent = np.zeros(columns.shape[1]) if start is None else start
    if blocks is None:
        blocks = problem.blocks(offset + columns @ latent)
    cost = _cost(blocks, weights, prior.penalty(latent))
    damping, steps = 0.0, 0
    while steps < max_steps:
        steps += 1
        hessian, gradient = normal_equations(blocks, weights, len(columns))
        precision = prior.precision(latent)
        matrix = columns.T @ hessian @ columns + np.diag(precision)
        slope = columns.T @ gradient + precision * latent
        step = -np.linalg.solve(matrix + damping * np.diag(np.diag(matrix)), slope)
        tried = problem.blocks(offset + columns @ (latent + step))
        lower = _cost(tried, weights, prior.penalty(latent + step))
        if lower < cost:
            gain, cost, latent, blocks = cost - lower, lower, latent + step, tried
            damping = damping / 10.0 if damping > 1e-3 else 0.0
            if gain <= _ENOUGH * max(cost, 1.0):
                break
        elif float(np.abs(step).max()) < 1e-6 or damping > 1e6:
            break
        else:
            damping = max(10.0 * damping, 1e-2)
    return Solution(offset + columns @ latent, latent, cost, steps, blocks, weights)


def _cost(blocks: Sequence[NormalBlock], weights: NDArray[np.float64], penalty: float) -> float:
    losses = np.array([block.loss for block in blocks])
    return float(weights @ losses) + penalty


def weights_of(
    observations: Sequence[FittedCircuit], blocks: Sequence[NormalBlock], *, robust: bool
) -> NDArray[np.float64]:
    """Inverse variance of an outcome's residual in each observation: shot noise plus the model's
    error, estimated from the squared residuals at the best fit so far.

    The model's error is the same for all observations, their mean. With `robust` it is that of each
    observation, but at least the median: the cost is then that of residuals with a Cauchy
    distribution, for which a circuit that no parameters can explain counts little.
    """
    seen = np.array([max(block.num_outcomes, 1) for block in blocks], np.float64)
    noise = np.array([0.25 / each.shots for each in observations])
    losses = np.array([block.loss for block in blocks])
    excess = np.maximum(losses / seen - noise, 0.0)
    if robust:
        return np.asarray(1.0 / (noise + float(np.median(excess)) + excess))
    return np.asarray(1.0 / (noise + float((excess * seen).sum() / seen.sum())))
