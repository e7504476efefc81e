"""Significance of the gain of a fit, with the choice of its prior and share inside the test.

The null hypothesis is that no fit helps: the gradients of the losses of circuit bodies have mean 0
at the unchanged calibration. Cross-validation is a function of these gradients: the change without
a fold is linear in those of the other folds, and what it gains on the fold is quadratic in it
(`NullGains`). For many bodies the null distribution has the gradients of whole bodies with random
signs, which holds for any error of the model; one draw changes the signs for all candidates. For
few bodies it has gradients by shot noise alone, whose variance is known: it is the distribution for
a calibration that is right, and says nothing of a model that is wrong in other ways
(`accept.HeldOutGain.is_used`).

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


class _BodySums(msgspec.Struct, frozen=True, eq=False):
    """Weighted sums of the normal equations of each fold and body at the unchanged calibration."""

    fold: NDArray[np.int64]  # [bodies]
    gradients: Floats  # [bodies, components]
    hessians: Floats  # [folds, components, components]
    by_shots: tuple[Floats, ...]  # variance of the gradient of each body; () for many


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
        result = np.zeros((place.shape[1], 1 + DRAWS, gradients.shape[1]))
        result[:, 0] = place.T @ gradients
        for fold, variance in zip(sums.fold.tolist(), sums.by_shots, strict=False):
            values, vectors = np.linalg.eigh(variance)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            result[fold, 1:] += rng.normal(size=(DRAWS, len(values))) @ root.T
        if sums.by_shots:
            return result
        signs = rng.choice((-1.0, 1.0), size=(DRAWS, count))
        for fold in range(len(result)):
            own = sums.fold == fold
            result[fold, 1:] = signs[:, own] @ gradients[own]
        return result

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
    by_shots = []
    for body in range(len(first)) if len(first) < LEAST_SIGNED else ():
        variance = np.zeros((size, size))
        for k in np.flatnonzero(number == body).tolist():
            place = np.ix_(blocks[k].params, blocks[k].params)
            variance[place] += weights[k] ** 2 * blocks[k].by_shots
        by_shots.append(variance)
    return _BodySums(folds[first], gradients, hessians, tuple(by_shots))
