"""Significance of the gain of a fit, with the choice of its prior and share inside the test.

The null hypothesis is that no fit helps: the gradients of the losses of circuit bodies have mean 0
at the unchanged calibration. Cross-validation is a function of these gradients: the change without
a fold is linear in those of the other folds, and what it gains on the fold is quadratic in it
(`NullGains`). For many bodies the null distribution has the gradients of whole bodies with random
signs, which holds for any error of the model; one draw changes the signs for all candidates. For
few bodies it has gradients by shot noise, whose variance is known, and by values of the components
that differ from body to body, whose variance follows from what the best fit leaves.

The statistic of a candidate is its gain over its standard deviation in the null distribution. Its
chance (`NullGains.chance`) is the probability under the null hypothesis that the largest statistic
of all candidates and shares is as large. (Westfall and Young, Resampling-Based Multiple Testing,
section 2.3, the single step of the largest statistic.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit import solve
from simenv.calibration.fit.solve import FitProblem, NormalBlock, Prior, PriorMatrix

Floats = NDArray[np.float64]

LEAST_SIGNED = 12  # bodies: half of 2^n signs differ, as all signs together change no gain
DRAWS = 1000
SEED = 7
_BODY, _WIDE = Prior(1.0, 1.0), Prior(0.5, 0.3)  # of differences of bodies; of the best fit
_LEAST_VARIANCE = 1e-6  # of a combination of components, relative to the largest


class _BodySums(msgspec.Struct, frozen=True, eq=False):
    """Weighted sums of the normal equations of each fold and body at the unchanged calibration."""

    fold: NDArray[np.int64]  # [bodies]
    gradients: Floats  # [bodies, components]
    hessians: Floats  # [folds, components, components]
    of_bodies: tuple[tuple[Floats, Floats], ...]  # hessian and variance by shots; () for many


class NullGains:
    """Gains of cross-validation of one problem, measured and under the null hypothesis."""

    def __init__(
        self, problem: FitProblem, folds: NDArray[np.int64], shares: Sequence[float]
    ) -> None:
        """Set up. `folds` [observations]; `shares`: of the way to a fit."""
        self._problem = problem
        self._shares = np.array(shares)
        self._gains: dict[Prior, Floats] = {}
        blocks = problem.blocks(np.zeros(len(problem.components)))
        self._fold_sums: dict[bool, Floats] = {}
        self._hessians: dict[bool, Floats] = {}
        for robust in (False, True):
            weights = solve.weights_of(problem.observations, blocks, robust=robust)
            sums = _body_sums(problem, folds, blocks, weights)
            self._hessians[robust] = sums.hessians
            self._fold_sums[robust] = self._drawn(sums)

    def chance(self, prior: Prior, share: float, family: Iterable[Prior]) -> float:
        """Probability of so large a gain of one of the `family` at any share, if no fit helps."""
        largest = np.max([self._statistics(each) for each in {prior, *family}], axis=(0, 2))
        own = float(self._statistics(prior)[0, int(np.argmin(np.abs(self._shares - share)))])
        return (int(np.count_nonzero(largest[1:] >= own - 1e-9)) + 1) / (DRAWS + 1)

    def _drawn(self, sums: _BodySums) -> Floats:
        """Sums of gradients of the bodies of each fold [folds, 1 + DRAWS, components]; the first
        ones are measured."""
        rng = np.random.default_rng(SEED)
        gradients, count = sums.gradients, len(sums.fold)
        place = np.eye(int(sums.fold.max()) + 1)[sums.fold]  # [bodies, folds]
        result = np.empty((place.shape[1], 1 + DRAWS, gradients.shape[1]))
        result[:, 0] = place.T @ gradients
        if sums.of_bodies:
            result[:, 1:] = 0.0
            drawn = self._by_noise(sums, rng)
            for fold, each in zip(sums.fold.tolist(), drawn, strict=True):
                result[fold, 1:] += each
            return result
        signs = rng.choice((-1.0, 1.0), size=(DRAWS, count))
        for fold in range(len(result)):
            own = sums.fold == fold
            result[fold, 1:] = signs[:, own] @ gradients[own]
        return result

    def _by_noise(self, sums: _BodySums, rng: np.random.Generator) -> Iterable[Floats]:
        """Gradients [DRAWS, components] of each body."""
        apart = self._problem.columns(_BODY).matrix
        variance = self._variance_of_bodies(sums, rng)
        for hessian, by_shots in sums.of_bodies:
            values, vectors = np.linalg.eigh(by_shots)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            own = rng.normal(size=(DRAWS, apart.shape[1])) * np.sqrt(variance)[:, None]
            yield rng.normal(size=(DRAWS, len(values))) @ root.T + own @ (hessian @ apart).T

    def _variance_of_bodies(self, sums: _BodySums, rng: np.random.Generator) -> Floats:
        """Variance of the unknowns from body to body, drawn from its distribution [DRAWS]: by the
        squares that are left by a fit, in the combinations in which bodies differ most beside shot
        noise, less those of the shots alone. Degrees of freedom are those of Satterthwaite."""
        apart = self._problem.columns(_BODY).matrix
        matrix = self._problem.columns(_WIDE).matrix
        curvature = matrix.T @ sums.hessians.sum(axis=0) @ matrix
        inverse = np.linalg.inv(curvature + np.eye(len(curvature)))
        change = -matrix @ (inverse @ (matrix.T @ sums.gradients.sum(axis=0)))
        squares = by_shots = by_bodies = 0.0
        for gradient, (hessian, variance) in zip(sums.gradients, sums.of_bodies, strict=True):
            values, vectors = np.linalg.eigh(apart.T @ variance @ apart)
            seen = values > _LEAST_VARIANCE * max(float(values.max()), 1e-300)
            scaled = vectors[:, seen] / np.sqrt(values[seen])
            rest = scaled.T @ (apart.T @ (gradient + hessian @ change))
            spread = scaled.T @ (apart.T @ hessian @ apart)
            squares += float(((spread.T @ rest) ** 2).sum())
            by_shots += float((spread**2).sum())
            by_bodies += float(((spread @ spread.T) ** 2).sum())
        left = 1.0 - 1.0 / len(sums.fold)  # by a fit to all
        by_shots, by_bodies = left * by_shots, left * max(by_bodies, 1e-300)
        freedom = max(by_shots**2 / by_bodies, 1e-300)
        drawn = squares * freedom / rng.chisquare(freedom, size=DRAWS)
        return np.asarray(np.maximum(drawn - by_shots, 0.0) / by_bodies)

    def _statistics(self, prior: Prior) -> Floats:
        """Gain over its standard deviation in the draws [1 + DRAWS, shares]; unknowns with heavy
        tails as normal ones of that width."""
        key = msgspec.structs.replace(prior, heavy=False)
        if key not in self._gains:
            gains = self._gain(self._problem.columns(key), key.robust)
            deviation = gains[1:].std(axis=0)
            self._gains[key] = gains / np.maximum(deviation, 1e-300)
        return self._gains[key]

    def _gain(self, columns: PriorMatrix, robust: bool) -> Floats:
        """Decrease of the weighted loss on all folds [1 + DRAWS, shares]."""
        matrix, sums, hessians = columns.matrix, self._fold_sums[robust], self._hessians[robust]
        all_sums, all_hessians = sums.sum(axis=0), hessians.sum(axis=0)
        slope, curvature = np.zeros(len(all_sums)), np.zeros(len(all_sums))
        for own, hessian in zip(sums, hessians, strict=True):
            inner = matrix.T @ (all_hessians - hessian) @ matrix + np.eye(matrix.shape[1])
            latent = -np.linalg.solve(inner, matrix.T @ (all_sums - own).T).T
            slope -= 2.0 * np.einsum("dk,dk->d", own @ matrix, latent)
            curvature += np.einsum("dk,dk->d", latent @ (matrix.T @ hessian @ matrix), latent)
        gains: Floats = slope[:, None] * self._shares - curvature[:, None] * self._shares**2
        return gains


def _body_sums(
    problem: FitProblem, folds: NDArray[np.int64], blocks: Sequence[NormalBlock], weights: Floats
) -> _BodySums:
    size = len(problem.components)
    bodies = np.array([each.body for each in problem.observations])
    _, first, number = np.unique(bodies, return_index=True, return_inverse=True)
    gradients = np.zeros((len(first), size))
    for body, block, weight in zip(number.tolist(), blocks, weights.tolist(), strict=True):
        gradients[body, block.params] += weight * block.gradient
    parts = [np.where(folds == fold, weights, 0.0) for fold in range(int(folds.max()) + 1)]
    hessians = np.array([solve.normal_equations(blocks, part, size)[0] for part in parts])
    of_bodies = []
    for body in range(len(first)) if len(first) < LEAST_SIGNED else ():
        hessian, by_shots = np.zeros((size, size)), np.zeros((size, size))
        for k in np.flatnonzero(number == body).tolist():
            place = np.ix_(blocks[k].params, blocks[k].params)
            hessian[place] += weights[k] * blocks[k].hessian
            by_shots[place] += weights[k] ** 2 * blocks[k].by_shots
        of_bodies.append((hessian, by_shots))
    return _BodySums(folds[first], gradients, hessians, tuple(of_bodies))
