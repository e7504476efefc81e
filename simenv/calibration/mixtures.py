"""Counts that are not those of one device: rows whose errors are several times those of others.

The errors of each row are compared with those of a fit of all. Rows of one device scatter about the
fit, by shots and by what the model lacks; those of two devices are two groups.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration import judge
from simenv.calibration.data import CountsRecord, DataError
from simenv.calibration.fit import components as fit_parts
from simenv.calibration.fit.observations import histogram
from simenv.calibration.fit.solve import FitProblem
from simulators.circuit.analysis import fit_scope
from simulators.errors import Unsupported

_LEAST_APART_DEVICES = 2.5  # ratio of the errors of two groups of rows
_LEAST_BIMODAL = 0.8  # of the variance of the rows' errors that is between both groups
_LEAST_GROUP = 3  # rows, and 0.1 of all
_MOST_ROW_ERROR = 0.3  # standard error of the errors of a row, relative to those of the fit


class _RowErrors(msgspec.Struct, frozen=True, eq=False):
    """Errors of single rows relative to those of a fit of all, 1 where they are the same."""

    records: tuple[CountsRecord, ...]
    values: NDArray[np.float64]

    @staticmethod
    def of(
        records: Sequence[CountsRecord],
        problem: FitProblem,
        values: NDArray[np.float64],
        kinds: Collection[str],
    ) -> _RowErrors:
        """Common factor of the errors of these `kinds` that each row asks for, by a step of least
        squares; rows that say little are left out. `values`: of the fit's components."""
        distributions = problem.distributions
        places = sorted({each.place for each in problem.observations})
        channels = distributions.channels(places, problem.components, values, derivatives=True)
        built = distributions.outcomes(places, channels)
        along = np.array([each.kind in kinds for each in problem.components], np.float64)
        kept, found = [], []
        for record in records:
            try:
                place = distributions.place_of(record)
            except (Unsupported, DataError):
                continue
            if place not in built:
                continue
            outcome, clbits = built[place], distributions.programs[place].clbits
            measured = histogram(record.counts, clbits) / record.shots
            rest, slope = judge.residual(outcome.probabilities, measured, record.shots)
            jacobian = (outcome.jacobian * slope[:, None]) @ along[list(outcome.params)]
            weight = float(jacobian @ jacobian)
            if weight <= 0.0 or 0.25 / record.shots / weight > _MOST_ROW_ERROR**2:
                continue
            kept.append(record)
            found.append(1.0 - float(jacobian @ rest) / weight)
        return _RowErrors(tuple(kept), np.array(found))

    def mixture(self) -> tuple[NDArray[np.bool_], float] | None:
        """Rows with more errors than the others, and the ratio of both means, where the errors of
        all are those of two devices: most of their variance is between two groups (the division of
        least variance within; Otsu, IEEE Trans. Syst. Man Cybern. 9, 62)."""
        count = len(self.values)
        least = max(_LEAST_GROUP, math.ceil(0.1 * count))
        if count < 2 * least:
            return None
        order = np.sort(self.values)
        variance = float(np.square(order - order.mean()).sum())
        best, at = 0.0, 0
        for k in range(least, count - least + 1):
            low, high = order[:k].mean(), order[k:].mean()
            between = k * (count - k) / count * (high - low) ** 2
            if between > best:
                best, at = float(between), k
        low, high = float(order[:at].mean()), float(order[at:].mean())
        ratio = high / max(low, 0.05)
        if best < _LEAST_BIMODAL * variance or ratio < _LEAST_APART_DEVICES:
            return None
        return self.values > 0.5 * (order[at - 1] + order[at]), ratio


_MIXED = {
    "gates": (fit_parts.RELAXATION, fit_parts.DEPHASING, fit_parts.ERROR, *fit_parts.ERRORS[1:]),
    "readout": (fit_parts.P01, fit_parts.P10),
}


def mixed(records: Sequence[CountsRecord], problem: FitProblem, values: NDArray[np.float64]) -> str:
    """Rows of two devices, or of two states of one: errors of gates, or of readout, that are
    several times those of the other rows. Named by job or day where these tell them apart."""
    for what, kinds in _MIXED.items():
        found = _RowErrors.of(records, problem, values, kinds)
        mixture = found.mixture()
        if mixture is None:
            continue
        more, ratio = mixture
        where = _named(found.records, more)
        return (
            f"the rows are not of one device: errors of {what} are {ratio:.1f} times as large in"
            f" {int(more.sum())} of {len(more)} rows as in the others ({where}); fit each by itself"
        )
    return ""


def _named(records: Sequence[CountsRecord], more: NDArray[np.bool_]) -> str:
    """Names of the rows with more errors: their jobs or days, if these are theirs alone."""
    for what, label in (("jobs", _job_of), ("days", _day_of)):
        groups: dict[str, list[bool]] = {}
        for record, has_more in zip(records, more.tolist(), strict=True):
            groups.setdefault(label(record), []).append(has_more)
        own = [name for name, has in groups.items() if np.mean(has) >= _OWN_GROUP]
        others = [name for name, has in groups.items() if np.mean(has) <= 1.0 - _OWN_GROUP]
        if len(groups) > 1 and own and len(own) + len(others) == len(groups):
            return f"{what} {fit_scope.listed(own)}"
    labels = [each.label for each, has in zip(records, more.tolist(), strict=True) if has]
    return f"rows in no order of jobs or days: {fit_scope.listed(labels[:4])}, and others"


_OWN_GROUP = 0.9  # of the rows of a job or day


def _job_of(record: CountsRecord) -> str:
    return record.job


def _day_of(record: CountsRecord) -> str:
    if record.time_s != record.time_s:
        return ""
    return datetime.fromtimestamp(record.time_s, UTC).date().isoformat()
