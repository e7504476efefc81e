"""Distances of two samples of counts, and the distances that shot noise alone would give. Pure.

Total variation: half the sum of |p - q|. Hellinger: sqrt(1 - sum of sqrt(p q)). Shot noise: the
shots of both samples are pooled and split again at random, which simulates two samples of one
unknown distribution (a permutation test; multivariate hypergeometric).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simenv.cli.admin.qpm_diff_observe import SampleDistance

ROUNDS = 200
SIGMAS = 5.0
_SEED = 20_25  # of the random splits: the same counts give the same verdict

Floats = NDArray[np.floating[Any]]


def distance(first: Mapping[str, int], second: Mapping[str, int]) -> SampleDistance:
    """Return the distances of two samples, each with at least one shot."""
    outcomes = sorted({*first, *second})
    first_counts = np.array([first.get(outcome, 0) for outcome in outcomes], dtype=np.int64)
    second_counts = np.array([second.get(outcome, 0) for outcome in outcomes], dtype=np.int64)
    together = first_counts + second_counts
    rng = np.random.default_rng(_SEED)
    dealt = rng.multivariate_hypergeometric(
        together, int(first_counts.sum()), size=ROUNDS, method="marginals"
    )
    chance_tv, chance_h = _apart(dealt, together - dealt)
    tv, hellinger = _apart(first_counts[None, :], second_counts[None, :])
    return SampleDistance(
        float(tv[0]),
        float(hellinger[0]),
        float(chance_tv.mean()),
        float(chance_h.mean()),
        _upper_bound(chance_tv),
        _upper_bound(chance_h),
    )


def _apart(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return both distances of each row, [rounds]."""
    p = first / first.sum(axis=1, keepdims=True)
    q = second / second.sum(axis=1, keepdims=True)
    overlap = np.sqrt(p * q).sum(axis=1)
    return 0.5 * np.abs(p - q).sum(axis=1), np.sqrt(np.clip(1.0 - overlap, 0.0, 1.0))


def _upper_bound(chance: Floats) -> float:
    return float(chance.mean() + SIGMAS * chance.std())
