"""Drift of a device: the calibration snapshot that gives its noise at each time.

Either dated snapshots are replayed (`Replay`), or the values of one snapshot follow a seeded random
walk (`RandomWalk`); in both, T1 may jump (`JumpingT1`). All are pure functions of the device's time
in seconds. Reason: frequencies of outcomes on hardware are over-dispersed compared with shot noise
(arXiv 2407.03970), and T1 changes by defects that are two-level systems (arXiv 2407.02467).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import atoms
from noise_models.atoms import AnalogCalibration
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    LayerCalibration,
    MeasurementCalibration,
    QubitCalibration,
    T1Jumps,
    t2_star_us,
)
from noise_models.layers import MAX_RATE, layer_key
from noise_models.strict_json import SnapshotError

__all__ = ["Drift", "JumpingT1", "RandomWalk", "Replay", "TelegraphProcess", "moment_s"]

# Replay of dated calibration snapshots of one device.


def moment_s(text: str) -> float:
    """Return the seconds since 1970 of an ISO 8601 time; UTC without a zone. Raises ValueError."""
    result = datetime.fromisoformat(text)
    return (result if result.tzinfo else result.replace(tzinfo=UTC)).timestamp()


class Replay:
    """Replay of dated snapshots: each is in force from its `calibrated` time to that of the
    next."""

    def __init__(self, snapshots: Sequence[CalibrationSnapshot]) -> None:
        """Sort the snapshots, given in any order, by date. Raises SnapshotError for no snapshot,
        for one without a date, for two with the same date, and for devices of different sizes."""
        if not snapshots:
            raise SnapshotError("calibrated", "no dated snapshots", hint="one or more files")
        dated = []
        for each in snapshots:
            try:
                dated.append((moment_s(each.calibrated), each))
            except ValueError:
                raise SnapshotError(
                    "calibrated",
                    f"snapshot {each.name} has no date",
                    hint="calibrated: an ISO 8601 time",
                ) from None
        dated.sort(key=lambda pair: pair[0])
        for (first_s, first), (second_s, second) in pairwise(dated):
            if first_s == second_s:
                raise SnapshotError("calibrated", f"two snapshots of {second.calibrated}")
            if first.num_qubits != second.num_qubits:
                sizes = [f"{each.num_qubits} on {each.calibrated}" for each in (first, second)]
                raise SnapshotError("num_qubits", ", ".join(sizes), hint="snapshots of one device")
        self._times_s = [time_s for time_s, _ in dated]
        self._snapshots = [each for _, each in dated]

    @property
    def origin_s(self) -> float:
        """Date of the first snapshot."""
        return self._times_s[0]

    def step(self, device_s: float) -> int:
        """Return the number of the snapshot in force at a time."""
        return max(0, bisect_right(self._times_s, device_s) - 1)

    @property
    def published(self) -> Drift:
        """Itself."""
        return self

    def after(self, step: int) -> int:
        """Return the number of the next snapshot."""
        return step + 1

    def begin_s(self, step: int) -> float:
        """Return the date of a snapshot; infinite beyond the last one."""
        return self._times_s[step] if step < len(self._times_s) else math.inf

    def snapshot(self, step: int) -> CalibrationSnapshot:
        """Return the snapshot with this number."""
        return self._snapshots[step]


# Random walk of a device's noise around one calibration snapshot.
#
# The logarithm of each value's factor is a stationary autoregressive process of order 1 (the
# Ornstein-Uhlenbeck process at equal intervals),
#
#     x_k = a x_{k-1} + sqrt(1 - a^2) s n_k,   n_k ~ N(0, 1)
#
# with standard deviation s. It is computed as a sum over the last TERMS draws, so that each step
# follows from the seed and its number alone: step k is the same after a restart.

CORRELATION = 0.8  # correlation a of neighbouring steps
TERMS = 64  # 0.8^64 is below 1e-6
_MOST = 0.5  # largest value of a drifted error or probability
_RATES = ("t1_us", "t2_us", "t2_star_us")  # times of relaxation, dephasing and detuning
_ERRORS = (
    *("p01", "p10", "excited", "reset_error", "preparation_error", "memory_error"),
    *("measure_decay", "measure_excitation"),
)
_BESIDE = "measured"  # place of the crosstalk of a measurement
_ATOMS = "atoms"  # place of the noise of a device that runs pulse sequences
_Operation = TypeVar("_Operation", GateCalibration, MeasurementCalibration)
_Factors = Mapping[tuple[object, ...], float]  # of each value, by `_places`


class RandomWalk:
    """Random walk of the relaxation times and errors of `base`. Durations, gates and couplings do
    not drift, and all rates of a layer have one factor. An error of 1, which marks a gate that does
    not work, stays 1.

    Relaxation, pure dephasing 1/T2 - 1/(2 T1) and detuning have different causes, so each has a
    factor of its own; T2 and T2* follow from them. T2 <= 2 T1 and T2* <= T2 hold at each step, and
    no detuning disappears because T2 became short. The calibration outside the scope of a fit is of
    the same device: its values have the same factors.
    """

    def __init__(self, base: CalibrationSnapshot, seed: int, every_s: float, spread: float) -> None:
        """Start a walk at `base`. `every_s`: the device's time between two steps. `spread`: s, the
        relative standard deviation of each value. Raises ValueError."""
        if seed < 0 or not (0 < every_s < math.inf) or not 0 <= spread <= 2:
            raise ValueError(f"random walk: seed={seed}, every_s={every_s}, spread={spread}")
        self._base, self._seed = base, seed
        self._every_s, self._spread = every_s, spread
        try:
            self.origin_s = moment_s(base.calibrated)
        except ValueError:
            self.origin_s = 0.0
        self._places = _places(base)
        self._draws = lru_cache(2 * TERMS)(self._draw)

    def step(self, device_s: float) -> int:
        """Return the number of steps taken until a time."""
        return max(0, math.floor((device_s - self.origin_s) / self._every_s))

    @property
    def published(self) -> Drift:
        """Itself."""
        return self

    def after(self, step: int) -> int:
        """Return the number of the next step."""
        return step + 1

    def begin_s(self, step: int) -> float:
        """Return the time of a step."""
        return self.origin_s + step * self._every_s

    def snapshot(self, step: int) -> CalibrationSnapshot:
        """Return the snapshot after a step; step 0 is `base`."""
        if step == 0:
            return self._base
        values = np.exp(self._spread * self._logarithm(step)).tolist()
        return _at(self._base, dict(zip(self._places, values, strict=True)))

    def _logarithm(self, step: int) -> NDArray[np.float64]:
        """Return x_k of every value, in units of s; 0 at step 0."""
        result = np.zeros(len(self._places))
        for age in range(min(step, TERMS)):
            result += CORRELATION**age * self._draws(step - age)
        return result * math.sqrt(1.0 - CORRELATION**2)

    def _draw(self, step: int) -> NDArray[np.float64]:
        return np.random.default_rng([self._seed, step]).standard_normal(len(self._places))


def _places(base: CalibrationSnapshot) -> tuple[tuple[object, ...], ...]:
    """Values that drift apart from one another, those of a fit's `outside` without those of `base`
    at the end."""
    results: dict[tuple[object, ...], None] = {}
    for each in (base, base.outside):
        if each is not None:
            names = (*_RATES, *_ERRORS, "readout_error")
            results.update({(k, name): None for k in range(len(each.qubits)) for name in names})
            results.update({(gate.name, gate.qubits): None for gate in each.gates})
            results.update({(own.name, own.qubit): None for own in each.measurements})
            results.update({(group.qubits,): None for group in each.correlated_readout})
            results.update({(_BESIDE, own.qubits): None for own in each.measurement_crosstalk})
            results.update({layer_key(own): None for own in each.layers})
            analog = () if each.analog is None else atoms.measured(each.analog)
            results.update({(_ATOMS, parameter.name): None for parameter, _ in analog})
    return tuple(results)


def _at(base: CalibrationSnapshot, factors: _Factors) -> CalibrationSnapshot:
    gates = (_operation(each, factors[each.name, each.qubits]) for each in base.gates)
    return msgspec.structs.replace(
        base.with_gates(gates),
        qubits=tuple(_drifted(qubit, k, factors) for k, qubit in enumerate(base.qubits)),
        measurements=tuple(
            _operation(each, factors[each.name, each.qubit]) for each in base.measurements
        ),
        correlated_readout=tuple(
            _group(each, factors[(each.qubits,)]) for each in base.correlated_readout
        ),
        measurement_crosstalk=tuple(
            each
            if each.error is None
            else msgspec.structs.replace(
                each, error=_limited(each.error, each.error * factors[_BESIDE, each.qubits])
            )
            for each in base.measurement_crosstalk
        ),
        layers=tuple(_layer(each, factors[layer_key(each)]) for each in base.layers),
        outside=None if base.outside is None else _at(base.outside, factors),
        analog=None if base.analog is None else _atoms(base.analog, factors),
    )


def _atoms(analog: AnalogCalibration, factors: _Factors) -> AnalogCalibration:
    """Measured noise of atoms, each value times its factor; probabilities are at most _MOST."""
    changes = {}
    for each, value in atoms.measured(analog):
        drifted = value * factors[_ATOMS, each.name]
        if each.is_share:
            drifted = _limited(value, drifted)
        changes[each.name] = min(max(drifted, each.limits[0]), each.limits[1])
    return msgspec.structs.replace(analog, **changes)


def _layer(layer: LayerCalibration, factor: float) -> LayerCalibration:
    """A layer with all rates multiplied by a factor."""
    generators = tuple(
        msgspec.structs.replace(each, rate=min(each.rate * factor, MAX_RATE))
        for each in layer.generators
    )
    return msgspec.structs.replace(layer, generators=generators)


def _drifted(qubit: QubitCalibration, number: int, factors: _Factors) -> QubitCalibration:
    changes = _times(qubit, *(factors[number, name] for name in _RATES))
    for name in _ERRORS:
        value = getattr(qubit, name)
        if value is not None:
            changes[name] = _limited(value, value * factors[number, name])
    if qubit.readout_error is not None:
        factor = factors[number, "readout_error"]
        if qubit.p01 is not None and qubit.p10 is not None:  # it is their mean
            mean = qubit.p01 + qubit.p10
            factor = (changes["p01"] + changes["p10"]) / mean if mean else 1.0
        changes["readout_error"] = _limited(qubit.readout_error, qubit.readout_error * factor)
    return msgspec.structs.replace(qubit, **changes)


def _times(
    qubit: QubitCalibration, relaxation: float, dephasing: float, detuning: float
) -> dict[str, float]:
    """T1, T2 and T2* after relaxation time, pure dephasing time and 1 / detuning were multiplied by
    these factors."""
    changes: dict[str, float] = {}
    t1_us, t2_us = math.inf, math.inf
    if qubit.t1_us is not None:
        t1_us = changes["t1_us"] = qubit.t1_us * relaxation
    if qubit.t2_limited_us is not None:
        lost = 0.0 if qubit.t1_us is None else 0.5 / qubit.t1_us
        rate = max(1.0 / qubit.t2_limited_us - lost, 0.0) / dephasing + 0.5 / t1_us
        t2_us = changes["t2_us"] = min(1.0 / rate, 2.0 * t1_us)
    if qubit.t2_star_us is not None:
        spread = qubit.detuning_rad_us / detuning
        changes["t2_star_us"] = t2_star_us(min(t2_us, 2.0 * t1_us), spread)
    return changes


def _operation(operation: _Operation, factor: float) -> _Operation:
    if operation.error is None or operation.error >= 1.0:
        return operation
    changes: dict[str, Any] = {"error": _limited(operation.error, operation.error * factor)}
    if isinstance(operation, GateCalibration):
        changes["paulis"] = operation.with_error(changes["error"]).paulis
    leakage = getattr(operation, "leakage", None)
    if leakage is not None:  # a part of the error
        changes["leakage"] = _limited(leakage, leakage * factor)
    return msgspec.structs.replace(operation, **changes)


def _group(group: CorrelatedReadout, factor: float) -> CorrelatedReadout:
    """Qubits read together, all wrong outcomes of a state times one factor, at most _MOST in
    all."""
    columns = np.array(group.confusion)
    wrong = 1.0 - np.diag(columns)
    most = np.maximum(wrong, _MOST)
    scale = np.minimum(factor, np.divide(most, wrong, out=np.ones_like(wrong), where=wrong > 0.0))
    result = columns * scale
    np.fill_diagonal(result, 0.0)
    np.fill_diagonal(result, 1.0 - result.sum(axis=0))
    return msgspec.structs.replace(group, confusion=tuple(map(tuple, result.tolist())))


def _limited(value: float, drifted: float) -> float:
    return min(drifted, max(value, _MOST))


class Drift(Protocol):
    """Sequence of snapshots, each in force until the next one. Times are the device's, in seconds
    since 1970. Steps identify snapshots; they are in the order of their times."""

    @property
    def origin_s(self) -> float:
        """Start time of the first snapshot."""

    @property
    def published(self) -> Drift:
        """Drift whose snapshots the device publishes as its calibrations."""

    def step(self, device_s: float) -> Any:
        """Return the snapshot in force at a time, the first one also before `origin_s`."""

    def after(self, step: Any) -> Any:
        """Return the snapshot that follows."""

    def begin_s(self, step: Any) -> float:
        """Return the start time of a snapshot; infinite beyond the last one."""

    def snapshot(self, step: Any) -> CalibrationSnapshot:
        """Return a snapshot."""


# Jumps of T1 by two-level systems, in any drift.
#
# T1 of a qubit is a telegraph process: it falls with the rate a and returns with the rate b. At the
# times of a Poisson process of rate a + b the state is drawn anew, low with the probability
# a / (a + b), whatever it was: the same process, of which each block of time follows from its seed
# alone (uniformization; Asmussen and Glynn, Stochastic Simulation, section II.4). A task has the
# state of its start: dwells are minutes to hours (arXiv 2505.23622), jobs take seconds.

_BLOCK_DRAWS = 64.0  # mean number of draws of a block of time; none has the probability 1e-28
# Times are multiples of it, so that they can be added to whole seconds since 1970 exactly.
_TICK_S = 2.0**-20


def _ticks(time_s: float) -> float:
    return math.floor(time_s / _TICK_S) * _TICK_S


class TelegraphProcess:
    """Times at which T1 of one qubit falls and returns, from time 0 on."""

    def __init__(self, jumps: T1Jumps, seed: tuple[int, ...]) -> None:
        """`seed`: of the device and the qubit. The process is in equilibrium at time 0."""
        falls, returns = jumps.per_hour / 3600.0, 1.0 / jumps.dwell_s
        self._seed = seed
        self._share = falls / (falls + returns)
        self._block_s = _ticks(_BLOCK_DRAWS / (falls + returns)) or _TICK_S
        self._block = lru_cache(8)(self._drawn)

    def at(self, time_s: float) -> tuple[float, bool]:
        """Return since when the state is known to be constant, and whether T1 is low."""
        number = max(0, math.floor(time_s / self._block_s))
        times, states = self._block(number)
        place = bisect_right(times, time_s) - 1
        return times[max(place, 0)], states[max(place, 0)]

    def next_s(self, time_s: float) -> float:
        """Return the time of the next change, or an earlier one until which there is none."""
        number = max(0, math.floor(time_s / self._block_s))
        times, _ = self._block(number)
        place = bisect_right(times, time_s)
        return times[place] if place < len(times) else (number + 1) * self._block_s

    def _drawn(self, number: int) -> tuple[list[float], list[bool]]:
        """Return the begin of a block and the changes in it, with the state from each on."""
        rng = np.random.default_rng([*self._seed, number + 1])
        count = int(rng.poisson(_BLOCK_DRAWS))
        moments = np.sort(rng.random(count)).tolist()
        draws = (rng.random(count) < self._share).tolist()
        begin_s = number * self._block_s
        times, states = [begin_s], [self._last(number - 1)]
        for moment, state in zip(moments, draws, strict=True):
            if state != states[-1]:
                times.append(begin_s + _ticks(moment * self._block_s))
                states.append(state)
        return times, states

    def _last(self, number: int) -> bool:
        """Return the last state of a block; that of block -1, and of one without draws, is drawn
        for itself."""
        rng = np.random.default_rng([*self._seed, number + 1])
        count = int(rng.poisson(_BLOCK_DRAWS)) if number >= 0 else 0
        rng.random(count)
        drawn = rng.random(max(count, 1))
        return bool(drawn[-1] < self._share)


class JumpingT1:
    """Jumps of T1 in the snapshots of another drift. A step is its time and the other's step."""

    def __init__(self, base: Drift, seed: int, default: T1Jumps | None = None) -> None:
        """Jumps of the first snapshot's qubits; `default`: of those with a T1 and without jumps of
        their own. Raises ValueError if no qubit has any."""
        self._base = base
        self._zero_s = math.floor(base.origin_s)  # of the processes
        self._values: dict[int, T1Jumps] = {}
        for k, qubit in enumerate(base.snapshot(base.step(base.origin_s)).qubits):
            jumps = qubit.t1_jumps or default
            if jumps is not None and qubit.t1_us is not None:
                self._values[k] = jumps
        if not self._values:
            raise ValueError("no qubit has a T1 that jumps")
        self._processes = {k: TelegraphProcess(each, (seed, k)) for k, each in self._values.items()}

    @property
    def origin_s(self) -> float:
        """Start time of the other drift."""
        return self._base.origin_s

    @property
    def published(self) -> Drift:
        """That of a replay, whose snapshots are published when they come into force; else this."""
        own = self._base.published
        return own if isinstance(own, Replay) else self

    def step(self, device_s: float) -> tuple[float, Any]:
        """Return the time of the last change, and the other's step."""
        other, since_s = self._base.step(device_s), device_s - self._zero_s
        changes = (each.at(since_s)[0] for each in self._processes.values())
        return max(self._base.begin_s(other), self._zero_s + max(changes)), other

    def after(self, step: tuple[float, Any]) -> tuple[float, Any]:
        """Return the step of the next change."""
        time_s, other = step
        following = self._base.after(other)
        begin_s = self._base.begin_s(following)
        since_s = time_s - self._zero_s
        changes = (each.next_s(since_s) for each in self._processes.values())
        change_s = max(self._zero_s + min(changes), math.nextafter(time_s, math.inf))
        return (begin_s, following) if begin_s <= change_s else (change_s, other)

    def begin_s(self, step: tuple[float, Any]) -> float:
        """Return the time of a step."""
        return step[0]

    def snapshot(self, step: tuple[float, Any]) -> CalibrationSnapshot:
        """Return the other's snapshot, with the states of the jumps."""
        result, since_s = self._base.snapshot(step[1]), step[0] - self._zero_s
        low = {k: each.at(since_s)[1] for k, each in self._processes.items()}
        return _with_jumps(result, self._values, low)


def _with_jumps(
    snapshot: CalibrationSnapshot, values: Mapping[int, T1Jumps], low: Mapping[int, bool]
) -> CalibrationSnapshot:
    change = msgspec.structs.replace
    qubits = tuple(
        change(qubit, t1_jumps=change(values[k], low=low[k]))
        if k in low and qubit.t1_us is not None
        else qubit
        for k, qubit in enumerate(snapshot.qubits)
    )
    outside = snapshot.outside
    if outside is not None:
        outside = _with_jumps(outside, values, low)
    return change(snapshot, qubits=qubits, outside=outside)
