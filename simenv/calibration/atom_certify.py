"""Certificates of devices of neutral atoms: measured quantities and those of a snapshot.

What a snapshot claims of an experiment follows from the optical Bloch equations of one atom, with
the mean over the draws of its noise by Gauss-Hermite quadrature: another method than the engine's
trajectories. The claimed quantities are the estimates from these shares of ones.
"""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.atoms import AnalogCalibration
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import atom_experiments as experiments
from simenv.calibration.atom_experiments import AtomExperiment, AtomShots, OnesShare
from simenv.calibration.certify import (
    CONFIDENCE,
    Certificate,
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

# Doppler shift of two counterpropagating lasers of rubidium 87: effective wave number in 1/um, and
# sqrt(k_B / m) in um/us for a temperature of 1 uK.
_WAVE_NUMBER = 8.7
_SPEED = math.sqrt(1.380649e-23 * 1e-6 / 1.45e-25)
_NODES = 11  # of a quadrature
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
_TIMES = experiments.T1, experiments.T2_STAR
_LONGEST_CLAIM_US = 1e9
_DIGITS = 9  # of samples in rad/us and distances in um
_Array = NDArray[np.complex128]


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
            task = client.submit(
                sequence, shots=shots, seed=seed + len(tasks), name="certify",
                options={"trajectories": shots}, **where,
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
    found = experiments.estimates({each: experiments.share_of(n) for each, n in counts.items()})
    claimed = claimed_values(plan, machine, claims)
    comparisons = compare(found, lambda each: claimed.get(each.quantity), CONFIDENCE)
    comparisons += [not_tested(each) for each in untested_figures(claims, claimed)]
    measured = ExperimentResults(found, (), RoughEstimates({}, {}, {}, {}, {}, ()), {})
    return Certificate(
        name, "" if claims is None else claims.digest.hex(), CONFIDENCE, tuple(comparisons),
        len(tasks), sum(each.shots for each in plan.experiments), time.perf_counter() - begun,
        measured, device_s,
    )  # fmt: skip


def claimed_values(
    plan: experiments.AtomPlan, machine: Any, claims: CalibrationSnapshot | None
) -> dict[str, float]:
    """Return the values that a snapshot claims, by quantity. What was not measured claims nothing,
    where no other figure changes the same quantity."""
    if claims is None or claims.analog is None:
        return {}
    analog = claims.analog
    shares = {
        each: expected_share(each, plan.channel, machine, analog) for each in plan.experiments
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
        experiments.RABI_CONTRAST: (analog.amplitude_sigma,),
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


def expected_share(
    experiment: AtomExperiment, channel: str, machine: Any, analog: AnalogCalibration
) -> OnesShare:
    """Return the share of ones of an experiment by a snapshot."""
    from pulser.sampler import sample

    sequence = experiments.sequence_of(experiment, channel, machine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of channels without a bandwidth
        samples = sample(sequence, modulation=True)
    drive = samples.to_nested_dict()["Global"]["ground-rydberg"]
    arrays = [np.asarray(drive[key], np.float64) for key in ("amp", "det", "phase")]
    # Only a beam of a finite waist tells atoms apart, by their distances from its axis.
    is_beam = analog.laser_waist_um is not None
    qubits = sequence.register.qubits.values()
    distances = np.abs([float(np.asarray(each)[0]) if is_beam else 0.0 for each in qubits])
    unique, atoms = np.unique(np.round(distances, _DIGITS), return_counts=True)
    ones = np.average([_excited(arrays, analog, float(each)) for each in unique], weights=atoms)
    prepared = float(ones) * (1.0 - (analog.state_prep_error or 0.0))
    false_pos, false_neg = analog.p_false_pos or 0.0, analog.p_false_neg or 0.0
    # Shares that follow from a snapshot have no errors; estimators divide by them.
    return OnesShare(false_pos + (1.0 - false_pos - false_neg) * prepared, 1e-9)


def _excited(
    arrays: list[NDArray[np.float64]], analog: AnalogCalibration, from_axis_um: float
) -> float:
    """Return the mean population of the Rydberg state at the end, over the draws of amplitude and
    detuning. Lasers propagate along y."""
    doppler = _WAVE_NUMBER * _SPEED * math.sqrt(analog.temperature_uk or 0.0)
    shifts, shift_weights = _draws(math.hypot(doppler, analog.detuning_sigma_rad_us or 0.0))
    scales, scale_weights = _draws(analog.amplitude_sigma or 0.0)
    waist = analog.laser_waist_um
    beam = 1.0 if waist is None else math.exp(-((from_axis_um / waist) ** 2))
    factors = beam * np.maximum(1.0 + scales, 0.0)
    draws = np.array(list(itertools.product(factors, shifts)))
    scaled, shifted = draws.T[:, :, None, None]
    weights = np.outer(scale_weights, shift_weights).ravel()
    decay = _dissipator(analog)
    states: _Array = np.zeros((len(draws), 4), np.complex128)
    states[:, 0] = 1.0
    for rabi, detuning, phase, duration_us in _segments(arrays):
        generators = scaled * _hamiltonian(rabi, 0.0, phase)
        generators = generators + (detuning + shifted) * _hamiltonian(0.0, 1.0, 0.0)
        steps = _exponentials((generators + decay) * duration_us)
        states = np.einsum("kij,kj->ki", steps, states)
    return float(weights @ states[:, 3].real)


def _draws(sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights of the mean over a normal distribution."""
    if not sigma:
        return np.zeros(1), np.ones(1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return sigma * nodes, weights / weights.sum()


def _segments(
    arrays: list[NDArray[np.float64]],
) -> list[tuple[float, float, float, float]]:
    """Return (Rabi frequency, detuning, phase, duration in us) of each run of equal samples, which
    are one nanosecond apart. Modulated pulses of a constant value have rounding errors."""
    rows = np.round(np.stack(arrays, axis=1), _DIGITS)
    changes = np.flatnonzero(np.any(rows[1:] != rows[:-1], axis=1)) + 1
    starts = [0, *changes.tolist()]
    ends = [*starts[1:], len(rows)]
    return [
        (*map(float, rows[first]), 1e-3 * (last - first))  # type: ignore[misc]
        for first, last in zip(starts, ends, strict=True)
    ]


_ONE = np.eye(2)
_RAISE = np.array([[0.0, 0.0], [1.0, 0.0]])  # |r><g|
_NUMBER = np.diag([0.0, 1.0])
_PAULIS = (
    np.array([[0, 1], [1, 0]], np.complex128),
    np.array([[0, -1j], [1j, 0]], np.complex128),
    np.diag([1.0 + 0j, -1.0]),
)


def _hamiltonian(rabi: float, detuning: float, phase: float) -> _Array:
    """Return the generator of the rotation, on a density matrix by rows: complex128 [4, 4]."""
    up = 0.5 * rabi * np.exp(-1j * phase) * _RAISE
    matrix = up + up.conj().T - detuning * _NUMBER
    return -1j * (np.kron(matrix, _ONE) - np.kron(_ONE, matrix.T))


def _dissipator(analog: AnalogCalibration) -> _Array:
    """Return the generator of relaxation, pure dephasing and depolarization: complex128 [4, 4]."""
    rate = analog.depolarizing_per_us or 0.0
    jumps = [math.sqrt(rate / 4.0) * pauli for pauli in _PAULIS]
    if analog.t1_us is not None:
        jumps.append(_RAISE.T / math.sqrt(analog.t1_us))
    if analog.t_phi_us is not None:
        jumps.append(_PAULIS[2] / math.sqrt(2.0 * analog.t_phi_us))
    total: _Array = np.zeros((4, 4), np.complex128)
    for jump in jumps:
        square = jump.conj().T @ jump
        total += np.kron(jump, jump.conj())
        total -= 0.5 * (np.kron(square, _ONE) + np.kron(_ONE, square.T))
    return total


def _exponentials(matrices: _Array) -> _Array:
    """Return the exponentials of matrices [k, 4, 4], by scaling and squaring of a Taylor series."""
    norm = float(np.abs(matrices).sum(axis=2).max())
    squarings = max(0, math.ceil(math.log2(norm)) + 3) if norm > 0.0 else 0
    small = matrices / 2.0**squarings
    result = term = np.broadcast_to(np.eye(4, dtype=np.complex128), small.shape).copy()
    for order in range(1, 12):  # norms of at most 1/8
        term = term @ small / order
        result = result + term
    for _ in range(squarings):
        result = result @ result
    return result


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
