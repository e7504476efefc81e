"""What measured counts identify: intervals of a device's values by the likelihood, without prior.

A fit holds values near the calibration where the counts do not determine them, and its own spread
is narrow there. Here each value of the circuits (T1, T2, readout errors, gate errors, angles, ZZ
rates) has its interval of 95 % by the profile of the likelihood (`Likelihood`), in units. Terms
that the fit leaves out, such as joint flips and angles of each gate, are unknown in the profile as
well: counts that have them would else bend the intervals of all other values. A value
that the counts do not bound within a factor of MOST_RATIO is not identified: its fitted value
follows the prior. Values that only their sum or another combination identifies have correlated
estimates.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot, GateCalibration, QubitCalibration
from simenv.calibration.fit import components as fit_components
from simenv.calibration.fit.components import Component, DeviceChannels, Setting
from simenv.calibration.fit.likelihood import Expansion, Likelihood
from simenv.calibration.fit.solve import FitProblem, Prior

MOST_RATIO = 4.0  # of the ends of the interval of an identified rate or probability
MOST_JOINT = 0.01  # half the width of the interval of an identified joint flip
MOST_ANGLE = 0.1  # half the width of the interval of an identified angle, rad
MOST_ZZ = 0.5  # the same, of the factor of a ZZ rate
CORRELATED = 0.9
_BEYOND = 30.0  # factor beyond which a value that is not identified has no end
_STEP = 1e-4

T1, T2, T2_STAR, P01, P10, ERROR = "T1", "T2", "T2*", "p01", "p10", "error"
ANGLE, ZZ, JOINT = "angle", "ZZ", "joint flip"
TIMES = (T1, T2, T2_STAR)
UNITS = {**dict.fromkeys(TIMES, "us"), ANGLE: "rad", ZZ: "kHz"}
_KINDS = {fit_components.ZZ: ZZ, fit_components.JOINT: JOINT}
_LINEAR = (ANGLE, ZZ, JOINT)  # kinds whose interval is absolute
NOT_IDENTIFIED = "not identified"  # the fitted value follows the prior
BOUND = "bound only"  # one end excludes the calibrated value
OUTSIDE = "held by prior"
KEPT = "calibration kept"  # the same, where no fit is used
EFFECTIVE = (
    "these are effective values, with which the model of the noise explains the counts; to measure"
    " one, run its experiment: simenv certify on an emulated device, the same circuits on a machine"
)


class Quantity(msgspec.Struct, frozen=True, order=True):
    """A value of the noise; `gate`: "" or the name of a gate, for an angle with its Pauli. Without
    qubits, it is the median of those of the circuits."""

    kind: str
    qubits: tuple[int, ...]
    gate: str = ""
    pauli: str = ""
    size: int = 0  # qubits of each of the gates of a median

    @property
    def place(self) -> str:
        """Qubit, pair, or all."""
        return "-".join(map(str, self.qubits)) if self.qubits else "all"

    @property
    def what(self) -> str:
        """Name without the qubits."""
        parts = (self.gate, self.pauli, self.kind) if self.gate else (self.kind,)
        pooled = f"{self.size} qubit" if self.size else ""
        return " ".join(part for part in (pooled, *parts) if part)

    @property
    def name(self) -> str:
        """Name with the qubits."""
        return f"{self.what} {self.place}"


class ParameterEstimate(msgspec.Struct, frozen=True):
    """A value with its interval of 95 % by the likelihood; None: no end, or not calibrated."""

    name: str
    kind: str
    qubits: tuple[int, ...]
    gate: str
    unit: str
    calibrated: float | None
    fitted: float | None
    low: float | None
    high: float | None
    identified: bool
    mark: str
    mixed_with: tuple[str, ...] = ()  # other values whose estimates are correlated with this one

    @property
    def values(self) -> tuple[float | None, float | None, float | None, float | None]:
        """Calibrated, fitted, and both ends of the interval."""
        return self.calibrated, self.fitted, self.low, self.high


class Correlation(msgspec.Struct, frozen=True):
    """Correlation of the estimates of two values, above CORRELATED in size."""

    first: str
    second: str
    value: float


class Identification(msgspec.Struct, frozen=True):
    """What the counts of a fit identify."""

    parameters: tuple[ParameterEstimate, ...]
    correlations: tuple[Correlation, ...]
    dispersion: float  # variance of the counts in units of that of shots and model error


class _Device(msgspec.Struct, frozen=True, eq=False):
    """Values of quantities in a setting of the components, or in a snapshot."""

    device: DeviceChannels
    qubits: tuple[int, ...]
    gates: tuple[GateCalibration, ...]
    pairs: tuple[tuple[int, int], ...]

    def quantities(self, components: Sequence[Component]) -> list[Quantity]:
        """Quantities that these components change."""
        results: list[Quantity] = []
        pooled = not any(each.qubits for each in components)
        for qubit in [()] if pooled else [(qubit,) for qubit in self.qubits]:
            own = self._qubits(Quantity(T1, qubit))
            for kind, component in (
                (T1, Component(fit_components.RELAXATION, qubit)),
                (T2, Component(fit_components.RELAXATION, qubit)),
                (T2_STAR, Component(fit_components.QUASISTATIC, ())),
                (P01, Component(fit_components.P01, qubit)),
                (P10, Component(fit_components.P10, qubit)),
            ):
                calibrated = [_of_qubit(kind, self.device.snapshot.qubits[each]) for each in own]
                if component in components and any(calibrated):
                    results.append(Quantity(kind, qubit))
        for size in (1, 2) if pooled else ():
            if any(len(gate.qubits) == size for gate in self.gates):
                results.append(Quantity(ERROR, (), size=size))
        for gate in () if pooled else self.gates:
            if _error_of(gate) in components:
                results.append(Quantity(ERROR, gate.qubits, gate.name))
        for each in components:
            if each.is_angle:
                results.append(Quantity(ANGLE, each.qubits, each.gate, each.kind))
            elif each.kind in (fit_components.ZZ, fit_components.JOINT):
                results.append(Quantity(_KINDS[each.kind], each.qubits))
        return results

    def parts(self, component: Component) -> list[Component]:
        """Errors of each gate of the circuits for one of all gates on the same qubits, whose gates
        have one factor in a fit; else the component itself."""
        if component.kind != fit_components.ERROR:
            return [component]
        found = {_error_of(gate) for gate in self.gates}
        return sorted(each for each in found if each.qubits == component.qubits)

    def _qubits(self, quantity: Quantity) -> tuple[int, ...]:
        return quantity.qubits or self.qubits

    def fitted(self, quantity: Quantity, setting: Setting) -> float | None:
        """Value in a setting; times as rates, 1/us."""
        snapshot = self.device.snapshot
        if quantity.kind == ZZ:
            rates = [
                self.device.zz_khz[pair[0], pair[1]] * setting.zz_factor(pair)
                for pair in ([quantity.qubits] if quantity.qubits else self.pairs)
            ]
            return _median(rates)
        if quantity.kind == JOINT:
            flips = {each.qubits: each.probability for each in setting.joint_flips}
            return max(flips.get((quantity.qubits[0], quantity.qubits[1]), 0.0), 0.0)
        if quantity.kind in (ERROR, ANGLE):
            return _of_gates(
                quantity,
                [fit_components.fitted_gate(each, setting) for each in self._of(quantity)],
            )
        if quantity.kind in (P01, P10):
            return _median(
                [_flip(quantity.kind, qubit, setting) for qubit in self._qubits(quantity)]
            )
        return _median(
            [
                _of_qubit(
                    quantity.kind,
                    fit_components.fitted_qubit(snapshot.qubits[qubit], qubit, setting),
                )
                for qubit in self._qubits(quantity)
            ]
        )

    def read(self, quantity: Quantity, snapshot: CalibrationSnapshot) -> float | None:
        """Value in a snapshot with an entry for each set of qubits, as for `fitted`."""
        if quantity.kind == ZZ:
            rates = snapshot.acting_zz_khz
            pairs = [quantity.qubits] if quantity.qubits else self.pairs
            return _median([rates.get((pair[0], pair[1]), 0.0) for pair in pairs])
        if quantity.kind == JOINT:
            groups = {each.qubits: each for each in snapshot.correlated_readout}
            group = groups.get(quantity.qubits) or groups.get(quantity.qubits[::-1])
            return group.joint_flip if group else 0.0
        if quantity.kind in (ERROR, ANGLE):
            wanted = {(each.name, each.qubits) for each in self._of(quantity)}
            return _of_gates(
                quantity, [each for each in snapshot.gates if (each.name, each.qubits) in wanted]
            )
        return _median(
            [_of_qubit(quantity.kind, snapshot.qubits[q]) for q in self._qubits(quantity)]
        )

    def _of(self, quantity: Quantity) -> list[GateCalibration]:
        if not quantity.qubits:
            return [each for each in self.gates if len(each.qubits) == quantity.size]
        key = (quantity.gate, quantity.qubits)
        return [each for each in self.gates if (each.name, each.qubits) == key]

    def gradient(
        self, quantity: Quantity, likelihood: Likelihood, x: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """Value and its derivative by the unknowns, from differences."""
        components = likelihood.problem.components

        def value(at: NDArray[np.float64]) -> float:
            setting = Setting(self.device, components, likelihood.values(at))
            return self.fitted(quantity, setting) or 0.0

        result = np.zeros(len(x))
        for number, each in enumerate(likelihood.components):
            is_joint = each.kind == fit_components.JOINT  # part of the readout errors of its qubits
            if not set(each.qubits) <= set(quantity.qubits) and not (
                is_joint and set(each.qubits) & set(quantity.qubits)
            ):
                continue
            step = np.zeros(len(x))
            step[number] = _STEP * max(1.0, abs(float(x[number])))
            below = x - step if likelihood.lower[number] < x[number] - step[number] else x
            span = (x + step - below)[number]
            result[number] = (value(x + step) - value(below)) / span
        return value(x), result


def _error_of(gate: GateCalibration) -> Component:
    return Component(fit_components.ERROR, tuple(sorted(gate.qubits)), gate.name)


def _flip(kind: str, qubit: int, setting: Setting) -> float | None:
    """Readout error of a qubit with all joint flips, also those that are too small to store."""
    flips = setting.flips(qubit)
    if flips is None:
        return None
    result = flips[0 if kind == P01 else 1]
    for each in setting.joint_flips:
        if qubit in each.qubits:
            result += each.probability * (1.0 - 2.0 * result)
    return result


def _of_qubit(kind: str, calibration: QubitCalibration) -> float | None:
    if kind in (P01, P10):
        flips = calibration.confusion
        return flips[kind == P10] if flips else None
    if kind == T2_STAR:
        time_us = calibration.t2_star_us and calibration.t2_ramsey_us
    elif kind == T2:
        time_us = calibration.t2_us and calibration.t2_limited_us
    else:
        time_us = calibration.t1_us
    return 1.0 / time_us if time_us else None


def _of_gates(quantity: Quantity, gates: Sequence[GateCalibration]) -> float | None:
    if quantity.kind == ERROR:
        return _median([each.error for each in gates])
    angles = {turn.pauli: turn.angle_rad for each in gates for turn in each.rotations}
    return angles.get(quantity.pauli, 0.0)


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return statistics.median(known) if known else None


class LikelihoodFit(msgspec.Struct, frozen=True, eq=False):
    """Greatest likelihood of the counts of a fit, and the quantities that its components change."""

    likelihood: Likelihood
    best: Expansion
    quantities: tuple[Quantity, ...]
    values: NDArray[np.float64]  # [quantities]
    gradients: NDArray[np.float64]  # [quantities, unknowns]
    device: _Device
    start: NDArray[np.float64]  # [unknowns]: of the fit, with its prior

    @staticmethod
    def of(problem: FitProblem, values: NDArray[np.float64], prior: Prior) -> LikelihoodFit:
        """Maximise the likelihood from the `values` of a fit's components. All are unknown, also
        those that the `prior` holds at 0."""
        known = dict(zip(problem.components, values.tolist(), strict=True))
        setting = Setting(problem.distributions.device, problem.components, values)
        placed, device = _placed(problem), _device(problem)
        unknown, start, held = [], [], {}
        for each in problem.components:
            if each.kind in (fit_components.ASYMMETRY, *fit_components.ADDED.values()):
                continue  # part of the readout errors
            value = _folded(each, known[each], setting)
            for part in device.parts(each):
                if placed.intersection(each.qubits):
                    held[part] = value
                else:
                    unknown.append(part)
                    start.append(value)
        likelihood = Likelihood(problem, unknown, held, robust=prior.robust)
        best = likelihood.maximum(np.array(start))
        quantities = device.quantities([each for each in unknown if _has_row(each, prior)])
        pairs = [device.gradient(each, likelihood, best.x) for each in quantities]
        return LikelihoodFit(
            likelihood, best, tuple(quantities), np.array([value for value, _ in pairs]),
            np.array([gradient for _, gradient in pairs]).reshape(len(pairs), len(unknown)), device,
            likelihood.unknowns(np.array(start)),
        )  # fmt: skip

    def intervals(self) -> NDArray[np.float64]:
        """Ends of the intervals, [quantities, 2]."""
        rows = []
        for value, gradient in zip(self.values.tolist(), self.gradients, strict=True):
            low, high = self.likelihood.ends(self.best, gradient)
            rows.append([value + float(gradient @ (x - self.best.x)) for x in (low, high)])
        return np.array(rows).reshape(len(rows), 2)

    def correlations(self) -> NDArray[np.float64]:
        """Correlations of the estimates, [quantities, quantities]."""
        weak = 1e-4 * np.eye(len(self.best.x))
        covariance = self.gradients @ np.linalg.inv(self.best.fisher + weak) @ self.gradients.T
        widths = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        return np.asarray(covariance / np.outer(widths, widths))


def _has_row(component: Component, prior: Prior) -> bool:
    """Return whether a component is a value of the fitted device: angles and joint flips are, if
    the fit has them."""
    if component.is_angle:
        return bool(prior.angle or prior.angle_common)
    return component.kind != fit_components.JOINT or bool(prior.joint or prior.joint_own)


def _placed(problem: FitProblem) -> set[int]:
    """Qubits that the compiler chose, if those of other circuits are given (`columns`)."""
    observations, programs = problem.observations, problem.distributions.programs
    fixed = {q for each in observations if not each.was_placed for q in programs[each.place].qubits}
    used = {qubit for each in problem.components for qubit in each.qubits}
    return used - fixed if fixed else set()


def _folded(component: Component, value: float, setting: Setting) -> float:
    """Value of a component without asymmetry and additions of readout errors, for the same
    error."""
    if component.kind not in (fit_components.P01, fit_components.P10) or not component.qubits:
        return value
    return setting.flip_factor(component.kind, component.qubits[0])


def _device(problem: FitProblem) -> _Device:
    places = [each.place for each in problem.observations]
    distributions = problem.distributions
    keys = distributions.keys(places)
    gates = {
        (key.gate, key.qubits): distributions.device.gate(key)
        for key in keys
        if key.gate and distributions.device.gate(key).error
    }
    pairs = {(key.qubits[0], key.qubits[1]) for key in keys if not key.gate and len(key.qubits) > 1}
    return _Device(
        distributions.device,
        tuple(distributions.qubits(places)),
        tuple(gates[key] for key in sorted(gates, key=lambda key: (len(key[1]), key[1], key[0]))),
        tuple(sorted(pairs)),
    )


def identify(
    fit: LikelihoodFit,
    calibrated: CalibrationSnapshot,
    fitted: CalibrationSnapshot,
    *,
    is_kept: bool = False,
) -> Identification:
    """Intervals, marks and correlations of all quantities. `calibrated` and `fitted` have an entry
    for each gate of each set of qubits. `is_kept`: no fit is used, both are the calibration."""
    outside = KEPT if is_kept else OUTSIDE
    correlations = _correlations(fit)
    mixed: dict[str, list[str]] = {}
    for each in correlations:
        mixed.setdefault(each.first, []).append(each.second)
        mixed.setdefault(each.second, []).append(each.first)
    results = []
    for quantity, (low, high) in zip(fit.quantities, fit.intervals().tolist(), strict=True):
        before, after = (fit.device.read(quantity, each) for each in (calibrated, fitted))
        results.append(_estimate(quantity, before, after, (low, high), mixed, outside))
    return Identification(tuple(results), correlations, fit.likelihood.dispersion)


def _estimate(
    quantity: Quantity,
    before: float | None,
    after: float | None,
    ends: tuple[float, float],
    mixed: Mapping[str, Sequence[str]],
    outside: str,
) -> ParameterEstimate:
    low, high = ends
    is_signed = quantity.kind in _LINEAR
    start: float | None = low
    end: float | None = high
    if is_signed:
        most = {ANGLE: MOST_ANGLE, JOINT: MOST_JOINT}.get(
            quantity.kind, MOST_ZZ * abs(before or 0.0)
        )
        is_identified = high - low <= 2.0 * most
    else:
        low = max(low, 0.0)
        is_identified = high <= MOST_RATIO * low
        known = [each for each in (before, after) if each] or [high]
        start = low if is_identified or low > min(known) / _BEYOND else 0.0
        end = high if is_identified or high < max(*known, low) * _BEYOND else None
        if end is not None:
            end = max(min(end, _most(quantity)), low)
    inside = before is not None and low <= before <= high
    mark = "" if is_identified else NOT_IDENTIFIED if inside or before is None else BOUND
    if not mark and after is not None and not low <= after <= high:
        mark = outside
    if quantity.kind in TIMES:
        before, after = (1.0 / each if each else None for each in (before, after))
        start, end = 1.0 / end if end else 0.0, 1.0 / start if start else None
    return ParameterEstimate(
        name=quantity.name,
        kind=quantity.kind,
        qubits=quantity.qubits,
        gate=" ".join(part for part in (quantity.gate, quantity.pauli) if part),
        unit=UNITS.get(quantity.kind, ""),
        calibrated=before,
        fitted=after,
        low=start,
        high=end,
        identified=is_identified,
        mark=mark,
        mixed_with=tuple(mixed.get(quantity.name, ())),
    )


def _most(quantity: Quantity) -> float:
    """Largest readout error, of records without information, or gate error, of its complete
    depolarization."""
    if quantity.kind == ERROR:
        return 1.0 - 0.5 ** (quantity.size or len(quantity.qubits))
    return 0.5 if quantity.kind in (P01, P10) else math.inf


def _correlations(fit: LikelihoodFit) -> tuple[Correlation, ...]:
    matrix = fit.correlations()
    rows, columns = np.nonzero(np.triu(np.abs(matrix) > CORRELATED, 1))
    results = [
        Correlation(fit.quantities[a].name, fit.quantities[b].name, float(matrix[a, b]))
        for a, b in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return tuple(sorted(results, key=lambda each: -abs(each.value)))


HEADER = ("qubits", "value", "calibrated", "fitted", "95 % interval", "")


def cells(parameters: Sequence[ParameterEstimate]) -> list[tuple[str, ...]]:
    """Rows of text with the columns of HEADER."""
    results: list[tuple[str, ...]] = []
    for each in parameters:
        place = "-".join(map(str, each.qubits)) or "all"
        named = each.name.removesuffix(f" {place}").removesuffix(f" {ANGLE}")
        what = " ".join(part for part in (named, each.unit) if part)
        values = (_digits(each.calibrated), _digits(each.fitted), interval_text(each))
        results.append((place, what, *values, each.mark))
    return results


def chosen(parameters: Sequence[ParameterEstimate], most: int) -> list[ParameterEstimate]:
    """At most so many of the values, in their order: those that the counts identify and that differ
    from the calibration come first, then further identified ones."""

    def rank(each: ParameterEstimate) -> int:
        value, low, high = each.calibrated, each.low, each.high
        inside = value is not None and (low or 0.0) <= value and (high is None or value <= high)
        return 2 * (not each.identified) + inside

    if len(parameters) <= most:
        return list(parameters)
    order = sorted(range(len(parameters)), key=lambda k: rank(parameters[k]))
    return [parameters[k] for k in sorted(order[:most])]


def interval_text(each: ParameterEstimate) -> str:
    """Interval with three digits, or its one end."""
    low, high = each.low, each.high
    is_signed = each.kind in _LINEAR
    if high is None:
        return f"> {_digits(low)}" if low else "not bounded"
    return (
        f"< {_digits(high)}" if not low and not is_signed else f"{_digits(low)} to {_digits(high)}"
    )


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def summary(found: Identification) -> list[str]:
    """Sentences below a table of values."""
    total = len(found.parameters)
    marks = Counter(each.mark for each in found.parameters)
    unclear = marks[NOT_IDENTIFIED]
    texts = []
    if unclear:
        texts.append(
            f"{unclear} of {total} values are not identified: the counts do not bound them within a"
            f" factor of {MOST_RATIO:g}, and their fitted values follow the prior around the"
            " calibration"
        )
    if marks[BOUND]:
        texts.append(
            f"{BOUND} ({marks[BOUND]} of {total}): the counts do not bound the value either, but"
            " they exclude the calibrated one"
        )
    if marks[KEPT]:
        texts.append(
            f"{KEPT}: the calibrated value lies outside the interval of the counts, but no fit is"
            " used"
        )
    if marks[OUTSIDE]:
        texts.append(
            f"{OUTSIDE}: the fitted value lies outside the interval of the counts, because the fit"
            " prefers the calibration or goes only a part of the way"
        )
    if found.correlations:
        pairs = [
            f"{each.first} with {each.second} ({each.value:+.2f})" for each in found.correlations
        ]
        more = f", and {len(pairs) - _MOST_PAIRS} more" if len(pairs) > _MOST_PAIRS else ""
        texts.append(f"correlated estimates: {', '.join(pairs[:_MOST_PAIRS])}{more}")
    texts.append(EFFECTIVE)
    return texts


_MOST_PAIRS = 6
