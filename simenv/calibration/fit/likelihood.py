"""Likelihood of measured counts as a function of a device's values, and its profile.

The values are x = 1 + change of the factor of a rate or probability (`Component`), at least 0, an
angle, a change of the ZZ factor, or the probability of a joint flip, at least 0. Rates and
probabilities act on the outcome probabilities p(x) almost linearly, so that the deviance D(x) = -2
sum w N q log(p / q) is close to a parabola in them, where it is not in their logarithms. No prior
is part of it.

`Likelihood.at` gives D, its slope, and the Fisher information F = sum w N J^T diag(1/p) J.
`Likelihood.maximum` finds the least deviance. The profile of a quantity g(x) is the least deviance
of all x with the same g; its interval of 95 % is where the profile is at most 3.84 above the least
deviance (Pawitan, In All Likelihood, section 3.4). With the deviance as a parabola and x >= 0, both
ends follow from the solutions of a quadratic program for a growing multiplier, straight lines
between changes of the active set (`extreme`; Best, An algorithm for the solution of the parametric
quadratic programming problem, 1996).

The weights w are those of the fit, the part that shots have in the variance of a circuit's counts
(`solve.weights_of`): what the model leaves unexplained, in one circuit or between repetitions of
it, is a variance as well. What remains after them is the dispersion, a factor of 3.84, also from
the scatter of the slopes of circuit bodies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit import components as fit_components
from simenv.calibration.fit.solve import FitProblem, weights_of

Floats = NDArray[np.float64]

LEVEL = 3.841  # 95 % quantile of chi-square with one degree of freedom
_LEAST_FACTOR = 1e-9  # whose logarithm is a component
_LEAST_PROBABILITY = 1e-6  # part of the uniform distribution, as in `judge`
_WEAK = 1e-4  # information that every value has: of a standard deviation of 100
_STEP_WIDTH = 2.0  # standard deviation of a step, of values without information
_STEP_RAD = 0.2  # the same, of angles
_MOST_STEPS = 12
_ENOUGH = 0.01  # of the deviance
_CLEAR = 2.0  # standard errors of a scatter of bodies beyond that of their counts


class Expansion(msgspec.Struct, frozen=True, eq=False):
    """Deviance at `x`, its negative half slope, and the Fisher information."""

    x: Floats  # [n]
    deviance: float
    score: Floats  # [n]
    fisher: Floats  # [n, n]
    slopes: Floats  # [bodies, n]: parts of `score`
    parts: Floats  # [bodies, n, n]: parts of `fisher`

    def predicted(self, x: Floats) -> float:
        """Deviance as a parabola."""
        step = x - self.x
        return self.deviance + float(step @ (self.fisher @ step - 2.0 * self.score))


class Likelihood:
    """Likelihood of the observations of a fit."""

    def __init__(
        self,
        problem: FitProblem,
        components: Sequence[fit_components.Component],
        held: Mapping[fit_components.Component, float],
        *,
        robust: bool,
    ) -> None:
        """`components`: those that are unknown, `held`: values of others. The readout errors of a
        qubit have no asymmetry or addition besides their factors."""
        self.components = tuple(components)
        self._held_values = dict(held)
        self._held = np.array([*held.values()], np.float64)
        self.problem = msgspec.structs.replace(problem, components=(*self.components, *held))
        self.is_factor = np.array([not _is_linear(each) for each in self.components], bool)
        parts = (fit_components.JOINT, fit_components.UNIFORM)
        is_part = np.array([each.kind in parts for each in self.components], bool)
        self.lower = np.where(self.is_factor | is_part, 0.0, -np.inf)
        is_angle = np.array([each.is_angle for each in self.components], bool)
        self._step_width = np.where(is_angle, _STEP_RAD, _STEP_WIDTH)
        self._robust = robust
        self._weights = np.ones(len(problem.observations))
        names = [each.body for each in problem.observations]
        self._bodies = {body: k for k, body in enumerate(dict.fromkeys(names))}
        self.dispersion = 1.0

    def with_unknown(self, component: fit_components.Component) -> Likelihood:
        """The same likelihood, weights and dispersion with one more unknown, the last one."""
        unknown = (*self.components, component)
        result = Likelihood(self.problem, unknown, self._held_values, robust=self._robust)
        result._weights, result.dispersion = self._weights, self.dispersion
        return result

    def values(self, x: Floats) -> Floats:
        """Values of the components, then those that are held."""
        logs = np.log(np.maximum(x, _LEAST_FACTOR))
        return np.concatenate((np.where(self.is_factor, logs, x), self._held))

    def unknowns(self, values: Floats) -> Floats:
        """The unknowns x for values of their components."""
        return np.asarray(np.where(self.is_factor, np.exp(values), values))

    def scale(self, x: Floats) -> Floats:
        """Derivative of x by the component."""
        return np.where(self.is_factor, np.maximum(x, _LEAST_FACTOR), 1.0)

    def at(self, x: Floats) -> Expansion:
        """Expand the deviance at x."""
        problem, size = self.problem, len(self.components)
        places = [each.place for each in problem.observations]
        channels = problem.distributions.channels(
            places, problem.components, self.values(x), derivatives=True
        )
        built = problem.distributions.outcomes(places, channels)
        deviance, parts = 0.0, np.zeros((len(self._bodies), size, size))
        slopes = np.zeros((len(self._bodies), size))
        for weight, each in zip(self._weights.tolist(), problem.observations, strict=True):
            outcome = built[each.place]
            unknown = np.flatnonzero(np.array(outcome.params, np.int64) < size)
            params = np.array(outcome.params, np.int64)[unknown]
            p, measured = _floored(outcome.probabilities), each.frequencies
            seen = measured > 0.0
            count = weight * each.shots
            logs = np.log(measured[seen] / p[seen])
            deviance += 2.0 * count * float(measured[seen] @ logs)
            jacobian = (1.0 - _LEAST_PROBABILITY) * outcome.jacobian[:, unknown]
            body = self._bodies[each.body]
            slopes[body, params] += count * (jacobian.T @ (measured / p))
            root = jacobian * np.sqrt(count / p)[:, None]
            parts[body][np.ix_(params, params)] += root.T @ root
        scale = self.scale(x)
        slopes /= scale
        parts /= np.outer(scale, scale)
        return Expansion(x, deviance, slopes.sum(axis=0), parts.sum(axis=0), slopes, parts)

    def maximum(self, start: Floats) -> Expansion:
        """Find the least deviance from the values `start` of the components, with weights and
        dispersion by the residuals there."""
        x = self.unknowns(start)
        self._weigh(x)
        found = self._descended(self.at(x))
        self._weigh(found.x)
        found = self._descended(self.at(found.x))
        self.dispersion = self._dispersion(found)
        return found

    def _weigh(self, x: Floats) -> None:
        observations = self.problem.observations
        blocks = self.problem.blocks(self.values(x))
        weights = weights_of(observations, blocks, robust=self._robust)
        self._weights = weights * [0.25 / each.shots for each in observations]

    def _descended(self, found: Expansion) -> Expansion:
        """Fisher scoring with bounds, each step halved until the deviance falls."""
        for _ in range(_MOST_STEPS):
            matrix = found.fisher + np.diag(self._step_width**-2)
            goal = minimum(matrix, matrix @ found.x + found.score, self.lower)
            if found.deviance - found.predicted(goal) < _ENOUGH:
                break
            share, tried = 1.0, self.at(goal)
            while tried.deviance > found.deviance and share > 0.1:
                share /= 3.0
                tried = self.at(found.x + share * (goal - found.x))
            gain = found.deviance - tried.deviance
            if gain > 0.0:
                found = tried
            if gain < _ENOUGH:
                break
        return found

    def _dispersion(self, found: Expansion) -> float:
        """Variance of the counts in units of the weighted one, at least 1: by the residuals of
        circuits, and by the scatter of the slopes of bodies, whose circuits may err together."""
        blocks = self.problem.blocks(self.values(found.x))
        observations = self.problem.observations
        noise = np.array([0.25 / each.shots for each in observations])
        seen = np.array([max(block.num_outcomes, 1.0) for block in blocks])
        losses = np.array([block.loss for block in blocks])
        scaled = self._weights / noise
        turn = _determined(found, self.lower)
        rank = turn.shape[1]
        of_circuits = float((losses * scaled).sum()) / max(float(seen.sum()) - rank, 1.0)
        scatter = float(((found.slopes @ turn) ** 2).sum())
        shares = turn.T @ found.parts @ turn
        expected = rank - float((shares**2).sum())
        of_bodies = scatter / max(expected, 1e-9)
        is_clear = expected > 1.0 and of_bodies > 1.0 + _CLEAR * math.sqrt(2.0 / expected)
        return float(max(1.0, of_circuits, of_bodies if is_clear else 1.0))

    def ends(
        self, best: Expansion, gradient: Floats, level: float = LEVEL
    ) -> tuple[Floats, Floats]:
        """Values x with the least and the most of the quantity with this gradient where the
        deviance, as a parabola, is `level` above its least."""
        low, high = (
            extreme(best, side * gradient, self.lower, level * self.dispersion)
            for side in (-1.0, 1.0)
        )
        return low, high


def _is_linear(component: fit_components.Component) -> bool:
    return component.is_angle or component.kind in fit_components.CHANGES


def _floored(p: Floats) -> Floats:
    least = _LEAST_PROBABILITY
    return np.asarray((1.0 - least) * np.maximum(p, 0.0) + least / len(p))


def _determined(found: Expansion, lower: Floats) -> Floats:
    """Directions that the data determine better than to a factor, each divided by the square root
    of its information: [n, rank]. Values at their bounds have no part in them."""
    free = found.x > lower
    eigenvalues, vectors = np.linalg.eigh(found.fisher[np.ix_(free, free)])
    kept = eigenvalues > 1.0
    result = np.zeros((len(found.x), int(kept.sum())))
    result[free] = vectors[:, kept] / np.sqrt(eigenvalues[kept])
    return result


def minimum(matrix: Floats, right: Floats, lower: Floats) -> Floats:
    """Solve the quadratic program: x >= lower with the least x^T matrix x / 2 - right^T x, for a
    positive definite matrix, by an active set (Lawson and Hanson, Solving Least Squares Problems,
    chapter 23)."""
    x = np.where(np.isfinite(lower), lower, 0.0)
    free = ~np.isfinite(lower)
    for _ in range(4 * len(x) + 10):
        x, free = _moved(matrix, right, lower, x, free)
        slope = matrix @ x - right
        scale = np.sqrt(np.diag(matrix))
        entering = np.where(free, 0.0, -slope / scale)
        if float(entering.max(initial=0.0)) <= 1e-9 * max(1.0, float(np.abs(right / scale).max())):
            break
        free = free.copy()
        free[int(entering.argmax())] = True
    return x


def _moved(
    matrix: Floats, right: Floats, lower: Floats, x: Floats, free: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Move to the least value with the bounds of the others, which stops at further bounds."""
    while free.any():
        fixed = ~free
        load = right[free] - matrix[np.ix_(free, fixed)] @ x[fixed]
        goal = x.copy()
        goal[free] = np.linalg.solve(matrix[np.ix_(free, free)], load)
        below = free & (goal < lower)
        if not below.any():
            return goal, free
        shares = (x[below] - lower[below]) / np.maximum(x[below] - goal[below], 1e-300)
        x = x + float(shares.min()) * (goal - x)
        hit = below & (x <= lower + 1e-12)
        x = np.where(hit, lower, x)
        free = free & ~hit
    return x, free


def extreme(best: Expansion, gradient: Floats, lower: Floats, rise: float) -> Floats:
    """Values with the most of gradient^T x whose deviance, as the parabola of `best`, is `rise`
    above its least.

    For growing m, x(m) has the least deviance / 2 - m gradient^T x. Between changes of the set of
    values at their bounds it is a straight line."""
    matrix = best.fisher + _WEAK * np.eye(len(best.x))
    right = matrix @ best.x + best.score
    x = minimum(matrix, right, lower)
    free = x > lower
    at, used = 0.0, 0.0  # multiplier, and the rise of the deviance so far
    for _ in range(4 * len(x) + 10):
        direction = np.zeros(len(x))
        direction[free] = np.linalg.solve(matrix[np.ix_(free, free)], gradient[free])
        speed = float(gradient @ direction)
        if speed <= 0.0:
            entering = _entering(matrix, right, gradient, x, free, at)
            if entering < 0:
                break
            free[entering] = True
            continue
        last = math.sqrt(at**2 + (rise - used) / speed)
        step, number = last - at, -1
        falling = free & (direction < 0.0)
        if falling.any():
            gaps = np.where(falling, (lower - x) / np.minimum(direction, -1e-300), np.inf)
            if float(gaps.min()) < step:
                step, number = max(float(gaps.min()), 0.0), int(gaps.argmin())
        multipliers = matrix @ x - right - at * gradient
        change = matrix @ direction - gradient
        leaving = ~free & (change < -1e-12)
        if leaving.any():
            gaps = np.where(
                leaving, np.maximum(multipliers, 0.0) / np.maximum(-change, 1e-300), np.inf
            )
            if float(gaps.min()) < step:
                step, number = float(gaps.min()), int(gaps.argmin())
        x = x + step * direction
        used += speed * ((at + step) ** 2 - at**2)
        at += step
        if number < 0:
            break
        free = free.copy()
        free[number] = not free[number]
        if not free[number]:
            x[number] = lower[number]
    return x


def _entering(
    matrix: Floats, right: Floats, gradient: Floats, x: Floats, free: NDArray[np.bool_], at: float
) -> int:
    """Value at its bound that the next multiplier moves first, where no free value matters."""
    useful = ~free & (gradient > 0.0)
    if not useful.any():
        return -1
    waits = np.where(
        useful, (matrix @ x - right - at * gradient) / np.maximum(gradient, 1e-300), np.inf
    )
    return int(waits.argmin())
