"""Estimates of T1, T2, readout errors and ZZ interaction from counts.

Probabilities have the variance of a binomial share with one pseudo-count for each outcome, so that
shares of 0 and 1 have an error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments.estimators.decay_fit import DecayFit, fit_decay, fit_frequency
from simenv.calibration.experiments.estimators.estimates import Estimate
from simenv.calibration.experiments.runner import Counts, ExperimentSetting

Place = tuple[int, ...]
Array = NDArray[np.float64]
NS_PER_US = 1000.0
_LEAST_SIZE = 1e-3  # lower bound of a signal in a denominator
_TURN_KHZ = 1e6 / (2.0 * math.pi)  # factor from rad/ns to kHz


def tallies(counts: Counts, name: str) -> dict[Place, dict[float, dict[int, NDArray[np.int64]]]]:
    """Counts of one experiment by place, x and arm; repeats are added."""
    entries: dict[Place, dict[float, dict[int, NDArray[np.int64]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for point, tally in counts.items():
        if point.experiment == name:
            arms = entries[point.qubits][point.x]
            arms[point.arm] = arms[point.arm] + tally if point.arm in arms else tally
    return entries


def share(tally: NDArray[np.int64], qubit: int = 0) -> tuple[float, float]:
    """Share of outcomes in which a qubit (bit of the outcome) is 1, and its variance."""
    ones = int(tally[np.arange(tally.size) >> qubit & 1 == 1].sum())
    total = int(tally.sum())
    smooth = (ones + 1.0) / (total + 2.0)
    return ones / total, smooth * (1.0 - smooth) / total


def differences(arms: Mapping[float, Mapping[int, NDArray[np.int64]]]) -> tuple[Array, ...]:
    """Times, signals P(1 | arm 1) - P(1 | arm 0) and their variances, ascending in time."""
    rows = []
    for x in sorted(arms):
        (arm_1, a), (arm_0, b) = share(arms[x][1]), share(arms[x][0])
        rows.append((x, arm_1 - arm_0, a + b))
    return tuple(np.array(rows).T)


def decay_of(counts: Counts, name: str) -> tuple[list[Place], DecayFit] | None:
    """Fit an experiment with two arms; None if it was not run."""
    result = tallies(counts, name)
    places = sorted(result)
    if not places:
        return None
    x, signal, variance = (
        np.array(rows) for rows in zip(*(differences(result[p]) for p in places), strict=True)
    )
    return places, fit_decay(x, signal, variance)


def times(counts: Counts, name: str, quantity: str) -> list[Estimate]:
    """T1 or T2 in us from an experiment with two arms."""
    result = decay_of(counts, name)
    if result is None:
        return []
    places, fit = result
    return [
        _time(quantity, place, float(rate), float(error))
        for place, rate, error in zip(places, fit.rate, fit.rate_error, strict=True)
    ]


def _time(quantity: str, place: Place, rate_ns: float, error_ns: float) -> Estimate:
    """Time from its rate. A rate that is not above a hundredth of its error is set to that."""
    rate = max(rate_ns, 0.01 * error_ns) * NS_PER_US
    return Estimate(quantity, place, 1.0 / rate, error_ns * NS_PER_US, "inverse")


class _Signals(msgspec.Struct, frozen=True, eq=False):
    """Signals A exp(i theta) of a qubit that has rotated by theta about Z; arrays [times]."""

    times_ns: Array
    values: NDArray[np.complex128]
    along: Array  # variance of the size
    across: Array  # variance of the angle, times the squared size

    @property
    def size(self) -> Array:
        """Absolute values, at least _LEAST_SIZE."""
        return np.maximum(np.abs(self.values), _LEAST_SIZE)

    @property
    def angle_variance(self) -> Array:
        """Variance of the angle."""
        return np.asarray(self.across / np.square(self.size))


def _signals(arms: Mapping[float, Mapping[int, NDArray[np.int64]]], first: int) -> _Signals:
    """Signals of the arms `first` to `first` + 3, whose phases are multiples of pi / 2.

    In a pair, only shots count in which the second qubit is read as prepared: it has not relaxed.
    """
    times_ns = sorted(arms)
    rows = []
    for x in times_ns:
        mine = [arms[x][first + k] for k in range(4)]
        if mine[0].size == 4:
            mine = [tally[2 * (first // 4) :][:2] for tally in mine]
        (a, va), (b, vb), (c, vc), (d, vd) = map(share, mine)
        rows.append((a - c, d - b, va + vc, vb + vd))
    real, imaginary, in_real, in_imaginary = np.array(rows).T
    values = real + 1j * imaginary
    cosine, sine = np.cos(np.angle(values)), np.sin(np.angle(values))
    along = cosine * cosine * in_real + sine * sine * in_imaginary
    across = sine * sine * in_real + cosine * cosine * in_imaginary
    return _Signals(np.array(times_ns), values, along, across)


def ramsey(counts: Counts, name: str) -> list[Estimate]:
    """T2 from Ramsey sequences in us, and the detuning in kHz."""
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        result = _signals(arms, 0)
        x = result.times_ns
        turn = fit_frequency(x, result.values / result.size, result.angle_variance)
        signal = (result.values * np.exp(-1j * turn.frequency * x)).real
        fit = fit_decay(x[None], signal[None], result.along[None])
        estimates.append(_time("t2_ramsey_us", place, float(fit.rate[0]), float(fit.rate_error[0])))
        estimates.append(
            Estimate("detuning_khz", place, turn.frequency * _TURN_KHZ, turn.error * _TURN_KHZ)
        )
    return estimates


def interactions(counts: Counts, name: str) -> list[Estimate]:
    """ZZ rates in kHz from conditional Ramsey sequences."""
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        alone, beside = _signals(arms, 0), _signals(arms, 4)
        ratio = beside.values / beside.size * (alone.values / alone.size).conj()
        variance = alone.angle_variance + beside.angle_variance
        fit = fit_frequency(alone.times_ns, ratio, variance)
        estimates.append(
            Estimate("zz_khz", place, -fit.frequency * _TURN_KHZ, fit.error * _TURN_KHZ)
        )
    return estimates


def readout(counts: Counts, name: str) -> list[Estimate]:
    """Probabilities that a prepared |0> is read as 1, and |1> as 0."""
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        for quantity, tally, wrong in (
            ("p01", next(iter(arms.values()))[0], 1),
            ("p10", next(iter(arms.values()))[1], 0),
        ):
            total = int(tally.sum())
            p = int(tally[wrong]) / total
            error = math.sqrt(max(p * (1.0 - p), 1.0 / total) / total)
            estimates.append(Estimate(quantity, place, p, error, "proportion", trials=total))
    return estimates


def survival(tally: NDArray[np.int64], target: int) -> tuple[float, float]:
    """Survival probability without its asymptote, scaled to 1 without noise: (P - 1/d) d/(d - 1);
    with its variance."""
    size, total = tally.size, int(tally.sum())
    scale = size / (size - 1.0)
    p = int(tally[target]) / total
    smooth = (int(tally[target]) + 1.0) / (total + 2.0)
    return (p - 1.0 / size) * scale, smooth * (1.0 - smooth) / total * scale * scale


def marginal(tally: NDArray[np.int64], qubit: int) -> NDArray[np.int64]:
    """Counts of one of two qubits."""
    table = tally.reshape(2, 2)  # second, first
    return np.asarray(table.sum(axis=0) if qubit == 0 else table.sum(axis=1))


def points_of(counts: Counts, name: str) -> dict[Place, dict[float, list[ExperimentSetting]]]:
    """Points of a benchmarking experiment by place and length, in the order of repeats."""
    entries: dict[Place, dict[float, list[ExperimentSetting]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for point in sorted((p for p in counts if p.experiment == name), key=lambda p: p.repeat):
        entries[point.qubits][point.x].append(point)
    return entries
