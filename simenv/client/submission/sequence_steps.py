"""What the number of steps of a pulse sequence depends on, for the forecast of its time.

The engine `rydberg` crosses a window of length h with an error of (rate h)^5, so that its windows
are as long as `rate` of this module lets them be, and end where the drive jumps. The form is that
of the commutators of a symmetric splitting (Strang, 1968) of the interaction, and of a drive that
changes (Magnus, 1954); its factors were fitted to 600 random sequences of all bases. Invariant:
these figures are for forecasts alone; no result depends on them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from simenv.model.pulses import MAX_RATE
from simenv.transpiler.atoms import errors_of_pulser

# Weights beside the interaction: of the Rabi frequency and of the detuning in the terms that
# multiply the commutator, of a drive that changes, and of pairs that do not commute (XY).
_RABI, _DETUNING, _CHANGE, _PAIRS = 2.6, 1.35, 5.7, 0.021
_LEAST_JUMP, _SUDDEN = 0.25, 8.0  # in rad/us, and times the changes beside: as the engine has them


class StepTerms(NamedTuple):
    """`rate_rad_us`: as a mean over time that gives the number of windows; `jumps`: of the drive.
    See `simulators.catalog.cards.pulse_steps`."""

    rate_rad_us: float
    jumps: int


def step_terms(built: Any, *, modulation: bool) -> StepTerms:
    """Return the terms of a pulser.Sequence without open variables. It is sampled: its length has
    to be within the limits."""
    import numpy as np
    from pulser.sampler import sample

    with errors_of_pulser("pulser cannot sample the sequence"):
        samples = sample(built, modulation=modulation)
    length = int(samples.max_duration)
    rabi, detuning, change = np.zeros(length), np.zeros(length), np.zeros(length)
    jumps = np.zeros(max(0, length - 1), bool)
    driven: set[Any] = set()
    for channel in samples.samples_list:
        drive = np.zeros(length, np.complex128)
        shift = np.zeros(length)
        drive[: channel.duration] = np.asarray(channel.amp) * np.exp(
            -1j * np.asarray(channel.phase)
        )
        shift[: channel.duration] = np.asarray(channel.det)
        rabi += np.abs(drive)
        detuning += np.abs(shift)
        sudden = np.zeros_like(jumps)
        for column in (drive.real, drive.imag, shift):
            sudden |= _jumps(column)
        jumps |= sudden
        slope = 1e3 * (np.abs(np.diff(drive)) + np.abs(np.diff(shift)))  # rad/us^2
        change[1:] += np.where(sudden, 0.0, slope)
        if np.any(drive):
            driven.update(*(slot.targets for slot in channel.slots))
    is_xy = "XY" in built.get_addressed_bases()
    pair = _interaction(built, driven, is_xy=is_xy)
    with np.errstate(all="ignore"):
        strength = pair + _RABI * rabi + _DETUNING * detuning
        fifth = (pair * rabi + _CHANGE * change) * strength**3 + _PAIRS * is_xy * pair**5
        mean = float(np.mean(fifth**0.25)) ** 0.8
    return StepTerms(_bounded(mean), int(jumps.sum()))


def evolutions(noise: Any, atoms: int, trajectories: int) -> int:
    """Return the expected number of evolutions: draws that are alike share one, as do all with
    errors of detection alone. `noise`: a pulser.NoiseModel; None: that of a device, or none."""
    if noise is None or set(noise.noise_types) != {"SPAM"}:
        return trajectories
    lacking: float = 1.0 - (1.0 - noise.state_prep_error) ** atoms
    return min(trajectories, 1 + math.ceil(lacking * trajectories))


def _bounded(value: float) -> float:
    """Return the value, at most MAX_RATE: atoms may be at one place."""
    return min(value, MAX_RATE) if value >= 0.0 else MAX_RATE  # NaN too


def _jumps(column: Any) -> Any:
    """Return where the changes of a column [T] are sudden: bool [T - 1]."""
    import numpy as np

    changes = np.abs(np.diff(column))
    beside = np.zeros_like(changes)
    beside[1:] = changes[:-1]
    beside[:-1] = np.maximum(beside[:-1], changes[1:])
    return (changes > _LEAST_JUMP) & (changes > _SUDDEN * beside)


def _interaction(built: Any, driven: set[Any], *, is_xy: bool) -> float:
    """Return the interaction in rad/us: of the closest pair that is driven, as only atoms in the
    state 1 interact, or in the basis XY the largest of an atom with all others."""
    import numpy as np

    if not is_xy and "ground-rydberg" not in built.get_addressed_bases():
        return 0.0
    device = built.device
    places = [
        np.asarray(place.as_array())
        for name, place in built.register.qubits.items()
        if is_xy or name in driven
    ]
    if len(places) < 2:
        return 0.0
    array = np.array(places)
    distances = np.linalg.norm(array[:, None] - array[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    with np.errstate(all="ignore"):
        if is_xy:
            found = (device.interaction_coeff_xy / distances**3).sum(axis=1).max()
        else:
            found = device.interaction_coeff / distances.min() ** 6
    return _bounded(float(found))
