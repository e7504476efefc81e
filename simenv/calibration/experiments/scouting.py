"""Rough scales of a device from few shots, which determine the times and lengths of the
measurements.

Delays grow by a factor from a fraction of a microsecond to the longest delay allowed; lengths of
sequences likewise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from simenv.calibration.experiments import coherence
from simenv.calibration.experiments.estimators.analysis import (
    LEAST_CONTRAST,
    Place,
    differences,
    tallies,
)
from simenv.calibration.experiments.estimators.estimates import SIGNAL_ERRORS
from simenv.calibration.experiments.estimators.gate_errors import curves
from simenv.calibration.experiments.plans import RB1, RB2, Planner, TestLayout
from simenv.calibration.experiments.runner import CircuitRunner, Counts, merge

SHOTS = 1000
FIRST_DELAY_NS = 300.0
DELAY_FACTOR = 4.0
DELAYS_AT_ONCE = 4  # of one round; there is another round while a qubit has a signal
LENGTHS_1Q = (1, 16, 128, 1024)
LENGTHS_2Q = (1, 4, 16, 64)
_LEAST_SIGNAL = 0.3  # of one random element, if its gates work, relative to that of the readout
_DECAYED = 0.1  # signal relative to that without a delay
_DEAD_RATE = 0.3  # rate of a random element above which a gate does not work
_PREFIX = "scout-"


class RoughEstimates(msgspec.Struct, frozen=True):
    """Rough values. A time above the longest delay is set to the longest delay."""

    t1_ns: dict[int, float]
    t2_ns: dict[int, float]
    rate_1q: dict[Place, float]  # -ln p of a random one-qubit element
    rate_2q: dict[Place, float]
    dead: tuple[Place, ...]  # places where random elements leave no signal


def scout(
    runner: CircuitRunner, planner: Planner, tested: TestLayout, longest_ns: float
) -> RoughEstimates:
    """Run the circuits and estimate the scales."""
    counts = _delays(runner, planner, tested, longest_ns)
    contrasts = {
        place[0]: float(differences(arms)[1][0])
        for place, arms in tallies(counts, _PREFIX + "t1").items()
    }
    circuits = list(
        planner.sequences(RB1, {(q,): LENGTHS_1Q for q in tested.qubits}, range(2), SHOTS)
    )
    if tested.pairs:
        circuits += planner.sequences(RB2, dict.fromkeys(tested.pairs, LENGTHS_2Q), range(4), SHOTS)
    merge(counts, runner.run(circuits))
    rates_1q, rates_2q = _rates(counts, RB1, contrasts), _rates(counts, RB2, contrasts)
    return RoughEstimates(
        _times(counts, _PREFIX + "t1", longest_ns),
        _times(counts, _PREFIX + "echo", longest_ns),
        {place: rate for place, (rate, _) in rates_1q.items()},
        {place: rate for place, (rate, _) in rates_2q.items()},
        tuple(place for place, (_, works) in {**rates_1q, **rates_2q}.items() if not works),
    )


def _delays(
    runner: CircuitRunner, planner: Planner, tested: TestLayout, longest_ns: float
) -> Counts:
    """Run delays from the shortest to those after which no qubit has a signal: a long delay takes a
    machine hours."""
    count = 1 + int(np.log(longest_ns / FIRST_DELAY_NS) / np.log(DELAY_FACTOR))
    ladder = [0.0, *(FIRST_DELAY_NS * DELAY_FACTOR**k for k in range(count)), longest_ns]
    arms = {_PREFIX + "t1": coherence.relaxation, _PREFIX + "echo": coherence.echo}
    counts: Counts = {}
    for first in range(0, len(ladder), DELAYS_AT_ONCE):
        delays = ladder[first : first + DELAYS_AT_ONCE]
        times: dict[Place, Sequence[float]] = {(qubit,): delays for qubit in tested.qubits}
        circuits = [
            circuit
            for name, arm in arms.items()
            for circuit in planner.timed(name, arm, times, 2, SHOTS)
        ]
        merge(counts, runner.run(circuits))
        arms = {name: arm for name, arm in arms.items() if _has_signal(counts, name)}
        if not arms:
            break
    return counts


def _has_signal(counts: Counts, name: str) -> bool:
    """Look for a signal of any qubit after the longest delay so far."""
    for arms in tallies(counts, name).values():
        _, signal, variance = differences(arms)
        if signal[-1] > max(_DECAYED * signal[0], SIGNAL_ERRORS * np.sqrt(variance[-1])):
            return True
    return False


def _times(counts: Counts, name: str, longest_ns: float) -> dict[int, float]:
    """Best of many decay times for each qubit; amplitudes are fitted."""
    entries = {}
    for place, arms in tallies(counts, name).items():
        x, signal, variance = differences(arms)
        rates = np.geomspace(0.1 / longest_ns, 3.0 / FIRST_DELAY_NS, 800)
        model = np.exp(-rates[:, None] * x)
        weight = 1.0 / (variance + 1e-4)  # scatter of a rough model
        size = (model * signal * weight).sum(axis=1) / (model * model * weight).sum(axis=1)
        cost = (np.square(signal - size[:, None] * model) * weight).sum(axis=1)
        entries[place[0]] = min(1.0 / float(rates[cost.argmin()]), longest_ns)
    return entries


def _rates(
    counts: Counts, name: str, contrasts: Mapping[int, float]
) -> Mapping[Place, tuple[float, bool]]:
    """Decay rate of each place by its longest sequences that have a signal, and whether its gates
    work. `contrasts`: of the readout of each qubit, 1 - p01 - p10. Gates of qubits whose readout
    hardly has one count as working."""
    entries = {}
    for curve in curves(counts, name):
        seen = np.flatnonzero(curve.signal > 0.3 * max(curve.signal[0], 1e-9))
        last = int(seen[-1]) if seen.size and seen[-1] else 1
        ratio = max(float(curve.signal[last]), 0.02) / max(float(curve.signal[0]), 0.02)
        span = float(curve.lengths[last] - curve.lengths[0])
        rate = -np.log(min(ratio, 1.0 - 1e-3)) / span
        errors = SIGNAL_ERRORS * np.sqrt(curve.variance[[0, last]])
        rate_error = float(np.hypot(*(errors / np.maximum(curve.signal[[0, last]], 0.02)))) / span
        contrast = [contrasts[qubit] for qubit in curve.place]
        # Without errors of gates, the signal of a pair is (c + d + c d) / 3.
        full = (sum(contrast) + math.prod(contrast)) / 3.0 if len(contrast) == 2 else contrast[0]
        silent = curve.signal[0] + errors[0] < _LEAST_SIGNAL * full
        dead = min(contrast) > LEAST_CONTRAST and (silent or rate - rate_error > _DEAD_RATE)
        entries[curve.place] = float(rate), not dead
    return entries
