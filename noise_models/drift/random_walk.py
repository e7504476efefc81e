"""Random walk of a device's noise around one calibration snapshot.

The logarithm of each value's factor is a stationary autoregressive process of order 1 (the
Ornstein-Uhlenbeck process at equal intervals),

    x_k = a x_{k-1} + sqrt(1 - a^2) s n_k,   n_k ~ N(0, 1)

with standard deviation s. It is computed as a sum over the last TERMS draws, so that each step
follows from the seed and its number alone: step k is the same after a restart.
"""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import CalibrationSnapshot, GateCalibration, QubitCalibration
from noise_models.drift.replay import moment_s

CORRELATION = 0.8  # correlation a of neighbouring steps
TERMS = 64  # 0.8^64 is below 1e-6
_MOST = 0.5  # largest value of a drifted error or probability
_TIMES = ("t1_us", "t2_us")
_ERRORS = ("p01", "p10", "readout_error", "excited", "reset_error", "preparation_error")


class RandomWalk:
    """Random walk of the relaxation times and errors of `base`.

    Durations, gates and couplings do not drift. An error of 1, which marks a gate that does not
    work, stays 1.
    """

    def __init__(self, base: CalibrationSnapshot, seed: int, every_s: float, spread: float) -> None:
        """Start a walk at `base`.

        `every_s`: the device's time between two steps. `spread`: s, the relative standard deviation
        of each value. Raises ValueError.
        """
        if seed < 0 or not (0 < every_s < math.inf) or not 0 <= spread <= 2:
            raise ValueError(f"random walk: seed={seed}, every_s={every_s}, spread={spread}")
        self._base, self._seed = base, seed
        self._every_s, self._spread = every_s, spread
        try:
            self.origin_s = moment_s(base.calibrated)
        except ValueError:
            self.origin_s = 0.0
        self._draws = lru_cache(2 * TERMS)(self._draw)

    def step(self, device_s: float) -> int:
        """Return the number of steps taken until a time."""
        return max(0, math.floor((device_s - self.origin_s) / self._every_s))

    def begin_s(self, step: int) -> float:
        """Return the time of a step."""
        return self.origin_s + step * self._every_s

    def snapshot(self, step: int) -> CalibrationSnapshot:
        """Return the snapshot after a step; step 0 is `base`."""
        if step == 0:
            return self._base
        factors = iter(np.exp(self._spread * self._logarithm(step)).tolist())
        qubits = tuple(_drifted(qubit, factors) for qubit in self._base.qubits)
        gates = tuple(_gate(gate, next(factors)) for gate in self._base.gates)
        return msgspec.structs.replace(self._base, qubits=qubits, gates=gates)

    def _logarithm(self, step: int) -> NDArray[np.float64]:
        """Return x_k of every value, in units of s; 0 at step 0."""
        result = np.zeros(self._size)
        for age in range(min(step, TERMS)):
            result += CORRELATION**age * self._draws(step - age)
        return result * math.sqrt(1.0 - CORRELATION**2)

    @property
    def _size(self) -> int:
        of_qubit = len(_TIMES) + len(_ERRORS)
        return of_qubit * len(self._base.qubits) + len(self._base.gates)

    def _draw(self, step: int) -> NDArray[np.float64]:
        return np.random.default_rng([self._seed, step]).standard_normal(self._size)


def _drifted(qubit: QubitCalibration, factors: object) -> QubitCalibration:
    changes: dict[str, float] = {}
    for name in (*_TIMES, *_ERRORS):
        factor = next(factors)  # type: ignore[call-overload]
        value = getattr(qubit, name)
        if value is not None:
            drifted = value * factor
            changes[name] = drifted if name in _TIMES else _limited(value, drifted)
    return msgspec.structs.replace(qubit, **changes)


def _gate(gate: GateCalibration, factor: float) -> GateCalibration:
    if gate.error is None or gate.error >= 1.0:
        return gate
    return msgspec.structs.replace(gate, error=_limited(gate.error, gate.error * factor))


def _limited(value: float, drifted: float) -> float:
    return min(drifted, max(value, _MOST))
