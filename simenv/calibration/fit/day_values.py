"""Parameters of a device that change from day to day, by a likelihood-ratio test.

Counts of several days (date windows of `observations`) are fitted in common first. A parameter of
which a value for each day fits better than one for all days, beyond chance, drifts; the others have
one value, to which all days contribute. What the model lacks of a circuit is the same on each day:
the residuals of a circuit have, beside the variance of the counts, a common part whose variance is
that of the model's error (`solve.weights_of`). A circuit that ran on several days thus counts by
its changes, one that ran once with the weight that it has in a fit. With A the information on the
changes c of a parameter, given those of the parameters that drift already,

    Q = c M c,   M = A - A 1 1 A / (1 A 1)

has a chi-square distribution with (days - 1) degrees of freedom for a parameter that is constant
(Cochran's Q, where A is diagonal). Parameters are added one after the other, that of the least
probability first, as long as it is below LEVEL divided by their number (Bonferroni). The variance
from day to day, (Q - days + 1) / tr M, is that of random effects (DerSimonian and Laird, Controlled
Clinical Trials 7, 177, 1986, eq. 8); it is the prior of the day's values around the common one,
which shrinks them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.fit import components as fit_components, solve
from simenv.calibration.fit.acting_bodies import Column

LEVEL = 0.01  # probability of any parameter that drifts by chance
MOST_PARAMETERS = 12  # that drift
# From day to day, of the logarithm of a factor. A parameter that had to change by more does not
# explain the counts: few of its changes are seen in them.
MOST_SPREAD = 1.0
_USUAL_SPREAD = 0.5  # of the others that drift
_LEAST_KNOWN = 1e-6  # of a parameter's information, which the other parameters do not explain
_OTHER = (fit_components.ASYMMETRY, *fit_components.ADDED.values())
# Every parameter has the width 1; readout drifts by its factors alone.
_UNIT = solve.Prior(1.0, 1.0, zz=1.0, quasistatic=1.0)


class DayTest(msgspec.Struct, frozen=True):
    """Test of one parameter. `spread`: standard deviation from day to day of the logarithm of its
    factor, or of the factor of ZZ rates; 0.0: not more than chance."""

    column: Column
    days: int  # that tell something about it
    probability: float  # of a change as large by chance
    spread: float
    drifts: bool

    @property
    def name(self) -> str:
        """Kind and qubits of the parameter."""
        kind, qubits = self.column
        return " ".join((kind, *map(str, qubits)))

    @property
    def text(self) -> str:
        """The spread as a factor, or as a change."""
        if self.column[0] in fit_components.CHANGES:
            return f"+- {self.spread:.3f}"
        return f"x {math.exp(self.spread):.3f}"


def day_tests(
    problem: solve.FitProblem, common: solve.Solution, windows: NDArray[np.int64]
) -> tuple[DayTest, ...]:
    """Test all parameters of a common fit; those that drift come first. `windows`: of each
    observation."""
    columns = problem.columns(_UNIT)
    table = _Information.of(problem, common, windows, columns.matrix)
    names = [k for k, (kind, _) in enumerate(columns.columns) if kind not in _OTHER]
    drifting: list[int] = []
    while len(drifting) < MOST_PARAMETERS:
        rest = [k for k in names if k not in drifting]
        tests = {k: _test(table, k, drifting) for k in rest}
        rest = [k for k in rest if tests[k][1] <= MOST_SPREAD]
        best = min(rest, key=lambda k: tests[k][0], default=-1)
        if best < 0 or tests[best][0] >= LEVEL / len(names):
            break
        drifting.append(best)
    results = []
    for k in (*drifting, *(k for k in names if k not in drifting)):
        probability, spread, days = _test(table, k, [each for each in drifting if each != k])
        if days > 1:
            drifts = k in drifting and probability < LEVEL / len(names)
            results.append(DayTest(columns.columns[k], days, probability, spread, drifts))
    return tuple(sorted(results, key=lambda each: not each.drifts))


def day_prior(tests: Sequence[DayTest]) -> solve.Prior | None:
    """Prior of the day's values around the common ones; None: nothing drifts."""
    widths = tuple(
        (each.column, min(each.spread, MOST_SPREAD))
        for each in tests
        if each.drifts and each.spread
    )
    return msgspec.structs.replace(_UNIT, days=widths) if widths else None


class _Information(msgspec.Struct, frozen=True, eq=False):
    """Normal equations of the day's changes of all parameters."""

    gradient: NDArray[np.float64]  # [days, parameters]
    hessian: NDArray[np.float64]  # [days, days, parameters, parameters]

    @staticmethod
    def of(
        problem: solve.FitProblem,
        common: solve.Solution,
        windows: NDArray[np.int64],
        matrix: NDArray[np.float64],
    ) -> _Information:
        """Sum over circuits. `matrix`: components of each parameter."""
        days, day_of = np.unique(windows, return_inverse=True)
        shape = len(days), matrix.shape[1]
        gradient = np.zeros(shape)
        hessian = np.zeros((shape[0], shape[0], shape[1], shape[1]))
        runs: dict[int, list[int]] = {}
        for k, each in enumerate(problem.observations):
            runs.setdefault(each.place, []).append(k)
        for same in runs.values():
            counted = np.array([4.0 * problem.observations[k].shots for k in same])
            lacking = float(np.maximum(1.0 / common.weights[same] - 1.0 / counted, 0.0).mean())
            precision = np.diag(counted)
            precision -= np.outer(counted, counted) * lacking / (1.0 + lacking * counted.sum())
            blocks = [common.blocks[k] for k in same]
            own = matrix[blocks[0].params]
            slopes = np.array([each.gradient for each in blocks]) @ own
            curvature = own.T @ np.mean([each.hessian for each in blocks], axis=0) @ own
            place = day_of[same]
            gradient[place] += precision @ slopes
            hessian[place[:, None], place] += np.einsum("de,ij->deij", precision, curvature)
        return _Information(gradient, hessian)


def _test(table: _Information, k: int, given: Sequence[int]) -> tuple[float, float, int]:
    """Probability, spread and number of days of a parameter, beside others with a value a day."""
    num_days = len(table.gradient)
    total = table.hessian[:, :, k, k]
    size = num_days * len(given)
    others = table.hessian[:, :, given][..., given].transpose(0, 2, 1, 3).reshape(size, size)
    others = others + np.eye(size) / _USUAL_SPREAD**2
    beside = table.hessian[:, :, k][..., given].reshape(num_days, size)
    explained = np.linalg.solve(others, beside.T)
    left = total - beside @ explained
    slope = table.gradient[:, k] - explained.T @ table.gradient[:, given].ravel()
    known = np.diag(left) > _LEAST_KNOWN * np.diag(total)
    days = int(known.sum())
    if days < 2:
        return 1.0, 0.0, days
    left, slope = left[np.ix_(known, known)], slope[known]
    change = -np.linalg.pinv(left, hermitian=True) @ slope
    ones = left.sum(axis=1)
    contrasts = left - np.outer(ones, ones) / ones.sum()
    heterogeneity = float(change @ contrasts @ change)
    variance = max(heterogeneity - (days - 1), 0.0) / float(np.trace(contrasts))
    return chi_square_tail(heterogeneity, days - 1), math.sqrt(variance), days


def chi_square_tail(value: float, freedom: int) -> float:
    """Probability that a chi-square variable with so many degrees of freedom is above `value`.
    (Abramowitz and Stegun, 26.4.4 and 26.4.5.)"""
    half = 0.5 * value
    if half <= 0.0:
        return 1.0
    begin = 0.5 * (freedom % 2)
    result = math.erfc(math.sqrt(half)) if freedom % 2 else 0.0
    for k in range(freedom // 2):
        power = begin + k
        result += math.exp(power * math.log(half) - half - math.lgamma(power + 1.0))
    return min(result, 1.0)
