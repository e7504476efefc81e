"""Calibration of a neutral-atom device that runs pulse sequences: its machine and its noise.

The machine is the abstract representation of a device of pulser-core, stored as it is: limits of
registers, channels and durations. pulser is not imported here. The noise has the parameters of
pulser's NoiseModel in the units of this package; a parameter that is None was not measured, acts as
perfect, and is named by `uncalibrated`. All atoms are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from noise_models.options import NoiseOptions
from noise_models.strict_json import (
    UNIT,
    US,
    NoiseError,
    Range,
    SnapshotError,
    check_range,
    check_text,
    converted,
    known_names,
    short_repr,
)

MAX_DEVICE_BYTES = 2**18
MAX_DEPTH = 16
MAX_CHANNELS = 64
MAX_SOURCE = 300  # characters
DEFAULT_ATOMS = 256  # of a device that states no largest number
GROUPS = ("all", "atom")


class AnalogCalibration(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Machine and measured noise of a device of neutral atoms. The states of an atom are those of
    the channels in use: 1 is r, h or d."""

    device: dict[str, Any]  # abstract representation of a device of pulser-core
    state_prep_error: float | None = None  # probability that an atom is missing or in another state
    p_false_pos: float | None = None  # probability that 0 is read as 1
    p_false_neg: float | None = None  # probability that 1 is read as 0
    temperature_uk: float | None = None  # gives the Doppler shifts, and motion in the traps
    trap_waist_um: float | None = None
    trap_depth_uk: float | None = None
    amplitude_sigma: float | None = None  # relative, of the Rabi frequency from shot to shot
    laser_waist_um: float | None = None  # of the beams of global channels
    detuning_sigma_rad_us: float | None = None  # from shot to shot
    t1_us: float | None = None  # of the Rydberg state: its decay to the ground state
    t_phi_us: float | None = None  # of Rydberg coherence, beside T1 and what varies between shots
    hyperfine_t_phi_us: float | None = None  # of the states 0 and 1 of Raman channels
    depolarizing_per_us: float | None = None
    sources: dict[str, str] = {}  # of the values: name of a field -> publication or experiment

    @property
    def machine(self) -> AtomMachine:
        """The fields of `device` that simenv shows and checks."""
        return converted(self.device, AtomMachine)

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Titles of noise that was not measured. Traps act with a temperature alone, and the
        depolarizing rate is no physical figure: neither is named."""
        return lacking(self, NoiseOptions())


class AtomChannel(msgspec.Struct, frozen=True):
    """A channel of a machine. None: no limit. Rates are in rad/us, times in ns, the bandwidth of
    modulation in MHz."""

    id: str
    basis: str
    addressing: str
    max_amp: float | None = None
    max_abs_detuning: float | None = None
    min_duration: int = 1
    max_duration: int | None = None
    clock_period: int = 1
    max_targets: int | None = None
    mod_bandwidth: float | None = None


class AtomMachine(msgspec.Struct, frozen=True):
    """Limits of a machine, by their names in pulser; lengths in um, durations in ns."""

    name: str
    channels: tuple[AtomChannel, ...]
    dimensions: int = 2
    rydberg_level: int | None = None
    min_atom_distance: float = 0.0
    max_atom_num: int | None = None
    max_radial_distance: float | None = None
    max_runs: int | None = None
    max_sequence_duration: int | None = None
    requires_layout: bool = False
    dmm_objects: tuple[AtomChannel, ...] = ()  # maps of detunings
    is_virtual: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of noise. `component`: its factor in options of noise; `pulser`: argument of
    pulser's NoiseModel; `power`: a factor f multiplies the argument by f ** power."""

    name: str
    component: str
    pulser: str
    title: str
    unit: str = ""
    power: float = 1.0
    limits: Range = UNIT
    is_time: bool = False  # the argument is the rate 1 / time
    is_expected: bool = True

    @property
    def is_share(self) -> bool:
        """True for probabilities and relative deviations."""
        return self.limits == UNIT


_LENGTH: Range = (1e-3, 1e6)
PARAMETERS = (
    Parameter("state_prep_error", "atom.preparation", "state_prep_error",
              "Probability that an atom is not prepared"),
    Parameter("p_false_pos", "atom.detection", "p_false_pos", "Probability that 0 is read as 1"),
    Parameter("p_false_neg", "atom.detection", "p_false_neg", "Probability that 1 is read as 0"),
    Parameter("temperature_uk", "atom.temperature", "temperature", "Temperature", "uK",
              limits=(0.0, 1e6)),
    Parameter("trap_waist_um", "atom.temperature", "trap_waist", "Waist of the traps", "um", 0.0,
              _LENGTH, is_expected=False),
    Parameter("trap_depth_uk", "atom.temperature", "trap_depth", "Depth of the traps", "uK", 0.0,
              (1e-3, 1e9), is_expected=False),
    Parameter("amplitude_sigma", "atom.amplitude", "amp_sigma",
              "Relative deviation of the Rabi frequency between shots"),
    # Intensity falls as exp(-2 r^2 / w^2): the factor multiplies the exponent.
    Parameter("laser_waist_um", "atom.waist", "laser_waist", "Waist of the lasers", "um", -0.5,
              _LENGTH),
    Parameter("detuning_sigma_rad_us", "atom.detuning", "detuning_sigma",
              "Deviation of the detuning between shots", "rad/us", limits=(0.0, 1e6)),
    Parameter("t1_us", "atom.relaxation", "relaxation_rate", "T1 of the Rydberg state", "us",
              limits=US, is_time=True),
    Parameter("t_phi_us", "atom.dephasing", "dephasing_rate",
              "Time of pure dephasing of the Rydberg state", "us", limits=US, is_time=True),
    Parameter("hyperfine_t_phi_us", "atom.dephasing", "hyperfine_dephasing_rate",
              "Time of pure dephasing of hyperfine states", "us", limits=US, is_time=True,
              is_expected=False),
    Parameter("depolarizing_per_us", "atom.depolarizing", "depolarizing_rate",
              "Depolarizing rate", "1/us", limits=(0.0, 1e6), is_expected=False),
)  # fmt: skip
_BY_NAME = {f"atom.{each.name}": each for each in PARAMETERS}


def check_analog(analog: AnalogCalibration) -> None:
    """Raise SnapshotError for a machine that is too large or not of pulser's form, and for noise
    out of range."""
    _check_tree(analog.device)
    size = len(msgspec.json.encode(analog.device))
    if size > MAX_DEVICE_BYTES:
        hint = f"at most {MAX_DEVICE_BYTES}: fewer calibrated layouts"
        raise SnapshotError("analog.device", f"{size} bytes", hint=hint)
    try:
        machine = analog.machine
    except SnapshotError as error:
        field = f"analog.device.{error.field}"
        text = error.message.removeprefix(f"{error.field}: ")
        hint = "the abstract representation of a device of pulser-core: Device.to_abstract_repr()"
        raise SnapshotError(field, text, hint=hint) from None
    check_text("analog.device.name", machine.name)
    channels = (*machine.channels, *machine.dmm_objects)
    if not 1 <= len(channels) <= MAX_CHANNELS:
        text = f"{len(channels)} channels"
        raise SnapshotError("analog.device.channels", text, hint=f"1 to {MAX_CHANNELS}")
    for each in channels:
        for text in (each.id, each.basis, each.addressing):
            check_text("analog.device.channels", text)
    for parameter in PARAMETERS:
        value = getattr(analog, parameter.name)
        if value is not None:
            check_range(f"analog.{parameter.name}", value, parameter.limits)
    for name, source in analog.sources.items():
        if name not in AnalogCalibration.__struct_fields__:
            hint = known_names(name, AnalogCalibration.__struct_fields__)
            raise SnapshotError("analog.sources", short_repr(name), hint=hint)
        check_text(f"analog.sources.{name}", source, MAX_SOURCE)
    traps = analog.trap_waist_um, analog.trap_depth_uk
    if any(traps) and not all(traps):
        hint = "both, or neither"
        raise SnapshotError("analog", "one of trap_waist_um and trap_depth_uk alone", hint=hint)


def _check_tree(device: Any) -> None:
    """Raise SnapshotError for a tree that is nested too deeply, or has a number that is none."""
    stack = [(device, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > MAX_DEPTH:
            hint = f"at most {MAX_DEPTH} deep"
            raise SnapshotError("analog.device", "nested too deeply", hint=hint)
        if isinstance(value, dict):
            stack += [(each, depth + 1) for each in value.values()]
        elif isinstance(value, list | tuple):
            stack += [(each, depth + 1) for each in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise SnapshotError("analog.device", f"the number {short_repr(value)}")


def pulser_noise(analog: AnalogCalibration, options: NoiseOptions) -> dict[str, float]:
    """Return the arguments of pulser's NoiseModel, without those that leave no noise. Raises
    NoiseError for options that a device of atoms does not have."""
    check_options(options)
    results: dict[str, float] = {}
    for each in PARAMETERS:
        factor = options.factor(each.component)
        replaced = options.replaced(f"atom.{each.name}")
        value = getattr(analog, each.name) if replaced is None else replaced
        if value is None or not factor or (not value and each.power > 0.0):
            continue
        result = (1.0 / value if each.is_time else value) * factor**each.power
        results[each.pulser] = min(result, 1.0) if each.is_share else result
    traps = {"trap_waist", "trap_depth"}
    if "temperature" not in results or not traps <= results.keys():
        results = {name: value for name, value in results.items() if name not in traps}
    return results


def check_options(options: NoiseOptions) -> None:
    """Raise NoiseError for options of noise that a device of atoms does not have."""
    if options.recipe != "simenv" or not options.idle:
        text = f"recipe {options.recipe}" if options.idle else "noise option idle = False"
        raise NoiseError(f"{text} of a neutral-atom device", hint=f"factors: {_listed()}")
    check_names(name for name, _ in (*options.factors, *options.values))


def check_names(names: Iterable[str]) -> None:
    """Raise NoiseError for a factor or value that a device of atoms does not have, of 1 too."""
    for name in names:
        if name not in GROUPS and not name.startswith("atom."):
            text = f"noise option {name} of a neutral-atom device, which runs pulse sequences"
            raise NoiseError(text, hint=known_names(name, (*GROUPS, *COMPONENTS, *_BY_NAME)))


COMPONENTS = tuple(dict.fromkeys(each.component for each in PARAMETERS))


def _listed() -> str:
    return ", ".join((*GROUPS, *COMPONENTS))


def lacking(analog: AnalogCalibration, options: NoiseOptions) -> tuple[str, ...]:
    """Return the titles of noise that acts as perfect, as it was not measured and has no value."""
    return tuple(
        each.title
        for each in PARAMETERS
        if each.is_expected
        and getattr(analog, each.name) is None
        and options.replaced(f"atom.{each.name}") is None
    )


def limited(analog: AnalogCalibration, options: NoiseOptions) -> tuple[str, ...]:
    """Return a text for each factor that scales a value above its physical limit, and for each
    component or value that changes nothing."""
    results = []
    acting = pulser_noise(analog, options)
    for component, factor in options.factors:
        parts = [each for each in PARAMETERS if component in (each.component, *GROUPS)]
        if factor > 0.0 and not any(each.pulser in acting for each in parts):
            text = f"{component} * {factor:g} changes nothing: the calibration has no such noise"
            results.append(text)
    for each in PARAMETERS:
        factor = options.factor(each.component)
        value = options.replaced(f"atom.{each.name}")
        value = getattr(analog, each.name) if value is None else value
        if each.is_share and value is not None and value * factor > 1.0 + 1e-12:
            text = f"{each.component} * {factor:g} is above the physical limit for {each.name}"
            results.append(f"{text}; the limit acts there")
    return tuple(results)


def measured(analog: AnalogCalibration) -> Iterator[tuple[Parameter, float]]:
    """Iterate over the parameters that were measured, with their values."""
    for each in PARAMETERS:
        value = getattr(analog, each.name)
        if value is not None:
            yield each, value
