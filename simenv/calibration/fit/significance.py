"""Significance of the gain of a fit, with the choice of its prior and share inside the test.

The null hypothesis is that the calibration is right: the gradients of the losses of the folds at it
have mean 0 and the variance of shot noise, which is known. Cross-validation is a function of these
gradients: the change without a fold is linear in those of the other folds, and what it gains on the
fold is quadratic in it (`NullGains`). One draw of gradients is for all candidates. That a fit is
better for other circuits where the model is wrong in other ways is shown by circuit bodies, not
here (`accept.HeldOutGain.is_used`).

The statistic of a candidate is its gain over its standard deviation in the null distribution. Its
chance (`NullGains.chance`) is the probability under the null hypothesis that the largest statistic
of all candidates and shares is as large; at least 1 / (DRAWS + 1). (Westfall and Young,
Resampling-Based Multiple Testing, section 2.3, the single step of the largest statistic.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit import solve
from simenv.calibration.fit.solve import FitProblem, NormalBlock, Prior, PriorMatrix

Floats = NDArray[np.float64]

DRAWS = 1000
WIDEST = Prior(0.5, 1.0, dephasing=1.0)
LEAST_CHANCE = 1.0 / (DRAWS + 1)  # where no draw is as large
SEED = 7


class Evidence(msgspec.Struct, frozen=True):
    """Prior of the largest marginal likelihood of all counts. `chance`: probability that the
    largest one is as large if the calibration is right."""

    prior: Prior
    chance: float


class _FoldSums(msgspec.Struct, frozen=True, eq=False):
    """Weighted sums of the normal equations of each fold at the unchanged calibration."""

    gradients: Floats  # [folds, components]
    by_shots: Floats  # [folds, components, components] variance of the gradients by shot noise
    hessians: Floats  # [folds, components, components]


class NullGains:
    """Gains of cross-validation of one problem, measured and under the null hypothesis."""

    def __init__(
        self, problem: FitProblem, folds: NDArray[np.int64], shares: Sequence[float]
    ) -> None:
        """Set up. `folds` [observations]; `shares`: of the way to a fit."""
        self._problem = problem
        self._folds = folds
        self._shares = np.array(shares)
        self._gains: dict[Prior, Floats] = {}
        self._evidence: dict[Prior, Floats] = {}
        self._blocks = blocks = problem.blocks(np.zeros(len(problem.components)))
        self._weights = {
            robust: solve.weights_of(problem.observations, blocks, robust=robust)
            for robust in (False, True)
        }
        sums = {
            key: _fold_sums(problem, folds, blocks, each) for key, each in self._weights.items()
        }
        self._hessians = {key: each.hessians for key, each in sums.items()}
        self._gradients = {key: _drawn(each) for key, each in sums.items()}
        # What no values of the model explain is no likelihood of the calibration.
        best = solve.fit(problem, WIDEST)
        self._likely_weights = solve.weights_of(problem.observations, best.blocks, robust=False)
        likely = _fold_sums(problem, folds, blocks, self._likely_weights)
        self._likely_hessians, self._likely_gradients = likely.hessians, _drawn(likely).sum(axis=0)

    def chance(self, prior: Prior, share: float, family: Iterable[Prior]) -> float:
        """Probability of so large a gain of one of the `family` at any share, if the
        calibration is right."""
        largest = np.max([self._statistics(each) for each in {prior, *family}], axis=(0, 2))
        own = float(self._statistics(prior)[0, int(np.argmin(np.abs(self._shares - share)))])
        return _tail(largest, own)

    def likeliest(self, candidates: Iterable[Prior]) -> Evidence:
        """Candidate of the largest marginal likelihood, none of them robust."""
        priors = {msgspec.structs.replace(each, heavy=False, robust=False) for each in candidates}
        known = [(self._log_evidence(each), each) for each in sorted(priors, key=repr)]
        largest = np.max([values for values, _ in known], axis=0)
        _, best = max(known, key=lambda pair: float(pair[0][0]))
        return Evidence(best, _tail(largest, float(largest[0])))

    def alone(self, prior: Prior) -> frozenset[str]:
        """Bodies whose outcomes the other folds leave open: with a variance by the posterior
        distribution of a fit without them that is larger than that of their counts."""
        matrix, hessians = self._problem.columns(prior).matrix, self._likely_hessians
        without = [
            matrix @ np.linalg.solve(matrix.T @ rest @ matrix + np.eye(matrix.shape[1]), matrix.T)
            for rest in hessians.sum(axis=0) - hessians
        ]
        sums: dict[str, float] = {}
        each = zip(self._problem.observations, self._blocks, self._folds.tolist(), strict=True)
        for (seen, block, fold), weight in zip(each, self._likely_weights.tolist(), strict=True):
            covariance = without[fold][np.ix_(block.params, block.params)]
            variance = weight * float((block.hessian * covariance).sum())
            sums[seen.body] = sums.get(seen.body, 0.0) + variance - block.num_outcomes
        return frozenset(body for body, excess in sums.items() if excess > 0.0)

    def _log_evidence(self, prior: Prior) -> Floats:
        """Logarithm of the marginal likelihood over that of the calibration [1 + DRAWS], by a
        quadratic expansion of the likelihood at the calibration."""
        if prior not in self._evidence:
            matrix = self._problem.columns(prior).matrix
            slopes = self._likely_gradients @ matrix
            hessian = self._likely_hessians.sum(axis=0)
            inner = matrix.T @ hessian @ matrix + np.eye(matrix.shape[1])
            latent = np.linalg.solve(inner, slopes.T).T
            ratio = np.einsum("dk,dk->d", slopes, latent)
            self._evidence[prior] = 0.5 * (ratio - float(np.linalg.slogdet(inner)[1]))
        return self._evidence[prior]

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
        matrix, sums, hessians = columns.matrix, self._gradients[robust], self._hessians[robust]
        all_sums, all_hessians = sums.sum(axis=0), hessians.sum(axis=0)
        slope, curvature = np.zeros(len(all_sums)), np.zeros(len(all_sums))
        for own, hessian in zip(sums, hessians, strict=True):
            inner = matrix.T @ (all_hessians - hessian) @ matrix + np.eye(matrix.shape[1])
            latent = -np.linalg.solve(inner, matrix.T @ (all_sums - own).T).T
            slope -= 2.0 * np.einsum("dk,dk->d", own @ matrix, latent)
            curvature += np.einsum("dk,dk->d", latent @ (matrix.T @ hessian @ matrix), latent)
        gains: Floats = slope[:, None] * self._shares - curvature[:, None] * self._shares**2
        return gains


def _tail(values: Floats, own: float) -> float:
    """Probability of at least `own`; the first one of the values is measured."""
    return (int(np.count_nonzero(values[1:] >= own - 1e-9)) + 1) / (DRAWS + 1)


def _drawn(sums: _FoldSums) -> Floats:
    """Gradients of each fold [folds, 1 + DRAWS, components]; the first ones are measured."""
    rng = np.random.default_rng(SEED)
    results = []
    for gradient, variance in zip(sums.gradients, sums.by_shots, strict=True):
        values, vectors = np.linalg.eigh(variance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        results.append(np.vstack((gradient, rng.normal(size=(DRAWS, len(values))) @ root.T)))
    return np.array(results)


def _fold_sums(
    problem: FitProblem, folds: NDArray[np.int64], blocks: Sequence[NormalBlock], weights: Floats
) -> _FoldSums:
    count, size = int(folds.max()) + 1, len(problem.components)
    parts = [np.where(folds == fold, weights, 0.0) for fold in range(count)]
    pairs = [solve.normal_equations(blocks, part, size) for part in parts]
    by_shots = np.zeros((count, size, size))
    for fold, block, weight in zip(folds.tolist(), blocks, weights.tolist(), strict=True):
        by_shots[fold][np.ix_(block.params, block.params)] += weight**2 * block.by_shots
    return _FoldSums(
        np.array([gradient for _, gradient in pairs]), by_shots, np.array([h for h, _ in pairs])
    )
