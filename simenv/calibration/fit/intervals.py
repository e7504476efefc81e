"""Bootstrap intervals of a fit.

Bodies of circuits are drawn with replacement, and each draw is fitted by one Gauss-Newton step from
the fit of all. (Efron and Tibshirani, An Introduction to the Bootstrap, section 6.4.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit.prior import PriorMatrix
from simenv.calibration.fit.solve import FitProblem, Solution, linear_solution, normal_equations

DRAWS = 200
COVERAGE = 0.95
SEED = 7


def intervals(problem: FitProblem, solution: Solution, prior: PriorMatrix) -> NDArray[np.float64]:
    """Lower and upper ends of the 95 % intervals of the unknowns, [2, columns]."""
    bodies = np.array([each.body for each in problem.observations])
    names, number = np.unique(bodies, return_inverse=True)
    rng = np.random.default_rng(SEED)
    draws = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        hessian, gradient = normal_equations(
            solution.blocks, solution.weights * times[number], len(problem.components)
        )
        draws.append(linear_solution(hessian, gradient, prior, solution.values))
    edge = 50.0 * (1.0 - COVERAGE)
    return np.asarray(np.percentile(np.array(draws), [edge, 100.0 - edge], axis=0))
