"""Shares of ones that a calibration of neutral atoms predicts for an experiment.

The optical Bloch equations of one atom, with the mean over the draws of its noise by Gauss-Hermite
quadrature: another method than the engine's trajectories. Atoms are far apart; what is left of
their interaction is not in it.
"""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.atoms import AnalogCalibration
from simenv.calibration.atom_experiments import AtomExperiment, OnesShare, sequence_of

# Doppler shift of two counterpropagating lasers of rubidium 87: effective wave number in 1/um, and
# sqrt(k_B / m) in um/us for a temperature of 1 uK.
_WAVE_NUMBER = 8.7
_SPEED = math.sqrt(1.380649e-23 * 1e-6 / 1.45e-25)
_NODES = 11  # of a quadrature
_DIGITS = 9  # of samples in rad/us and distances in um
_Array = NDArray[np.complex128]


class AtomDrive(msgspec.Struct, frozen=True, eq=False):
    """What an experiment does to its atoms. `segments`: (Rabi frequency, detuning, phase, duration
    in us) one after the other; `distances`: of atoms from the axis of the beam in um, each with its
    number of atoms."""

    segments: tuple[tuple[float, float, float, float], ...]
    distances: tuple[tuple[float, int], ...]


def drive_of(experiment: AtomExperiment, channel: str, machine: Any) -> AtomDrive:
    """Return the pulses of an experiment as a machine of pulser makes them."""
    from pulser.sampler import sample

    sequence = sequence_of(experiment, channel, machine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of channels without a bandwidth
        samples = sample(sequence, modulation=True)
    drive = samples.to_nested_dict()["Global"]["ground-rydberg"]
    arrays = [np.asarray(drive[key], np.float64) for key in ("amp", "det", "phase")]
    places = [float(np.asarray(each)[0]) for each in sequence.register.qubits.values()]
    unique, atoms = np.unique(np.round(np.abs(places), _DIGITS), return_counts=True)
    distances = tuple(zip(unique.tolist(), atoms.tolist(), strict=True))
    return AtomDrive(tuple(_segments(arrays)), distances)


def expected_share(drive: AtomDrive, analog: AnalogCalibration) -> OnesShare:
    """Return the share of ones of an experiment by a calibration."""
    return as_read(populations([drive], analog)[0], analog)


def as_read(population: float, analog: AnalogCalibration) -> OnesShare:
    """Return the share of ones that are read of atoms with this mean population of the Rydberg
    state, if all were prepared."""
    prepared = population * (1.0 - (analog.state_prep_error or 0.0))
    false_pos, false_neg = analog.p_false_pos or 0.0, analog.p_false_neg or 0.0
    # Shares that follow from a snapshot have no errors; estimators divide by them.
    return OnesShare(false_pos + (1.0 - false_pos - false_neg) * prepared, 1e-9)


def populations(drives: Sequence[AtomDrive], analog: AnalogCalibration) -> list[float]:
    """Return the mean population of the Rydberg state after each experiment, over its atoms and
    the draws of amplitude and detuning, of atoms that are all prepared. Lasers propagate along
    y."""
    doppler = _WAVE_NUMBER * _SPEED * math.sqrt(analog.temperature_uk or 0.0)
    shifts, shift_weights = _draws(math.hypot(doppler, analog.detuning_sigma_rad_us or 0.0))
    scales, scale_weights = _draws(analog.amplitude_sigma or 0.0)
    factors = np.maximum(1.0 + scales, 0.0)
    draws = np.array(list(itertools.product(factors, shifts)))
    weights = np.outer(scale_weights, shift_weights).ravel()
    decay, waist = _dissipator(analog), analog.laser_waist_um

    # Experiments have pulses in common.
    @functools.cache
    def step(rabi: float, detuning: float, phase: float, duration_us: float, beam: float) -> _Array:
        scaled, shifted = draws.T[:, :, None, None]
        drive = beam * rabi * (math.cos(phase) * _ABOUT_X + math.sin(phase) * _ABOUT_Y)
        generators = scaled * drive + (detuning + shifted) * _DETUNED + decay
        return _exponentials(generators * duration_us)

    def excited(drive: AtomDrive, from_axis_um: float) -> float:
        beam = 1.0 if waist is None else math.exp(-((from_axis_um / waist) ** 2))
        states: _Array = np.zeros((len(draws), 4), np.complex128)
        states[:, 0] = 1.0
        for segment in drive.segments:
            states = np.einsum("kij,kj->ki", step(*segment, beam), states)
        return float(weights @ states[:, 3].real)

    results = []
    for drive in drives:
        # Only a beam of a finite waist tells atoms apart.
        distances = ((0.0, 1),) if waist is None else drive.distances
        ones = [excited(drive, distance) for distance, _ in distances]
        results.append(float(np.average(ones, weights=[atoms for _, atoms in distances])))
    return results


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
_PAULIS = (
    np.array([[0, 1], [1, 0]], np.complex128),
    np.array([[0, -1j], [1j, 0]], np.complex128),
    np.diag([1.0 + 0j, -1.0]),
)


def _commutator(matrix: _Array) -> _Array:
    """Return the generator of a Hamiltonian's rotation, on a density matrix by rows: complex128
    [4, 4]."""
    return -1j * (np.kron(matrix, _ONE) - np.kron(_ONE, matrix.T))


# Of a Rabi frequency of 1 with the phases 0 and pi / 2, and of a detuning of 1.
_ABOUT_X = _commutator(0.5 * _PAULIS[0])
_ABOUT_Y = _commutator(-0.5 * _PAULIS[1])
_DETUNED = _commutator(np.diag([0.0, -1.0 + 0j]))


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
