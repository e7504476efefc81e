"""Experiments on a device of neutral atoms: sequences for its machine, and estimates from counts.

Atoms far from one another, under one global channel of the Rydberg state: the share of ones in the
dark, after a half turn, after a wait in the Rydberg state, after a Ramsey sequence, and in a long
Rabi oscillation. Estimates know nothing of the device but the counts. Waits are pulses without
amplitude: pulser's noise of the detuning acts during pulses alone. A device without noise, and one
that a snapshot describes, have other shares, of which the same functions make the values that they
claim (`simenv.calibration.atom_certify`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from simenv.calibration.experiments.estimators import Estimate, without_signal
from simenv.errors import OptionError

ATOMS = 8
RADIUS_UM = 60.0  # of their circle, where the machine has no smaller one
LONGEST_NS = 4_000  # of a sequence, where the machine has no shorter one
LARGEST_RABI = 4 * math.pi  # rad/us, where the machine has no smaller one
DELAYS = 6  # of a Ramsey experiment
_USED = 0.9  # part of the machine's limits that sequences use
_BASIS = "ground-rydberg"
# Quantities of the estimates.
FALSE_POS, FALSE_NEG = "p_false_pos", "p_false_neg"
T1, T2_STAR = "rydberg_t1_us", "rydberg_t2_star_us"
RABI_SCALE, RABI_CONTRAST = "rabi_scale", "rabi_contrast"
DARK, FLIPPED, WAITED = "dark", "half turn", "wait"


class AtomShots(msgspec.Struct, frozen=True):
    """Shots of a sequence of each experiment; each shot has its own draw of the noise."""

    dark: int = 8_000
    flipped: int = 12_000
    ramsey: int = 1_000
    rabi: int = 800

    def scaled(self, factor: float) -> AtomShots:
        """Return these shots times a factor, at least 50."""
        fields = msgspec.structs.asdict(self)
        return AtomShots(**{name: max(50, round(n * factor)) for name, n in fields.items()})


class PulseStep(msgspec.Struct, frozen=True):
    """A pulse, or a wait where the Rabi frequency is 0."""

    duration_ns: int
    rabi: float = 0.0  # rad/us
    phase: float = 0.0


class AtomExperiment(msgspec.Struct, frozen=True):
    """A sequence of steps. `wait_ns`: of a wait under study; `turns`: of the whole pulse, in half
    turns."""

    name: str
    steps: tuple[PulseStep, ...]
    shots: int
    wait_ns: int = 0
    turns: float = 0.0

    @property
    def has_pulse(self) -> bool:
        """True if a step has an amplitude."""
        return any(step.rabi for step in self.steps)


class OnesShare(msgspec.Struct, frozen=True):
    """Mean share of ones, its standard error, and the number of bits that it is of."""

    mean: float
    std_error: float
    bits: int = 1


Shares = Mapping[AtomExperiment, OnesShare]


class AtomPlan(msgspec.Struct, frozen=True):
    """Experiments on a machine, and what its sequences are made of."""

    channel: str
    experiments: tuple[AtomExperiment, ...]


def channel_of(machine: Any) -> tuple[str, Any]:
    """Return the name and the object of the channel under test. Raises OptionError for a machine
    of pulser without a global channel of the Rydberg state."""
    for name, channel in machine.channels.items():
        if channel.basis == _BASIS and channel.addressing == "Global" and "dmm" not in name:
            return name, channel
    hint = f"a channel of the basis {_BASIS} that addresses all atoms"
    raise OptionError(f"device {machine.name[:64]!r} has no channel to certify", hint=hint)


def plan(machine: Any, shots: AtomShots) -> AtomPlan:
    """Return the experiments for a machine of pulser. Raises OptionError."""
    name, channel = channel_of(machine)
    clock = 2 * int(channel.clock_period)  # half of a half turn is on the clock too
    least = _multiple(max(int(channel.min_duration), 16), clock)
    rabi = _USED * min(channel.max_amp or LARGEST_RABI, LARGEST_RABI)
    half_ns = _multiple(max(2 * least, math.ceil(1e3 * math.pi / rabi)), clock)
    rabi = 1e3 * math.pi / half_ns
    limits = machine.max_sequence_duration, channel.max_duration, LONGEST_NS
    # Between pulses, a channel with a bandwidth has buffers.
    buffers = 4 * int(channel.rise_time) if channel.mod_bandwidth else 0
    longest = int(min(filter(None, limits))) - 2 * half_ns - buffers
    longest = longest // clock * clock
    if longest < 4 * half_ns:
        text = f"sequences of {longest} ns on device {machine.name[:64]!r}"
        raise OptionError(text, hint="longer ones: they are to show the decay of the atoms")
    half, quarter = PulseStep(half_ns, rabi), PulseStep(half_ns // 2, rabi)
    found = [
        AtomExperiment(DARK, (PulseStep(least),), shots.dark),
        AtomExperiment(FLIPPED, (half,), shots.flipped),
        AtomExperiment(WAITED, (half, PulseStep(longest)), shots.flipped, longest),
    ]
    for k in range(DELAYS):
        wait = _multiple(least + (longest - least) * k // (DELAYS - 1), clock)
        wait = min(wait, longest)
        found += [
            AtomExperiment(
                f"ramsey {sign}",
                (quarter, PulseStep(wait), PulseStep(quarter.duration_ns, rabi, phase)),
                shots.ramsey,
                wait,
            )
            for sign, phase in (("+", 0.0), ("-", math.pi))
        ]
    turns = max(1, round(_USED * longest / half_ns / 2) - 1)
    for part in range(1, 5):  # at slopes and extrema of one oscillation
        total = 2 * turns + 0.5 * part
        steps = (PulseStep(_multiple(round(total * half_ns), clock // 2), rabi),)
        found.append(AtomExperiment("rabi", steps, shots.rabi, turns=total))
    return AtomPlan(name, tuple(found))


def _multiple(duration_ns: int, clock: int) -> int:
    return -(-duration_ns // clock) * clock


def sequence_of(experiment: AtomExperiment, channel: str, machine: Any) -> Any:
    """Return the sequence of pulser that makes an experiment on a machine."""
    from pulser import Pulse, Register, Sequence

    radius = _USED * min(machine.max_radial_distance or RADIUS_UM, RADIUS_UM)
    angles = [2.0 * math.pi * k / ATOMS for k in range(ATOMS)]
    places = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
    register = Register.from_coordinates(places, center=False, prefix="q")
    if machine.requires_layout:
        register = register.with_automatic_layout(machine)
    sequence = Sequence(register, machine)
    sequence.declare_channel("drive", channel)
    for step in experiment.steps:
        pulse = Pulse.ConstantPulse(step.duration_ns, step.rabi, 0.0, step.phase)
        sequence.add(pulse, "drive")
    return sequence


def share_of(counts: Mapping[str, int]) -> OnesShare:
    """Return the share of ones. Atoms of one shot share the draws of the laser, so that the
    standard error is that of the shots."""
    shots = sum(counts.values())
    width = len(next(iter(counts)))
    shares = np.array([bits.count("1") / width for bits in counts])
    weights = np.array(list(counts.values())) / shots
    mean = float(weights @ shares)
    variance = float(weights @ (shares - mean) ** 2)
    bits = shots * width
    kept = (mean * bits + 1.0) / (bits + 2.0)  # of shares that are all alike
    least = kept * (1.0 - kept) / bits
    return OnesShare(mean, math.sqrt(max(variance / shots, least)), bits)


def estimates(shares: Shares) -> tuple[Estimate, ...]:
    """Return the estimates of all quantities from the shares of ones."""
    by_name = {each.name: (each, share) for each, share in shares.items()}
    _, dark = by_name[DARK]
    _, flipped = by_name[FLIPPED]
    waited, after = by_name[WAITED]
    return (
        Estimate(FALSE_POS, (), dark.mean, dark.std_error),
        Estimate(FALSE_NEG, (), 1.0 - flipped.mean, flipped.std_error),
        _t1(dark, flipped, after, waited.wait_ns),
        _t2_star(shares),
        *_rabi(shares, flipped.mean - dark.mean),
    )


def _t1(dark: OnesShare, flipped: OnesShare, after: OnesShare, wait_ns: int) -> Estimate:
    """T1 from the ones that a wait leaves: (P(t) - P(dark)) / (P(0) - P(dark)) = exp(-t / T1)."""
    before, left = flipped.mean - dark.mean, after.mean - dark.mean
    if min(before, left) <= 0.0:
        return without_signal(T1, ())
    rate = 1e3 * math.log(before / left) / wait_ns
    parts = flipped.std_error / before, after.std_error / left
    more = dark.std_error * (1.0 / left - 1.0 / before)
    error = 1e3 * math.hypot(*parts, more) / wait_ns
    return Estimate(T1, (), 1.0 / rate if rate else math.inf, error, "inverse")


def _t2_star(shares: Shares) -> Estimate:
    """T2* as the time constant of an exponential through the contrasts of a Ramsey experiment; the
    logarithm of each has its contrast as its weight."""
    found: dict[int, dict[str, OnesShare]] = {}
    for each, share in shares.items():
        if each.name.startswith("ramsey"):
            found.setdefault(each.wait_ns, {})[each.name] = share
    waits, logs, contrasts, errors = [], [], [], []
    for wait_ns, pair in found.items():
        contrast = pair["ramsey +"].mean - pair["ramsey -"].mean
        error = math.hypot(pair["ramsey +"].std_error, pair["ramsey -"].std_error)
        if contrast > 2.0 * error:
            waits.append(1e-3 * wait_ns)
            logs.append(math.log(contrast))
            contrasts.append(contrast)
            errors.append(error / contrast)
    if len(waits) < DELAYS // 2:
        return without_signal(T2_STAR, ())
    design = np.stack([np.ones(len(waits)), -np.array(waits)], axis=1)
    scale = np.array(contrasts)
    inverse = np.linalg.pinv(design * scale[:, None]) * scale
    rate = float(inverse[1] @ np.array(logs))
    error = float(np.linalg.norm(inverse[1] * np.array(errors)))
    return Estimate(T2_STAR, (), 1.0 / rate if rate else math.inf, error, "inverse")


def _rabi(shares: Shares, first: float) -> tuple[Estimate, Estimate]:
    """Rabi frequency relative to that of the pulses, and the contrast of a late oscillation
    relative to the first half turn, from its two slopes and two extrema."""
    found = sorted((each.turns, share) for each, share in shares.items() if each.name == "rabi")
    turns = found[0][0] - 0.5
    rising, high, falling, low = (share for _, share in found)
    across = falling.mean - rising.mean
    along = high.mean - low.mean
    length = math.hypot(across, along)
    if length <= 0.0 or first <= 0.0:
        return without_signal(RABI_SCALE, ()), without_signal(RABI_CONTRAST, ())
    pulse = math.pi * (turns + 1.25)  # mean angle of the four
    error_across = math.hypot(falling.std_error, rising.std_error)
    error_along = math.hypot(high.std_error, low.std_error)
    angle = -math.atan2(across, along)
    angle_error = math.hypot(along * error_across, across * error_along) / length**2
    contrast_error = math.hypot(across * error_across, along * error_along) / length / first
    return (
        Estimate(RABI_SCALE, (), 1.0 + angle / pulse, angle_error / pulse),
        Estimate(RABI_CONTRAST, (), length / first, contrast_error),
    )
