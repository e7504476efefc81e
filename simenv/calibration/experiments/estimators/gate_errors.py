"""Gate errors from randomized benchmarking, as average gate infidelity of one native gate.

A decay S = A p^N over N gates has the depolarizing parameter p of one gate, whose average
infidelity is (d - 1)/d (1 - p). N is the actual number of gates of the sequences, so random
elements of different length add no error. The interleaved decay is compared with the standard one
of equal random elements, S_I / S = p^N with the number N of added gates: preparation and
measurement cancel. Sequences scatter beyond shot noise, since relaxation acts on some Pauli
operators more than on others: the factor of their variance is estimated for each length over all
qubits or pairs of an experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments.estimators.analysis import Place, marginal, points_of, survival
from simenv.calibration.experiments.estimators.decay_fit import fit_decay
from simenv.calibration.experiments.estimators.estimates import (
    SIGNAL_ERRORS,
    Estimate,
    without_signal,
)
from simenv.calibration.experiments.runner import Counts, ExperimentSetting

Array = NDArray[np.float64]
Reader = Callable[[ExperimentSetting], tuple[float, float]]
_LEAST_SIGNAL = 1e-3


class Curve(msgspec.Struct, frozen=True, eq=False):
    """Mean decay of one place; arrays [lengths]."""

    place: Place
    lengths: Array
    gates: Array  # gates under test, mean of the sequences
    signal: Array
    variance: Array  # of the mean

    @property
    def significant(self) -> bool:
        """True if the signal of the shortest sequences is above its error."""
        return bool(self.signal[0] > SIGNAL_ERRORS * math.sqrt(self.variance[0]))


def curves(counts: Counts, name: str, read: Reader | None = None) -> list[Curve]:
    """Mean decays of all places, with variances that contain the scatter of sequences."""

    def plain(point: ExperimentSetting) -> tuple[float, float]:
        return survival(counts[point], point.arm)

    reader = read or plain
    results: list[Curve] = []
    scatter: dict[int, list[float]] = {}  # chi-square and freedom by the number of a length
    for place, by_length in sorted(points_of(counts, name).items()):
        rows = []
        for length in sorted(by_length):
            points = by_length[length]
            signal, variance = np.mean([reader(point) for point in points], axis=0)
            gates = np.mean([point.gates for point in points])
            rows.append((length, gates, signal, variance / len(points)))
        curve = Curve(place, *np.array(rows, np.float64).T)
        results.append(curve)
        rate = _rate(curve)
        for k, (length, gates, _, _) in enumerate(rows):
            chi, freedom = _scatter(by_length[length], reader, rate, float(gates))
            total = scatter.setdefault(k, [0.0, 0.0])
            total[0], total[1] = total[0] + chi, total[1] + freedom
    factors = [max(1.0, chi / freedom) if freedom else 1.0 for chi, freedom in scatter.values()]
    return [
        msgspec.structs.replace(
            curve, variance=curve.variance * np.array(factors[: curve.variance.size])
        )
        for curve in results
    ]


def _rate(curve: Curve) -> float:
    if curve.gates.size < 2 or np.ptp(curve.gates) == 0.0:
        return 0.0
    fit = fit_decay(curve.gates[None], curve.signal[None], curve.variance[None])
    return float(fit.rate[0])


def _scatter(
    points: Sequence[ExperimentSetting], read: Reader, rate: float, mean_gates: float
) -> tuple[float, int]:
    """Chi-square of sequences about the mean of those from one basis state, with its degrees of
    freedom; values are scaled to the mean number of gates."""
    chi, freedom = 0.0, 0
    for arm in {point.arm for point in points}:
        mine = [point for point in points if point.arm == arm]
        if len(mine) < 2:
            continue
        values = np.array([read(point) for point in mine])
        shift = np.exp(rate * (np.array([point.gates for point in mine]) - mean_gates))
        signal, variance = values[:, 0] * shift, values[:, 1] * shift * shift
        chi += float((np.square(signal - signal.mean()) / variance).sum())
        freedom += len(mine) - 1
    return chi, freedom


def infidelity(rate: float, num_qubits: int) -> float:
    """Average gate infidelity for a depolarizing parameter exp(-rate)."""
    size = 1 << num_qubits
    return (size - 1.0) / size * -math.expm1(-rate)


def _estimate(
    quantity: str, place: Place, gate: str, rate: float, error: float, num_qubits: int
) -> Estimate:
    if not math.isfinite(error):
        return without_signal(quantity, place, gate=gate)
    size = 1 << num_qubits
    slope = (size - 1.0) / size * math.exp(-max(rate, 0.0))
    return Estimate(quantity, place, infidelity(rate, num_qubits), slope * error, gate=gate)


def standard(counts: Counts, name: str, quantity: str, gate: str) -> list[Estimate]:
    """Errors of the gate of which all sequences are made."""
    result = curves(counts, name)
    if not result:
        return []
    return [
        _estimate(quantity, curve.place, gate, *_decay(curve, curve.gates), len(curve.place))
        for curve in result
    ]


def _decay(curve: Curve, x: Array) -> tuple[float, float]:
    """Rate of decay over x and its standard error, which is infinite without a signal."""
    if not curve.significant:
        return 0.0, math.inf
    fit = fit_decay(x[None], curve.signal[None], curve.variance[None])
    return float(fit.rate[0]), float(fit.rate_error[0])


def interleaved(
    counts: Counts, reference: str, name: str, quantity: str, gate: str
) -> list[Estimate]:
    """Errors of an interleaved gate."""
    added = curves(counts, name)
    by_place = {curve.place: curve for curve in curves(counts, reference)}
    estimates = []
    for curve in added:
        base = by_place[curve.place]
        rows = [base.lengths.tolist().index(length) for length in curve.lengths]
        signal, base_signal = curve.signal, base.signal[rows]
        gates = curve.gates - (base.gates[rows] if len(curve.place) == 2 else 0.0)
        safe_signal, safe_base = (
            np.maximum(signal, _LEAST_SIGNAL),
            np.maximum(base_signal, _LEAST_SIGNAL),
        )
        y = np.log(safe_base / safe_signal)
        variance = curve.variance / np.square(safe_signal)
        variance += base.variance[rows] / np.square(safe_base)
        weight = float((gates * gates / variance).sum())
        rate = float((gates * y / variance).sum()) / weight
        error = 1.0 / math.sqrt(weight) if base.significant else math.inf
        estimates.append(_estimate(quantity, curve.place, gate, rate, error, len(curve.place)))
    return estimates


def per_clifford(counts: Counts, name: str) -> list[Estimate]:
    """Error of a random element of the group."""
    result = curves(counts, name)
    estimates = []
    for curve in result:
        rate, error = _decay(curve, curve.lengths)
        size = len(curve.place)
        estimates.append(_estimate("error_per_clifford", curve.place, "", rate, error, size))
    return estimates


def simultaneous(counts: Counts, name: str, gate: str) -> list[Estimate]:
    """Errors of one-qubit gates while a neighbour is driven: `qubits` is (qubit, neighbour)."""
    estimates = []
    for qubit in range(2):

        def read(point: ExperimentSetting, qubit: int = qubit) -> tuple[float, float]:
            return survival(marginal(counts[point], qubit), point.arm >> qubit & 1)

        result = curves(counts, name, read)
        for curve in result:
            rate, error = _decay(curve, curve.gates)
            place = curve.place if qubit == 0 else curve.place[::-1]
            estimates.append(_estimate("error_1q_simultaneous", place, gate, rate, error, 1))
    return estimates
