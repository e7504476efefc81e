"""Certificates of devices of neutral atoms: measured quantities and those of a snapshot.

What a snapshot claims of an experiment follows from the optical Bloch equations of one atom
(`simenv.calibration.atom_model`). The claimed quantities are the estimates from these shares of
ones. Where a quantity is not as claimed, a fit of each figure by itself to all shares says which of
them can be the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from noise_models.atoms import PARAMETERS, AnalogCalibration
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import atom_experiments as experiments
from simenv.calibration.atom_experiments import AtomExperiment, AtomShots, Shares
from simenv.calibration.atom_model import as_read, drive_of, populations
from simenv.calibration.certify import (
    CONFIDENCE,
    Certificate,
    ClaimVerdict,
    FigureFit,
    compare,
    device_under_test,
    not_tested,
)
from simenv.calibration.experiments.estimators import Estimate
from simenv.calibration.experiments.procedure import ExperimentResults, RoughEstimates
from simenv.calibration.untested import UntestedTerm
from simenv.errors import OptionError
from simenv.transpiler.atoms import machine_of

if TYPE_CHECKING:
    from simenv.client.client import Client

# The quantity in which an experiment sees a figure of a snapshot; "": none does.
_SEEN_IN = {
    "p_false_pos": experiments.FALSE_POS,
    "p_false_neg": experiments.FALSE_NEG,
    "state_prep_error": experiments.FALSE_NEG,
    "amplitude_sigma": experiments.RABI_CONTRAST,
    "laser_waist_um": experiments.RABI_SCALE,
    "detuning_sigma_rad_us": experiments.T2_STAR,
    "temperature_uk": experiments.T2_STAR,
    "t_phi_us": experiments.T2_STAR,
    "t1_us": experiments.T1,
    "depolarizing_per_us": experiments.T1,
    "trap_waist_um": "",
    "trap_depth_uk": "",
    "hyperfine_t_phi_us": "",
}
_OF_READING = ("p_false_pos", "p_false_neg", "state_prep_error")
_TIMES = experiments.T1, experiments.T2_STAR
_LONGEST_CLAIM_US = 1e9
# Values about which a figure is searched that a snapshot does not have, or has as 0.
_TYPICAL = {
    "p_false_pos": 0.02, "p_false_neg": 0.05, "state_prep_error": 0.02, "amplitude_sigma": 0.03,
    "laser_waist_um": 100.0, "detuning_sigma_rad_us": 0.2, "temperature_uk": 20.0,
    "t_phi_us": 5.0, "t1_us": 50.0, "depolarizing_per_us": 0.02,
}  # fmt: skip
# Of a share, beside its statistics: atoms interact a little, and the model has one atom.
_MODEL_ERROR = 1e-3
_LEAST_P = 0.01  # of a fit that explains the counts
_ALIKE = 10.8  # difference of two chi-squares at 99.9 %: no figure is accused by chance
_ROUNDS = 3  # of a search, each of half the step


def certify(
    client: Client,
    name: str,
    claims: CalibrationSnapshot | None,
    *,
    seed: int = 0,
    effort: AtomShots | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Measure a device of neutral atoms and compare it with the claims; None: no comparison. Raises
    NotFoundError, OptionError, and SimenvError of failed tasks."""
    begun = time.perf_counter()
    info, where = device_under_test(client, name)
    if info.analog is None:
        raise OptionError(f"device {name[:64]!r} runs circuits", hint="simenv.calibration.certify")
    machine = machine_of(info.analog.device)
    plan = experiments.plan(machine, effort or AtomShots())
    tasks: list[tuple[AtomExperiment, Any]] = []
    for experiment in plan.experiments:
        sequence = experiments.sequence_of(experiment, plan.channel, machine)
        left = experiment.shots
        while left > 0:
            shots = min(left, info.max_shots)
            # Each shot has draws of its own, but where no pulse meets them.
            draws = shots if experiment.has_pulse else 1
            task = client.submit(
                sequence, shots=shots, seed=seed + len(tasks), name="certify",
                options={"trajectories": draws}, **where,
            )  # fmt: skip
            tasks.append((experiment, task))
            left -= shots
    counts: dict[AtomExperiment, dict[str, int]] = {each: {} for each in plan.experiments}
    device_s = 0.0
    for number, (experiment, task) in enumerate(tasks):
        progress(f"{experiment.name}, sequence {number + 1} of {len(tasks)}")
        totals = counts[experiment]
        for bits, count in task.result().counts.items():
            totals[bits] = totals.get(bits, 0) + count
        device_s += task.details.device_time_s or 0.0
    shares = {each: experiments.share_of(n) for each, n in counts.items()}
    found = experiments.estimates(shares)
    claimed = claimed_values(plan, machine, claims)
    comparisons = compare(found, lambda each: claimed.get(each.quantity), CONFIDENCE)
    comparisons += [not_tested(each) for each in untested_figures(claims, claimed)]
    outside = any(each.verdict is ClaimVerdict.OUTSIDE for each in comparisons)
    causes = None
    if outside and claims is not None and claims.analog is not None:
        progress("fits of each figure")
        causes = fitted_figures(plan, machine, claims.analog, shares)
    measured = ExperimentResults(found, (), RoughEstimates({}, {}, {}, {}, {}, ()), {})
    return Certificate(
        name, "" if claims is None else claims.digest.hex(), CONFIDENCE, tuple(comparisons),
        len(tasks), sum(each.shots for each in plan.experiments), time.perf_counter() - begun,
        measured, device_s, causes,
    )  # fmt: skip


def claimed_values(
    plan: experiments.AtomPlan, machine: Any, claims: CalibrationSnapshot | None
) -> dict[str, float]:
    """Return the values that a snapshot claims, by quantity. What was not measured claims nothing,
    where no other figure changes the same quantity."""
    if claims is None or claims.analog is None:
        return {}
    analog = claims.analog
    drives = [drive_of(each, plan.channel, machine) for each in plan.experiments]
    excited = populations(drives, analog)
    shares = {
        each: as_read(population, analog)
        for each, population in zip(plan.experiments, excited, strict=True)
    }
    found: dict[str, Estimate] = {each.quantity: each for each in experiments.estimates(shares)}
    every = analog.depolarizing_per_us  # which shortens both times
    causes: dict[str, tuple[float | None, ...]] = {
        experiments.FALSE_POS: (analog.p_false_pos,),
        experiments.FALSE_NEG: (analog.p_false_neg,),
        experiments.T1: (analog.t1_us, every),
        experiments.T2_STAR: (
            analog.t_phi_us, analog.detuning_sigma_rad_us, analog.temperature_uk, every,
        ),
        # What damps an oscillation; of the amplitude no other experiment knows.
        experiments.RABI_CONTRAST: (
            analog.amplitude_sigma, analog.laser_waist_um, analog.t1_us, analog.t_phi_us,
            analog.detuning_sigma_rad_us, analog.temperature_uk, every,
        ),
    }  # fmt: skip
    return {
        name: each.value
        for name, each in found.items()
        if each.has_signal
        and any(value is not None for value in causes.get(name, (0.0,)))
        # A time that is none but rounding errors, as of a dephasing of 0, claims nothing.
        and (name not in _TIMES or 0.0 < each.value < _LONGEST_CLAIM_US)
    }


def untested_figures(
    claims: CalibrationSnapshot | None, claimed: Collection[str]
) -> list[UntestedTerm]:
    """Return the figures of a snapshot that act, and that none of the claimed quantities has."""
    if claims is None or claims.analog is None:
        return []
    terms = []
    for name, quantity in _SEEN_IN.items():
        value = getattr(claims.analog, name)
        if not value or quantity in claimed:
            continue
        text = "no experiment of one atom on the Rydberg transition sees it"
        if quantity:
            text = f"it is seen in {quantity}, of which the snapshot has no value"
        terms.append(UntestedTerm("atom", name, (), value, text))
    return terms


def fitted_figures(
    plan: experiments.AtomPlan, machine: Any, claims: AnalogCalibration, shares: Shares
) -> tuple[FigureFit, ...]:
    """Fit each figure that experiments see to the measured shares, with the others as they are
    claimed; return those that explain the shares by themselves, the best first. Figures that act
    alike, as a temperature and a deviation of the detuning do, are told apart by no counts."""
    drives = [drive_of(each, plan.channel, machine) for each in shares]
    known: dict[tuple[float | None, ...], list[float]] = {}  # by what acts before the reading
    best = []
    for parameter in PARAMETERS:
        if not _SEEN_IN[parameter.name]:
            continue
        claimed = getattr(claims, parameter.name)
        scale, reach = (claimed, 2) if claimed else (_TYPICAL[parameter.name], 4)
        highest = parameter.limits[1]

        def distance(steps: float, name: str = parameter.name, of: float = scale,
                     most: float = highest) -> float:  # fmt: skip
            value = min(of * 2.0**steps, most)
            analog = msgspec.structs.replace(claims, **{name: value})
            figures = tuple(getattr(analog, each) for each in _SEEN_IN if each not in _OF_READING)
            if figures not in known:
                known[figures] = populations(drives, analog)
            return _distance(known[figures], analog, shares)

        steps, chi_square = _least(distance, [float(k) for k in range(-reach, reach + 1)])
        value = min(scale * 2.0**steps, highest)
        best.append(FigureFit(parameter.name, claimed, value, chi_square, len(shares) - 1))
    best.sort(key=lambda each: each.chi_square)
    most = best[0].chi_square + _ALIKE
    fits = (each for each in best if each.chi_square <= most)
    return tuple(each for each in fits if each.probability >= _LEAST_P)


def _distance(excited: Sequence[float], analog: AnalogCalibration, shares: Shares) -> float:
    """Return the chi-square of measured shares about those of a calibration."""
    total = 0.0
    for population, (each, share) in zip(excited, shares.items(), strict=True):
        error = math.hypot(share.std_error, _MODEL_ERROR if each.has_pulse else 0.0)
        total += ((share.mean - as_read(population, analog).mean) / error) ** 2
    return total


def _least(of: Callable[[float], float], points: Sequence[float]) -> tuple[float, float]:
    """Return the place and the value of the least of a function near its least on a grid."""
    found = {point: of(point) for point in points}
    step = points[1] - points[0]
    for _ in range(_ROUNDS):
        middle = min(found, key=found.__getitem__)
        step /= 2.0
        left, right = (found.setdefault(x, of(x)) for x in (middle - step, middle + step))
        curvature = left - 2.0 * found[middle] + right
        if curvature > 0.0:
            vertex = middle + 0.5 * step * (left - right) / curvature
            found[vertex] = of(vertex)
    place = min(found, key=found.__getitem__)
    return place, found[place]


def recovered(
    base: CalibrationSnapshot, found: tuple[Estimate, ...], name: str
) -> CalibrationSnapshot:
    """Return a snapshot with the figures that experiments measure by themselves: T1, and the ones
    that are read in the dark. Other figures are kept."""
    analog = base.analog
    assert analog is not None
    values = {each.quantity: each.value for each in found if each.has_signal}
    changes: dict[str, float] = {}
    if values.get(experiments.T1, 0.0) > 0.0 and math.isfinite(values[experiments.T1]):
        changes["t1_us"] = values[experiments.T1]
    if experiments.FALSE_POS in values:
        changes["p_false_pos"] = values[experiments.FALSE_POS]
    sources = {**analog.sources, **dict.fromkeys(changes, "simenv certify")}
    analog = msgspec.structs.replace(analog, sources=sources, **changes)
    return msgspec.structs.replace(base, name=name, analog=analog)
