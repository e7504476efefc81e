"""Error rates of logical qubits from wrong predictions of a decoder; pure.

A contrast is 1 - 2 p, p the probability of a wrong prediction of an observable. Contrasts of
independent errors are multiplied: of r rounds with error e it is A (1 - 2 e)^r, where A has the
errors of preparation and measurement (Google Quantum AI, arXiv 2207.06431, supplement). Errors of X
are those of memories in the basis Z, errors of Z those of the basis X.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from noise_models.calibration import QubitCalibration

LEAST_ERRORS = 20  # wrong predictions from which a rate follows: a relative error of 22 %
_LEAST = 1e-15  # error of a round: what float64 tells from 0 in 1 - 2 e
_LOST = 0.02  # contrast that is noise: nothing of the logical qubit is left
_SIGMAS = 5.0
_LIMIT = 3.0  # errors at most, with 95 %, where none was seen


class MemoryCounts(msgspec.Struct, frozen=True):
    """Wrong predictions of one memory experiment."""

    rounds: int
    errors: int
    shots: int

    @property
    def contrast(self) -> float:
        return 1.0 - 2.0 * self.errors / self.shots

    @staticmethod
    def pooled(counts: Sequence[MemoryCounts]) -> MemoryCounts:
        """Return the sum of experiments with equal rounds."""
        errors, shots = sum(each.errors for each in counts), sum(each.shots for each in counts)
        return MemoryCounts(counts[0].rounds, errors, shots)


class MemoryRate(msgspec.Struct, frozen=True):
    """Error of a round, and of preparation and measurement together. `resolved`: enough errors were
    seen; else `error` is an upper limit. `lost`: nothing is left after the longer memory, so that
    `error` is that of the short one with preparation and measurement, or a lower limit, and says
    nothing about Lambda."""

    error: float
    readout: float
    resolved: bool
    lost: bool = False
    deviation: float = 0.0  # standard deviation of `error`


def memory_rate(short: MemoryCounts, long: MemoryCounts) -> MemoryRate:
    """Return the rate of two memories of different lengths."""
    if long.errors < LEAST_ERRORS:
        limit = (long.errors + _LIMIT) / long.shots / long.rounds
        return MemoryRate(max(limit, _LEAST), 0.0, resolved=False)
    least = least_contrast(long.shots)
    if long.contrast < least:  # only the short one says something
        contrast = max(short.contrast, least)
        error = 0.5 * -math.expm1(math.log(contrast) / short.rounds)
        deviation = _deviation(error, short, short)
        return MemoryRate(error, 0.0, resolved=True, lost=True, deviation=deviation)
    span = long.rounds - short.rounds
    slope = min((math.log(long.contrast) - math.log(short.contrast)) / span, 0.0)
    error = max(-0.5 * math.expm1(slope), _LEAST)
    start = short.contrast / (1.0 - 2.0 * error) ** short.rounds
    readout = min(max(0.5 * (1.0 - start), 0.0), 0.499)
    deviation = _deviation(error, short, long)
    if not readout:  # the first rounds have fewer errors: one rate for both lengths
        error, deviation = _common_error((short, long))
    return MemoryRate(error, readout, resolved=True, deviation=deviation)


def _common_error(memories: Sequence[MemoryCounts]) -> tuple[float, float]:
    """Error of a round without errors of preparation and measurement, by least squares of the
    logarithms of the contrasts, and its standard deviation."""
    total = weight = 0.0
    for each in memories:
        p = (each.errors + 0.5) / (each.shots + 1.0)
        precision = each.shots * each.contrast**2 / (4.0 * p * (1.0 - p))
        total += precision * each.rounds * math.log(each.contrast)
        weight += precision * each.rounds**2
    error = max(-0.5 * math.expm1(min(total / weight, 0.0)), _LEAST)
    return error, (0.5 - error) / math.sqrt(weight)


def least_contrast(shots: int) -> float:
    """Return the contrast below which nothing is left of the logical qubit."""
    return max(_LOST, min(_SIGMAS / math.sqrt(shots), 0.5))


def _deviation(error: float, short: MemoryCounts, long: MemoryCounts) -> float:
    span = max(long.rounds - short.rounds, short.rounds)
    parts = (
        math.sqrt(each.errors * max(each.shots - each.errors, 1) / each.shots)
        / each.shots
        / abs(each.contrast or 1.0)
        for each in (short, long)
    )
    return (1.0 - 2.0 * error) * math.hypot(*parts) / span


def suppression(small: float, large: float) -> float:
    """Return Lambda, the error of a round at a distance relative to that at the next odd one."""
    return small / max(large, _LEAST)


def extrapolated(error: float, factor: float, steps: int) -> float:
    """Return the error of a round `steps` odd distances above one that was sampled."""
    return min(max(error / factor**steps, _LEAST), 0.499)


def times_us(error_x: float, error_z: float, round_ns: float) -> tuple[float, float, bool]:
    """Return T1 and T2 of a qubit that relaxes to the mixed state with these errors of a round, and
    whether T2 was limited to 2 T1: errors of Z below half of those of X have no such qubit."""
    t1_us, t2_us = (
        -1e-3 * round_ns / math.log1p(-2.0 * min(each, 0.4999)) for each in (error_x, error_z)
    )
    return t1_us, min(t2_us, 2.0 * t1_us), t2_us > 2.0 * t1_us


def round_errors(qubit: QubitCalibration, round_ns: float) -> tuple[float, float]:
    """Return the errors of X and of Z of a round of a logical qubit's snapshot: the inverse of
    `times_us`."""

    def error(time_us: float | None) -> float:
        return 0.0 if not time_us else -0.5 * math.expm1(-1e-3 * round_ns / time_us)

    return error(qubit.t1_us), error(qubit.t2_us)
