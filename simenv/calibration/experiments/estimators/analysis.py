"""Estimates of T1, T2, readout errors and ZZ interaction from counts.

Probabilities have the variance of a binomial share with one pseudo-count for each outcome, so that
shares of 0 and 1 have an error.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments.estimators.decay_fit import fit_decay, fit_frequency
from simenv.calibration.experiments.estimators.estimates import (
    SIGNAL_ERRORS,
    Estimate,
    without_signal,
)
from simenv.calibration.experiments.runner import Counts, ExperimentSetting

Place = tuple[int, ...]
Array = NDArray[np.float64]
NS_PER_US = 1000.0
LEAST_CONTRAST = 0.1  # 1 - p01 - p10 of a readout that tells 0 from 1
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
    """Share of outcomes in which a qubit (bit of the outcome) is 1, and its variance;
    0 and 1 without shots."""
    ones = int(tally[np.arange(tally.size) >> qubit & 1 == 1].sum())
    total = int(tally.sum())
    if not total:
        return 0.0, 1.0
    smooth = (ones + 1.0) / (total + 2.0)
    return ones / total, smooth * (1.0 - smooth) / total


def differences(arms: Mapping[float, Mapping[int, NDArray[np.int64]]]) -> tuple[Array, ...]:
    """Times, signals P(1 | arm 1) - P(1 | arm 0) and their variances, ascending in time."""
    rows = []
    for x in sorted(arms):
        (arm_1, a), (arm_0, b) = share(arms[x][1]), share(arms[x][0])
        rows.append((x, arm_1 - arm_0, a + b))
    return tuple(np.array(rows).T)


def times(counts: Counts, name: str, quantity: str) -> list[Estimate]:
    """T1 or T2 in us from an experiment with two arms."""
    entries = tallies(counts, name)
    places = sorted(entries)
    if not places:
        return []
    x, signal, variance = (
        np.array(rows) for rows in zip(*(differences(entries[p]) for p in places), strict=True)
    )
    fit = fit_decay(x, signal, variance)
    begins = signal[:, 0] > SIGNAL_ERRORS * np.sqrt(variance[:, 0])
    return [
        _time(quantity, place, float(rate), float(error))
        if has_signal
        else without_signal(quantity, place)
        for place, rate, error, has_signal in zip(
            places, fit.rate, fit.rate_error, begins, strict=True
        )
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
    def significant(self) -> bool:
        """True if the signal at the shortest time is above its error."""
        error = math.sqrt(max(float(self.along[0]), float(self.across[0])))
        return float(self.size[0]) > SIGNAL_ERRORS * error

    @property
    def angle_variance(self) -> Array:
        """Variance of the angle."""
        return np.asarray(self.across / np.square(self.size))


def _signals(
    arms: Mapping[float, Mapping[int, NDArray[np.int64]]],
    first: int,
    weights: Sequence[float] = (1.0,),
) -> _Signals:
    """Signals of the arms `first` to `first` + 3, whose phases are multiples of pi / 2.

    `weights`: of shots in which the second qubit of a pair is read as 0, and as 1.
    """
    times_ns = sorted(arms)
    rows = []
    for x in times_ns:
        (a, va), (b, vb), (c, vc), (d, vd) = (
            _weighted_share(arms[x][first + k], weights) for k in range(4)
        )
        rows.append((a - c, d - b, va + vc, vb + vd))
    real, imaginary, in_real, in_imaginary = np.array(rows).T
    values = real + 1j * imaginary
    cosine, sine = np.cos(np.angle(values)), np.sin(np.angle(values))
    along = cosine * cosine * in_real + sine * sine * in_imaginary
    across = sine * sine * in_real + cosine * cosine * in_imaginary
    return _Signals(np.array(times_ns), values, along, across)


def _weighted_share(tally: NDArray[np.int64], weights: Sequence[float]) -> tuple[float, float]:
    """Share of shots in which the first qubit is 1, with weights by the second qubit, and its
    variance; 0 and 1 if the weights add up to no shots."""
    if len(weights) == 1:
        return share(tally)
    weight = np.array(weights)
    zeros, ones = tally.reshape(2, 2).T.astype(np.float64)
    total = float(weight @ (zeros + ones))
    if total < 1.0:
        return 0.0, 1.0
    p = float(weight @ ones) / total
    smooth = min(max(p, 1.0 / (total + 2.0)), 1.0 - 1.0 / (total + 2.0))
    squares = weight * weight @ (ones * (1.0 - smooth) ** 2 + zeros * smooth**2)
    return p, max(float(squares), smooth * (1.0 - smooth) * total) / total**2


def ramsey(counts: Counts, name: str) -> list[Estimate]:
    """T2 from Ramsey sequences in us, and the detuning in kHz."""
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        result = _signals(arms, 0)
        if not result.significant:
            estimates += [without_signal(each, place) for each in ("t2_ramsey_us", "detuning_khz")]
            continue
        x = result.times_ns
        turn = fit_frequency(x, result.values / result.size, result.angle_variance)
        signal = (result.values * np.exp(-1j * turn.frequency * x)).real
        fit = fit_decay(x[None], signal[None], result.along[None])
        estimates.append(_time("t2_ramsey_us", place, float(fit.rate[0]), float(fit.rate_error[0])))
        estimates.append(
            Estimate("detuning_khz", place, turn.frequency * _TURN_KHZ, turn.error * _TURN_KHZ)
        )
    return estimates


def interactions(counts: Counts, name: str, readout_name: str) -> list[Estimate]:
    """ZZ rates in kHz from conditional Ramsey sequences.

    Only shots count in which the second qubit has not relaxed. Its readout errors, from the
    experiment `readout_name`, are inverted.
    """
    estimates = []
    misread = {(each.quantity, *each.qubits): each.value for each in readout(counts, readout_name)}
    for place, arms in sorted(tallies(counts, name).items()):
        p01, p10 = misread["p01", place[1]], misread["p10", place[1]]
        if 1.0 - p01 - p10 < LEAST_CONTRAST:
            estimates.append(without_signal("zz_khz", place))
            continue
        alone = _signals(arms, 0, (1.0 - p10, -p10))
        beside = _signals(arms, 4, (-p01, 1.0 - p01))
        if not (alone.significant and beside.significant):
            estimates.append(without_signal("zz_khz", place))
            continue
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
