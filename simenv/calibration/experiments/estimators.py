"""Estimators of a device's quantities, with their errors, from the counts of experiments alone.

`fit_decay` and `fit_frequency` are least-squares fits of decays and oscillations, for many data
sets at once. They give T1, T2, readout errors and ZZ interaction. Probabilities have the variance
of a binomial share with one pseudo-count for each outcome, so that shares of 0 and 1 have an error.

Gate errors from randomized benchmarking are average gate infidelities of one native gate. A decay
S = A p^N over N gates has the depolarizing parameter p of one gate, whose average infidelity is
(d - 1)/d (1 - p). N is the actual number of gates of the sequences, so random elements of different
length add no error. The interleaved decay is compared with the standard one of equal random
elements, S_I / S = p^N with the number N of added gates: preparation and measurement cancel.
Sequences scatter beyond shot noise, since relaxation acts on some Pauli operators more than on
others: the factor of their variance is estimated for each length over all qubits or pairs of an
experiment.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.experiments import amplification, programs
from simenv.calibration.experiments.clifford import NativeOperation
from simenv.calibration.experiments.plans import Counts, ExperimentSetting

Array = NDArray[np.float64]
_STEPS = 40
_LEAST_DECAY = 0.5  # -ln of an envelope at the longest delay, for an estimate of its time
_LARGEST_STEP = 1.0  # largest change of the logarithm of an amplitude in one step
_CONVERGED = 1e-10


class DecayFit(msgspec.Struct, frozen=True, eq=False):
    """Fit of A exp(-k x); arrays [sets]."""

    log_amplitude: Array
    rate: Array
    rate_error: Array  # standard error
    chi_square: Array  # of points - 2 degrees of freedom


def fit_decay(x: Array, signal: Array, variance: Array) -> DecayFit:
    """Gauss-Newton fit of A exp(-k x) to points [sets, points] of known variance. Rates may be
    negative if a signal does not decay within its error."""
    scale = np.maximum(x.max(axis=1, keepdims=True), 1e-300)
    u = x / scale
    log_a, k = _start(u, signal, variance)
    for _ in range(_STEPS):
        model = np.exp(log_a[:, None] - k[:, None] * u)
        step, _ = _solve(model, -model * u, signal - model, variance)
        change = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        log_a, k = log_a + change[:, 0], k + change[:, 1]
        if np.abs(change).max() < _CONVERGED:
            break
    model = np.exp(log_a[:, None] - k[:, None] * u)
    _, covariance = _solve(model, -model * u, signal - model, variance)
    chi = (np.square(signal - model) / variance).sum(axis=1)
    size = scale[:, 0]
    return DecayFit(log_a, k / size, np.sqrt(covariance[:, 1, 1]) / size, chi)


def _start(x: Array, signal: Array, variance: Array) -> tuple[Array, Array]:
    """Start values: a weighted straight line through the logarithms of points above their error."""
    floor = np.maximum(np.sqrt(variance), 1e-12)
    safe = np.maximum(signal, floor)
    weight = np.square(safe) / variance
    weight[signal < floor] *= 1e-3
    y = np.log(safe)
    total = weight.sum(axis=1)
    mean_x, mean_y = (weight * x).sum(axis=1) / total, (weight * y).sum(axis=1) / total
    dx = x - mean_x[:, None]
    slope = (weight * dx * (y - mean_y[:, None])).sum(axis=1)
    slope /= np.maximum((weight * dx * dx).sum(axis=1), 1e-300)
    return mean_y - slope * mean_x, -slope


def _solve(
    gradient_a: Array, gradient_b: Array, residual: Array, variance: Array
) -> tuple[Array, Array]:
    """Step [sets, 2] and covariance [sets, 2, 2] of two parameters by their gradients."""
    a = (gradient_a * gradient_a / variance).sum(axis=1)
    b = (gradient_a * gradient_b / variance).sum(axis=1)
    c = (gradient_b * gradient_b / variance).sum(axis=1)
    determinant = np.maximum(a * c - b * b, 1e-14 * a * c + 1e-200)
    covariance = np.array([[c, -b], [-b, a]]).transpose(2, 0, 1) / determinant[:, None, None]
    right = np.stack(
        [
            (gradient_a * residual / variance).sum(axis=1),
            (gradient_b * residual / variance).sum(axis=1),
        ],
        axis=1,
    )
    return np.einsum("sij,sj->si", covariance, right), covariance


class PhaseFit(msgspec.Struct, frozen=True):
    """Angular frequency of an oscillation and its standard error, in rad per unit of x."""

    frequency: float
    error: float
    chi_square: float


def fit_frequency(x: Array, signal: NDArray[np.complex128], variance: Array) -> PhaseFit:
    """Angular frequency w of exp(i w x) from complex points [points] of equal real and imaginary
    variance. The search covers frequencies below half a turn of the shortest time above 0."""
    shortest = float(x[x > 0].min())
    count = 1 + 2 * math.ceil(8.0 * float(x.max()) / shortest)
    grid = np.linspace(-math.pi / shortest, math.pi / shortest, count)
    misses = np.square(np.abs(signal - np.exp(1j * grid[:, None] * x))) / variance
    w = float(grid[misses.sum(axis=1).argmin()])
    weight = np.abs(signal) / variance
    curvature = max(float((x * x * weight).sum()), 1e-300)
    for _ in range(_STEPS):
        phase = np.angle(signal * np.exp(-1j * w * x))
        step = float((x * phase * weight).sum()) / curvature
        w += step
        if abs(step) * float(x.max()) < _CONVERGED:
            break
    chi = float((np.square(np.abs(signal - np.exp(1j * w * x))) / variance).sum())
    return PhaseFit(w, 1.0 / math.sqrt(curvature), chi)


Scale = Literal["linear", "inverse", "proportion"]
SIGNAL_ERRORS = 5.0  # standard errors of a signal below which nothing is estimated from its decay


class Estimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One quantity of one qubit or pair.

    Without a signal, value and standard error are infinite, and so is the interval.

    `scale`: the scale of the normal approximation: the value; its inverse (a time, estimated by its
    rate; `std_error` is that of the rate); a proportion of `trials` (Wilson's interval).
    """

    quantity: str
    qubits: tuple[int, ...]
    value: float
    std_error: float
    scale: Scale = "linear"
    gate: str = ""
    trials: int = 0
    systematic: float = 0.0  # part of the standard error that more shots do not reduce

    @property
    def has_signal(self) -> bool:
        """True if the counts contain a signal from which the quantity could be estimated."""
        return math.isfinite(self.std_error)

    def interval(self, z: float) -> tuple[float, float]:
        """Confidence interval at z standard errors; an unbounded time is infinite."""
        if not self.has_signal:
            return (0.0 if self.scale == "inverse" else -math.inf), math.inf
        if self.scale == "inverse":
            rate, width = 1.0 / self.value, z * self.std_error
            low = 1.0 / (rate + width) if rate + width > 0.0 else math.inf
            return low, (1.0 / (rate - width) if rate - width > 0.0 else math.inf)
        if self.scale == "proportion":
            return wilson(self.value, self.trials, z)
        return self.value - z * self.std_error, self.value + z * self.std_error


def without_signal(quantity: str, qubits: tuple[int, ...], *, gate: str = "") -> Estimate:
    """Estimate of a quantity about which the counts say nothing."""
    scale: Scale = "inverse" if quantity.endswith("_us") else "linear"
    return Estimate(quantity, qubits, math.inf, math.inf, scale, gate)


def wilson(share: float, trials: int, z: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, J. Am. Stat. Assoc. 22, 209)."""
    weight = z * z / trials
    center = (share + weight / 2.0) / (1.0 + weight)
    half = z / (1.0 + weight) * math.sqrt(share * (1.0 - share) / trials + weight / (4.0 * trials))
    return max(0.0, center - half), min(1.0, center + half)


def simultaneous_z(count: int, confidence: float = 0.99) -> float:
    """Number of standard errors of two-sided intervals that hold simultaneously at a confidence
    (Sidak, J. Am. Stat. Assoc. 62, 626)."""
    tail = -math.expm1(math.log(confidence) / max(1, count)) / 2.0
    return -NormalDist().inv_cdf(tail)


Place = tuple[int, ...]

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


def contrasts(arms: Mapping[float, Mapping[int, NDArray[np.int64]]]) -> tuple[Array, ...]:
    """Times, signals and variances of two arms, or the size of the signals of four phases."""
    if all(len(each) == 2 for each in arms.values()):
        return differences(arms)
    found = _signals(arms, 0)
    return found.times_ns, found.size, np.maximum(found.along, found.across)


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
    """Signals of the arms `first` to `first` + 3, whose phases are multiples of pi / 2. `weights`:
    of shots in which the second qubit of a pair is read as 0, and as 1."""
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


def ramsey(counts: Counts, name: str, echo: str) -> list[Estimate]:
    """Time at which the envelope of Ramsey sequences is 1/e, in us, and the detuning in kHz. The
    envelope is A exp(-k t - q t^2) with the rate k of the experiment `echo`: a detuning that
    differs from shot to shot has the square."""
    estimates = []
    echoes = {each.qubits: each for each in times(counts, echo, "t2_us") if each.has_signal}
    for place, arms in sorted(tallies(counts, name).items()):
        result = _signals(arms, 0)
        if not result.significant:
            estimates += [without_signal(each, place) for each in ("t2_ramsey_us", "detuning_khz")]
            continue
        x = result.times_ns
        turn = fit_frequency(x, result.values / result.size, result.angle_variance)
        signal = (result.values * np.exp(-1j * turn.frequency * x)).real
        known = echoes.get(place)
        rate, error = _envelope_rate(x, signal, result.along, known)
        estimates.append(_time("t2_ramsey_us", place, rate, error))
        estimates.append(
            Estimate("detuning_khz", place, turn.frequency * _TURN_KHZ, turn.error * _TURN_KHZ)
        )
    return estimates


def _envelope_rate(
    x: Array, signal: Array, variance: Array, echo: Estimate | None
) -> tuple[float, float]:
    """Inverse of the time at which an envelope exp(-k x - q x^2) is 1/e, and its standard error.
    `echo`: the time whose inverse k is; None: not known, q is 0. A time far beyond the delays has
    the rate of an exponential, and the error that a square within its error makes by then."""
    fit = fit_decay(x[None], signal[None], variance[None])
    rate, error = float(fit.rate[0]), float(fit.rate_error[0])
    if echo is None:
        return rate, error
    scale = float(x.max())
    u, k = x / scale, scale / (echo.value * NS_PER_US)
    deviation = scale * echo.std_error / NS_PER_US
    values = np.array([float(fit.log_amplitude[0]), k, max(rate * scale - k, 0.0)])
    weights = np.append(1.0 / np.sqrt(variance), 1.0 / deviation)
    for _ in range(_STEPS):
        model = np.exp(values[0] - values[1] * u - values[2] * u * u)
        gradient = np.vstack((np.stack((model, -model * u, -model * u * u), 1), (0.0, 1.0, 0.0)))
        misses = np.append(signal - model, k - values[1])
        step, *_ = np.linalg.lstsq(weights[:, None] * gradient, weights * misses, rcond=None)
        values = values + np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
        if np.abs(step).max() < _CONVERGED:
            break
    covariance = np.linalg.pinv((gradient * weights[:, None] ** 2).T @ gradient)
    # k T + q T^2 = 1 has 1 / T = (k + sqrt(k^2 + 4 q)) / 2.
    if rate * scale < _LEAST_DECAY:
        linear = max(values[1], rate * scale, 0.0)
        square = max(values[2], 0.0) + math.sqrt(float(covariance[2, 2]))
        largest = 0.5 * (linear + math.sqrt(linear**2 + 4.0 * square))
        return rate, max(error, largest / scale - rate)
    root = math.sqrt(max(values[1] ** 2 + 4.0 * values[2], (0.1 * values[1]) ** 2))
    slope = np.array([0.0, 0.5 + 0.5 * values[1] / root, 1.0 / root])
    error = math.sqrt(float(slope @ covariance @ slope))
    return 0.5 * float(values[1] + root) / scale, error / scale


def interactions(counts: Counts, name: str, readout_name: str) -> list[Estimate]:
    """ZZ rates in kHz from conditional Ramsey sequences. Only shots count in which the second qubit
    has not relaxed. Its readout errors, from the experiment `readout_name`, are inverted."""
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


def rotations(
    counts: Counts,
    name: str,
    readout_name: str,
    entangler: NativeOperation,
    beside_rad: Mapping[Place, float] | None = None,
) -> list[Estimate]:
    """Angles in rad by which an entangling gate turns its qubits beyond itself: about ZZ, and each
    about Z, by the phases that grow with the number of gates (`programs.rotations`), of which each
    is a sum of angles (`amplification.coefficients`). The place of an angle about Z is its qubit
    and the other one. `beside_rad`: phases by the ZZ interaction of a pair in a half turn, where
    sequences have such turns between their gates. How much of one acts before the turn is not
    known: an angle is uncertain by half of it, and has that of a uniform distribution as error."""
    estimates = []
    misread = {(each.quantity, *each.qubits): each.value for each in readout(counts, readout_name)}
    table = amplification.coefficients(entangler) / amplification.GATES
    for place, arms in sorted(tallies(counts, name).items()):
        rows: list[Array] = []
        turns: list[PhaseFit] = []
        for target in range(2):
            pair = place if target == 0 else place[::-1]
            own = arms if target == 0 else {x: _exchanged(each) for x, each in arms.items()}
            p01, p10 = misread["p01", pair[1]], misread["p10", pair[1]]
            if 1.0 - p01 - p10 < LEAST_CONTRAST:
                continue
            for kind, block in enumerate(table):
                for k, weights in enumerate(((1.0 - p10, -p10), (-p01, 1.0 - p01))):
                    signals = _signals(own, 16 * kind + 8 * target + 4 * k, weights)
                    if signals.significant:
                        rows.append(block[target] + (1 - 2 * k) * block[2])
                        turns.append(_turn_per_gate(signals))
        matrix, errors = np.array(rows).reshape(-1, 3), np.array([each.error for each in turns])
        weighted = matrix / errors[:, None]
        inverse = np.linalg.pinv(weighted, rcond=1e-9)
        values = inverse @ (np.array([each.frequency for each in turns]) / errors)
        known = inverse @ weighted  # the identity where all angles follow from the phases
        for k, pair in enumerate((place, place[::-1], place)):
            quantity = "zz_angle_rad" if k == 2 else "z_angle_rad"
            if abs(known[k, k] - 1.0) > 1e-6:
                estimates.append(without_signal(quantity, pair, gate=entangler.name))
                continue
            error = float(np.linalg.norm(inverse[k]))
            unknown = 0.0
            if len(table) > 1 and beside_rad is not None:
                unknown = abs(beside_rad.get(place, 0.0)) / math.sqrt(12.0)
            estimates.append(
                Estimate(
                    quantity, pair, float(values[k]), math.hypot(error, unknown),
                    gate=entangler.name, systematic=unknown,
                )
            )  # fmt: skip
    return estimates


def turn_angles(
    counts: Counts, name: str, readout_name: str, gate: str, errors: Mapping[Place, float]
) -> list[Estimate]:
    """Angles in rad by which a gate on one qubit turns it beyond itself, from sequences in which
    they add up (`programs.turns`, `programs.half_turns`): its over-rotation, and of quarter turns
    the difference of the rotations about Y and Z, which are one. `errors`: of the gate, for the
    decay of the signal."""
    estimates = []
    misread = {(each.quantity, *each.qubits): each.value for each in readout(counts, readout_name)}
    for place, numbers in sorted(tallies(counts, name).items()):
        contrast = 1.0 - misread["p01", *place] - misread["p10", *place]
        arms = len(next(iter(numbers.values())))
        for kind, quantity in enumerate(("turn_angle_rad", "axis_angle_rad")[: arms // 2]):
            if contrast < LEAST_CONTRAST:
                estimates.append(without_signal(quantity, place, gate=gate))
                continue
            value = error = 0.0
            for number, tables in sorted(numbers.items()):
                (first, v1), (second, v2) = (share(tables[2 * kind + k]) for k in range(2))
                size = contrast * (1.0 - 2.0 * errors.get(place, 0.0)) ** number
                times = number if kind == 0 else number / 2.0
                ratio = min(max((first - second) / size, -1.0), 1.0)
                turned, slope = math.asin(ratio), math.sqrt(1.0 - ratio**2)
                if slope < _LEAST_SLOPE and error:
                    continue  # near a quarter turn; the shorter sequence says enough
                # The angle that is nearest to that of the shorter sequence.
                known = value * times
                turns = round((known - turned) / (2.0 * math.pi))
                back = round((known - math.pi + turned) / (2.0 * math.pi))
                near = turned + 2.0 * math.pi * turns, math.pi - turned + 2.0 * math.pi * back
                total = near[int(abs(near[1] - known) < abs(near[0] - known))]
                value = total / times
                error = math.sqrt(v1 + v2) / (size * max(slope, _LEAST_SLOPE) * times)
            estimates.append(Estimate(quantity, place, value, error, gate=gate))
    return estimates


_LEAST_RELAXED = 0.1  # -ln of the signal, by the longest delay
_LEAST_SLOPE = 0.3  # of a signal by its angle, relative to the largest


def gate_times(
    counts: Counts, name: str, gate: str, places: Mapping[tuple[int, int], tuple[Place, float]]
) -> list[Estimate]:
    """Durations of gates in ns, from the relaxation of a qubit that waits for them beside that
    during a delay; without those of qubits that hardly relax. `places`: by the waiting qubit and
    the number of the place, the qubits of the gate, and the duration for which the delay stands."""
    estimates = []
    entries: dict[tuple[int, int], dict[float, dict[bool, _Arms]]] = {}
    for point, tally in counts.items():
        if point.experiment == name:
            at = point.qubits[0], point.repeat
            kinds = entries.setdefault(at, {}).setdefault(point.x, {})
            kinds.setdefault(point.gates > 0.0, {})[point.arm] = tally
    for key, numbers in sorted(entries.items()):
        place, known_ns = places[key]
        rates, variances = [], []
        for acts in (True, False):
            x, signal, variance = differences({n: kinds[acts] for n, kinds in numbers.items()})
            if signal[-1] < SIGNAL_ERRORS * math.sqrt(variance[-1]):
                break
            span = float(x[-1] - x[0])
            rates.append(math.log(signal[0] / signal[-1]) / span)
            variances.append(float((variance / np.square(signal)).sum()) / span**2)
        if len(rates) < 2 or rates[1] * span < _LEAST_RELAXED:
            continue  # T1 is too long for this experiment
        ratio = rates[0] / rates[1]
        error = math.sqrt(variances[0] + ratio**2 * variances[1]) / rates[1]
        estimates.append(
            Estimate("gate_time_ns", place, known_ns * ratio, known_ns * error, gate=gate)
        )
    return estimates


def _exchanged(arms: Mapping[int, NDArray[np.int64]]) -> dict[int, NDArray[np.int64]]:
    """Counts of two qubits by outcome, with both exchanged."""
    return {arm: tally[[0, 2, 1, 3]] for arm, tally in arms.items()}


def _turn_per_gate(signals: _Signals) -> PhaseFit:
    """Angle about Z of each gate, relative to the sequence without gates, the first."""
    first = (signals.values[0] / signals.size[0]).conj()
    ratio = signals.values[1:] / signals.size[1:] * first
    variance = signals.angle_variance[1:] + signals.angle_variance[0]
    return fit_frequency(signals.times_ns[1:], ratio, variance)


def _parities(size: int) -> Array:
    """Signs (-1)^|S & T| [2^size, 2^size] of sets of qubits, by bit masks."""
    masks = np.arange(1 << size)
    odd = np.bitwise_count(masks[:, None] & masks) & 1
    return np.asarray(1.0 - 2.0 * odd, np.float64)


def _contrasts(confusion: Array) -> Array:
    """Mean sign of the parity of the wrong records of each set of qubits [2^size], from
    probabilities [read, true]."""
    signs = _parities(int(math.log2(len(confusion))))
    result: Array = np.einsum("mr,mt,rt->m", signs, signs, confusion) / len(confusion)
    return result


def flips_together(confusion: Array) -> Array | None:
    """Probability that exactly the records of a set of qubits are flipped together, by the set's
    bit mask [2^size]: those of independent flips of all sets with the contrasts of a confusion
    matrix [read, true] (Walsh-Hadamard transform of their logarithms). None: the readout does not
    tell states. An error of the preparation of a qubit is a flip of it alone."""
    contrasts = _contrasts(confusion)
    if contrasts.min() < LEAST_CONTRAST:
        return None
    size = len(confusion)
    exponents = -2.0 / size * (_parities(int(math.log2(size))) @ np.log(contrasts))
    result: Array = 0.5 - 0.5 * np.exp(exponents)
    return result


def subsets(qubits: Place) -> dict[int, Place]:
    """Sets of two qubits or more of a group, ascending, by their bit masks."""
    chosen = {
        mask: tuple(sorted(qubit for k, qubit in enumerate(qubits) if mask >> k & 1))
        for mask in range(1 << len(qubits))
    }
    return {mask: place for mask, place in chosen.items() if len(place) > 1}


def confusion_of(arms: Mapping[int, NDArray[np.int64]]) -> Array:
    """Shares [read, true] of the outcomes of all basis states."""
    result: Array = np.array([arms[true] / arms[true].sum() for true in range(len(arms))]).T
    return result


def joint_flips(counts: Counts, name: str) -> list[Estimate]:
    """Probabilities that the records of a set of qubits are flipped together (`flips_together`), of
    all sets of two and more of each group, from the outcomes of all basis states."""
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        tables = next(iter(arms.values()))
        size = len(tables)
        total = np.array([tables[true].sum() for true in range(size)], np.float64)
        shares = confusion_of(tables)
        flips, sets = flips_together(shares), subsets(place)
        if flips is None:
            estimates += [without_signal("joint_flip", each) for each in sets.values()]
            continue
        signs = _parities(len(place))
        smooth = (shares * total + 1.0) / (total + size)
        for mask, qubits in sets.items():
            # The exponent's slope is the transform of those of the contrasts, signs / contrast.
            slope = np.einsum("m,mr,mt->rt", signs[mask] / _contrasts(shares), signs, signs)
            slope *= (1.0 - 2.0 * flips[mask]) / size**2
            spread = (slope**2 * smooth).sum(axis=0) - (slope * smooth).sum(axis=0) ** 2
            error = math.sqrt(float((spread / total).sum()))
            estimates.append(Estimate("joint_flip", qubits, float(flips[mask]), error))
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


_BELL_SIGNS = (1.0, 1.0, -1.0)  # of the parities of |00> + |11> in the bases of Z, X and Y


def pairs_of_links(
    counts: Counts, name: str, readout_name: str, errors: Mapping[Place, float]
) -> list[Estimate]:
    """Infidelities of the pairs of links, 1 - (1 + ZZ + XX - YY) / 4 of their correlations, without
    the errors of readout and of the quarter turns before it. `errors`: of a quarter turn, by
    qubit. Errors of the resets are a part of the pair's."""
    read = tallies(counts, readout_name)
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        weights: Array = np.ones(1)
        shrunk, spread = 1.0, 0.0
        for qubit in place:
            tables = next(iter(read[qubit,].values()))
            (ones, in_ones), (other, in_other) = share(tables[0]), share(tables[1])
            contrast = other - ones
            if contrast < LEAST_CONTRAST:
                break
            shift = 1.0 - ones - other
            own = np.array([1.0 - shift, -1.0 - shift]) / contrast
            weights = np.asarray(np.kron(own, weights), np.float64)
            shrunk *= 1.0 - 2.0 * errors.get((qubit,), 0.0)  # of a Pauli, by depolarization
            spread += (in_ones + in_other) / contrast**2
        key = tuple(sorted(place))
        if len(weights) < 4:
            estimates.append(without_signal("pair_error", key))
            continue
        fidelity, variance = 0.25, 0.0
        for arm, tally in next(iter(arms.values())).items():
            total = float(tally.sum())
            mean = float(weights @ tally) / total
            scale = 0.25 / (shrunk if arm else 1.0)
            fidelity += scale * _BELL_SIGNS[arm] * mean
            second = float(weights**2 @ (tally + 0.25)) / (total + 1.0)
            variance += scale**2 * (max(second - mean**2, 0.0) / total + mean**2 * spread)
        estimates.append(Estimate("pair_error", key, 1.0 - fidelity, math.sqrt(variance)))
    return estimates


_Arms = dict[int, NDArray[np.int64]]


def _beside(counts: Counts, name: str) -> dict[Place, dict[float, dict[bool, _Arms]]]:
    """Counts of an experiment of waiting qubits, by their place and, where there is one, that of
    the measured qubit before it; then by number, and whether the others had operations."""
    entries: dict[Place, dict[float, dict[bool, _Arms]]] = {}
    for point, tally in counts.items():
        if point.experiment == name:
            place = point.qubits if name == "memory" else (point.repeat, *point.qubits)
            kinds = entries.setdefault(place, {}).setdefault(point.x, {})
            kinds.setdefault(point.gates > 0.0, {})[point.arm] = tally
    return entries


def _dephasing(quantity: str, place: Place, points: Sequence[tuple[float, ...]]) -> Estimate:
    """Average infidelity e of one of n operations by signals that are (1 - 3 e)^n times those
    without. `points`: n, both signals, and the variances of both."""
    total = weight = 0.0
    for number, acted, waited, var_acted, var_waited in points:
        if acted > SIGNAL_ERRORS * math.sqrt(var_acted):
            variance = var_acted / acted**2 + var_waited / waited**2
            total += number * math.log(waited / acted) / variance
            weight += number * number / variance
    if not weight:
        return without_signal(quantity, place)
    left = math.exp(-total / weight)
    return Estimate(quantity, place, (1.0 - left) / 3.0, left / math.sqrt(weight) / 3.0)


def memory(counts: Counts, name: str) -> list[Estimate]:
    """Memory errors in each layer: the signal of a qubit that waits for n gates of others is
    (1 - 3 e)^n times that after a delay as long as these."""
    estimates = []
    for place, numbers in sorted(_beside(counts, name).items()):
        points = []
        for number, kinds in numbers.items():
            (_, acted, var_acted), (_, waited, var_waited) = (
                differences({number: kinds[acts]}) for acts in (True, False)
            )
            points.append((number, *map(float, (*acted, *waited, *var_acted, *var_waited))))
        estimates.append(_dephasing("memory_error", place, points))
    return estimates


def disturbance(counts: Counts, name: str) -> list[Estimate]:
    """Average infidelity and rotation of a qubit by one measurement of another one; `qubits` is
    (measured, other)."""
    estimates = []
    for place, numbers in sorted(_beside(counts, name).items()):
        acted, waited = (
            _signals({number: kinds[acts] for number, kinds in numbers.items()}, 0)
            for acts in (True, False)
        )
        if not (acted.significant and waited.significant):
            for quantity in ("measurement_crosstalk", "measurement_angle_rad"):
                estimates.append(without_signal(quantity, place))
            continue
        rows = zip(acted.times_ns, acted.size, waited.size, acted.along, waited.along, strict=True)
        points = [tuple(map(float, row)) for row in rows]
        estimates.append(_dephasing("measurement_crosstalk", place, points))
        ratio = acted.values / acted.size * (waited.values / waited.size).conj()
        turn = fit_frequency(acted.times_ns, ratio, acted.angle_variance + waited.angle_variance)
        estimates.append(Estimate("measurement_angle_rad", place, turn.frequency, turn.error))
    return estimates


def transitions(counts: Counts, name: str, readout_name: str) -> list[Estimate]:
    """Probabilities that a measurement leaves |1> in |0>, and |0> in |1>, from the second of two
    measurements beside one alone."""
    estimates = []
    alone = tallies(counts, readout_name)
    for place, arms in sorted(tallies(counts, name).items()):
        twice, once = next(iter(arms.values())), next(iter(alone[place].values()))
        (a0, v0), (a1, v1), (b0, w0), (b1, w1) = (
            share(each[arm]) for each in (twice, once) for arm in range(2)
        )
        contrast = b1 - b0
        if contrast < LEAST_CONTRAST:
            estimates += [
                without_signal(each, place) for each in ("measure_decay", "measure_excitation")
            ]
            continue
        rise, fall = (a0 - b0) / contrast, (b1 - a1) / contrast
        # The contrast has errors too: of b0 and b1, which change a numerator as well.
        rise_error = math.sqrt(v0 + w0 * (1.0 - rise) ** 2 + w1 * rise**2) / contrast
        fall_error = math.sqrt(v1 + w1 * (1.0 - fall) ** 2 + w0 * fall**2) / contrast
        estimates.append(Estimate("measure_decay", place, fall, fall_error))
        estimates.append(Estimate("measure_excitation", place, rise, rise_error))
    return estimates


POPULATIONS = ("preparation_error", "reset_error", "excited")
RELAXATIONS = 5.0  # T1 in the delay before an equilibrium


def populations(counts: Counts, name: str) -> list[Estimate]:
    """Populations of |1> at the start of a circuit, after a reset, and in equilibrium, from the
    records of two measurements (`programs.populations`). Errors of readout are independent in both,
    and a population is not, so that their joint distribution tells one from the other; transitions
    by the first measurement are parameters, too. Fit of multinomial counts by scoring."""
    estimates = []
    for place, arms in sorted(tallies(counts, name).items()):
        ((delay_ns, tables),) = arms.items()
        seen = np.array([tables[k] for k in range(4)], np.float64)
        total = seen.sum(axis=1, keepdims=True)
        ones = seen @ (0.0, 0.0, 1.0, 1.0) / total[:, 0]  # of the first record, bit 1
        if ones[1] - ones[0] < LEAST_CONTRAST:
            estimates += [without_signal(each, place) for each in POPULATIONS]
            continue
        values = np.array([ones[0] / 2, 1.0 - ones[1], 0.0, 0.0, ones[0] / 2, 1.0, 0.0, 0.0])
        for _ in range(_STEPS):
            model = _records(values)
            steps = 1e-6 * np.eye(values.size)
            gradient = np.array(
                [(_records(values + step) - _records(values - step)) / 2e-6 for step in steps]
            )  # [parameter, arm, outcome]
            weights = total / np.maximum(model, 0.5 / total)
            fisher = np.einsum("iao,jao,ao->ij", gradient, gradient, weights)
            score = np.einsum("iao,ao,ao->i", gradient, seen / total - model, weights)
            change = np.clip(np.linalg.pinv(fisher) @ score, -0.1, 0.1)
            values = values + change
            if np.abs(change).max() < _CONVERGED:
                break
        covariance = np.linalg.pinv(fisher)
        start, back, rest = (float(values[k]) for k in (4, 6, 7))
        errors = [math.sqrt(float(covariance[k, k])) for k in (4, 6, 7)]
        left = math.exp(-RELAXATIONS)
        rest, errors[2] = (rest - left * start) / (1.0 - left), errors[2] / (1.0 - left)
        for quantity, value, error in zip(POPULATIONS, (start, back, rest), errors, strict=True):
            if quantity == "excited" and not delay_ns:
                estimates.append(without_signal(quantity, place))  # T1 is above the longest delay
            else:
                estimates.append(Estimate(quantity, place, value, error))
    return estimates


def _records(values: Array) -> Array:
    """Probabilities [arm, outcome] of two records, the last one in bit 0. `values`: p01, p10,
    transitions down and up, and the population of |1> of each arm."""
    p01, p10, down, up = values[:4]
    read = np.array([[1.0 - p01, p10], [p01, 1.0 - p10]])  # [record, state]
    moved = np.array([[1.0 - up, down], [up, 1.0 - down]])  # [state after, state]
    states = np.stack((1.0 - values[4:], values[4:]), axis=1)
    result: Array = np.einsum("as,fs,ts,lt->afl", states, read, moved, read).reshape(-1, 4)
    return result


def leakage(
    counts: Counts, name: str, readout_name: str, gate: str, read_one: Mapping[int, float]
) -> list[Estimate]:
    """Leakage L1 and seepage L2 of a gate by leakage randomized benchmarking (Wood and Gambetta,
    arXiv 1704.03081, section IV). The population of the computational states after N gates is A +
    (1 - A) exp(-(L1 + L2) N) to first order, with A = L2 / (L1 + L2). Sequences that end in |0> and
    in |1> are read as 0 with probabilities whose sum is 1 - p01 + p10 for shots that have not
    leaked, and twice that of a leaked qubit for the others. `read_one`: probability that a leaked
    qubit is read as |1> is, by qubit."""
    misread = {(each.quantity, *each.qubits): each.value for each in readout(counts, readout_name)}
    estimates = []
    for place, lengths in sorted(points_of(counts, name).items()):
        p01, p10, one = misread["p01", *place], misread["p10", *place], read_one[place[0]]
        stayed = 1.0 - p01 + p10
        leaked = 2.0 * (one * p10 + (1.0 - one) * (1.0 - p01))
        rows, scatter = [], []
        for points in lengths.values():
            sums, variance, freedom = 0.0, 0.0, 0
            for arm in range(2):
                zeros = np.array([counts[p][0] for p in points if p.arm == arm], np.float64)
                totals = np.array([counts[p].sum() for p in points if p.arm == arm], np.float64)
                share_0 = zeros.sum() / totals.sum()
                shot = max(share_0 * (1.0 - share_0), 1.0 / totals.sum()) / totals
                sums, variance = sums + share_0, variance + float(shot.mean()) / shot.size
                freedom += shot.size - 1
                scatter.append((np.square(zeros / totals - share_0) / shot).sum())
            scatter[-2:] = [sum(scatter[-2:]) / max(1, freedom)]
            gates = float(np.mean([point.gates for point in points]))
            rows.append((gates, sums, variance))
        x, signal, variance_ = np.array(rows).T
        if abs(stayed - leaked) < LEAST_CONTRAST:
            estimates += [without_signal(each, place, gate=gate) for each in ("leakage", "seepage")]
            continue
        population = (signal - leaked) / (stayed - leaked)
        error = np.sqrt(variance_ * max(1.0, float(np.mean(scatter)))) / abs(stayed - leaked)
        (out, back), covariance = _population_rates(x, population, error)
        for quantity, value, k in (("leakage", out, 0), ("seepage", back, 1)):
            deviation = math.sqrt(float(covariance[k, k]))
            estimates.append(Estimate(quantity, place, value, deviation, gate=gate))
    return estimates


def leakage_of_half_turns(
    counts: Counts, name: str, readout_name: str, gate: str, read_one: Mapping[int, float]
) -> list[Estimate]:
    """Leakage L1 and seepage of half turns (`programs.leaking_half`). `read_one`: see `leakage`."""
    estimates = []
    for place, fits in _ending_rates(counts, name, readout_name, read_one).items():
        if not fits:
            estimates += [without_signal(each, place, gate=gate) for each in ("leakage", "seepage")]
            continue
        ((values, errors),) = fits
        for k, quantity in enumerate(("leakage", "seepage")):
            estimates.append(Estimate(quantity, place, values[k], errors[k], gate=gate))
    return estimates


def leakage_of_pairs(
    counts: Counts,
    name: str,
    readout_name: str,
    gate: str,
    read_one: Mapping[int, float],
    half: Sequence[Estimate] = (),
) -> list[Estimate]:
    """Leakage L1 of the entangling gate, and the mean seepage of its qubits
    (`programs.leaking_pair`). `half`: estimates of the half turns of its circuits, whose part is
    subtracted where they have leakage; `read_one`: see `leakage`."""
    estimates = []
    known = {(each.quantity, *each.qubits): each for each in half if each.has_signal}
    for place, fits in _ending_rates(counts, name, readout_name, read_one).items():
        if len(fits) < len(place):
            for quantity in ("leakage_2q", "seepage_2q"):
                estimates.append(without_signal(quantity, place, gate=gate))
            continue
        rates, errors = np.array(fits).transpose(1, 0, 2)  # [qubit, out and back]
        for k, qubit in enumerate(place):
            for number, quantity in enumerate(("leakage", "seepage")):
                turn = known.get((quantity, qubit))
                if turn is not None and turn.value > _LEAST_ERRORS * turn.std_error:
                    rates[k, number] -= turn.value / programs.FLIPS_APART
                    errors[k, number] = math.hypot(
                        errors[k, number], turn.std_error / programs.FLIPS_APART
                    )
        stays, error = 1.0 - rates[:, 0], errors[:, 0]
        spread = math.hypot(error[0] * stays[1], error[1] * stays[0])
        leaks = 1.0 - float(stays.prod())
        estimates.append(Estimate("leakage_2q", place, leaks, spread, gate=gate))
        weights = errors[:, 1] ** -2.0
        back, spread = float(weights @ rates[:, 1] / weights.sum()), float(weights.sum() ** -0.5)
        estimates.append(Estimate("seepage_2q", place, back, spread, gate=gate))
    return estimates


_LEAST_ERRORS = 4.0  # standard errors below which a value is not subtracted
_Rates = tuple[float, float]


def _ending_rates(
    counts: Counts, name: str, readout_name: str, read_one: Mapping[int, float]
) -> dict[Place, list[tuple[_Rates, _Rates]]]:
    """Rates out of and into the computational states of each qubit of a place, with their errors,
    from sequences with and without a last half turn; fewer where the readout does not tell a leaked
    qubit. Outcomes 0 of both endings have the sum 1 - p01 + p10 for shots that have not leaked,
    whatever their state, and twice that of a leaked qubit for the others."""
    misread = {(each.quantity, *each.qubits): each.value for each in readout(counts, readout_name)}
    results: dict[Place, list[tuple[_Rates, _Rates]]] = {}
    for place, lengths in sorted(tallies(counts, name).items()):
        fits = results.setdefault(place, [])
        for k, qubit in enumerate(place):
            p01, p10, one = misread["p01", qubit], misread["p10", qubit], read_one[qubit]
            leaked = 2.0 * (one * p10 + (1.0 - one) * (1.0 - p01))
            if abs(1.0 - p01 + p10 - leaked) >= LEAST_CONTRAST:
                fits.append(_chain_rates(_ending_sums(lengths, k, len(place)), leaked))
    return results


def _ending_sums(
    lengths: Mapping[float, Mapping[int, NDArray[np.int64]]], qubit: int, size: int
) -> tuple[Array, Array, Array]:
    """Numbers of gates, sums of the outcomes 0 of both endings, and their variances."""
    rows = []
    for number, arms in sorted(lengths.items()):
        endings = [
            np.sum([arms[(flip << size) + state] for state in range(1 << size)], axis=0)
            for flip in range(2)
        ]
        (first, v1), (second, v2) = (share(tally, qubit) for tally in endings)
        rows.append((number, 2.0 - first - second, v1 + v2))
    x, sums, variance = np.array(rows).T
    return x, sums, variance


def _chain_rates(points: tuple[Array, Array, Array], leaked: float) -> tuple[_Rates, _Rates]:
    """Probabilities that a gate takes a qubit in a mixed state out of the computational states, and
    brings it back, with their standard errors. `points`: see `_ending_sums`; `leaked`: the sum if
    all shots have leaked."""
    x, sums, variance = points
    error, last = np.sqrt(variance), float(x.max())

    def model(values: Array) -> Array:
        base, out, back = values
        left = (back + out * (1.0 - out - back) ** x) / (out + back)
        result: Array = leaked + (base - leaked) * left
        return result

    # For each sum of both rates the rest is linear: a search in one dimension has no start value.
    def fitted(total: float) -> tuple[float, float, Array]:
        columns = np.stack((np.ones_like(x), (1.0 - total) ** x - 1.0), axis=1)
        (base, fall), *_ = np.linalg.lstsq(columns / error[:, None], sums / error, rcond=None)
        part = min(max(float(fall) / float(base - leaked), 1e-4), 1.0 - 1e-4)
        values = np.array([base, part * total, (1.0 - part) * total])
        return float(np.square((sums - model(values)) / error).sum()), total, values

    low, high = 0.1 / last, min(60.0 / last, 0.6)
    tried: list[tuple[float, float, Array]] = []
    for _ in range(3):
        grid = np.geomspace(low, high, 60)
        tried += [fitted(float(total)) for total in grid]
        least, best, values = min(tried, key=lambda each: each[0])
        step = float(grid[1] / grid[0])
        low, high = max(best / step, low), min(best * step, high)
    steps = np.array([1e-6, 1e-3 * best, 1e-3 * best]) * 1e-3
    gradient = np.stack(
        [(model(values + step) - model(values - step)) / (2.0 * step.sum())
         for step in np.diag(steps)], axis=1,
    ) / error[:, None]  # fmt: skip
    deviations = np.sqrt(np.linalg.pinv(gradient.T @ gradient).diagonal())
    # A flat profile, where a decay is faster than the shortest sequence, is wider than its slope.
    alike = np.array([each for chi, _, each in tried if chi < least + 1.0])
    deviations = np.maximum(deviations, np.abs(alike - values).max(axis=0))
    return (float(values[1]), float(values[2])), (float(deviations[1]), float(deviations[2]))


def _population_rates(
    x: Array, population: Array, error: Array
) -> tuple[tuple[float, float], Array]:
    """Rates out of and back into a population that begins at 1, and their covariance."""

    def model(rates: Array) -> Array:
        total = rates.sum()
        left: Array = (rates[1] + rates[0] * np.exp(-total * x)) / total
        return left

    last = float(x.max())
    rates = np.array([max(1.0 - float(population.min()), 1e-3), 0.3]) / last
    for _ in range(_STEPS):
        steps = 1e-6 / last
        gradient = np.stack(
            [(model(rates + steps * unit) - model(rates - steps * unit)) / (2.0 * steps)
             for unit in np.eye(2)], axis=1,
        ) / error[:, None]  # fmt: skip
        change, *_ = np.linalg.lstsq(gradient, (population - model(rates)) / error, rcond=None)
        rates = np.maximum(rates + np.clip(change, -0.5 / last, 0.5 / last), 1e-5 / last)
        if np.abs(change).max() * last < _CONVERGED:
            break
    # One step of a shot's chain: exp(-(a + b)) is 1 - L1 - L2.
    scale = -math.expm1(-float(rates.sum())) / float(rates.sum())
    covariance: Array = np.linalg.pinv(gradient.T @ gradient).astype(np.float64)
    return (float(rates[0]) * scale, float(rates[1]) * scale), covariance


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
    return [
        _estimate(quantity, curve.place, gate, *_decay(curve, curve.gates), len(curve.place))
        for curve in curves(counts, name)
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
        gates = curve.gates - (base.gates[rows] if len(curve.place) == 2 else 0.0)
        safe_signal = np.maximum(curve.signal, _LEAST_SIGNAL)
        safe_base = np.maximum(base.signal[rows], _LEAST_SIGNAL)
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
    estimates = []
    for curve in curves(counts, name):
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

        for curve in curves(counts, name, read):
            rate, error = _decay(curve, curve.gates)
            place = curve.place if qubit == 0 else curve.place[::-1]
            estimates.append(_estimate("error_1q_simultaneous", place, gate, rate, error, 1))
    return estimates
