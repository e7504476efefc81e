"""Energy of a state of atoms: the first two moments of the Hamiltonian at one time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunControl
from simulators.rydberg.drive import Drive, PulseProgram, Reals

Amplitudes = NDArray[np.complex128]


class EnergyMoments:
    """Moments of the Hamiltonian of a program, of which the present atoms alone are a part.

    Needs 24 bytes an amplitude beside the state."""

    def __init__(self, program: PulseProgram) -> None:
        self._program = program
        self._drives: dict[tuple[int, ...], tuple[PulseProgram, Drive]] = {}

    def of(
        self, state: Amplitudes, time_ns: float, lost: Sequence[int], control: RunControl
    ) -> tuple[float, float]:
        """Return <H> in rad/us and <H^2> of a normalised state [2**n]; `lost`: atoms that are
        lost. Raises Stopped."""
        key = tuple(sorted(lost))
        if key not in self._drives:
            rest = self._program.without(key)
            self._drives = {key: (rest, Drive(rest))}
        program, drive = self._drives[key]
        moved = _hamiltonian_times(program, drive, time_ns, state, control)
        return float(np.vdot(state, moved).real), float(np.vdot(moved, moved).real)


def _hamiltonian_times(
    program: PulseProgram, drive: Drive, time_ns: float, state: Amplitudes, control: RunControl
) -> Amplitudes:
    """H |state>."""
    rabi, detuning, unmasked = drive.at(time_ns)
    factors = np.where(program.masked_pairs, unmasked, 1.0)
    interaction, constant = program.interaction * factors, 0.0
    if program.constant == "detuning":
        constant = float(detuning.sum())
    elif program.constant == "interaction":
        constant = float(interaction.sum()) / 2
    energies = _diagonal(-detuning, interaction)
    energies += constant
    result: Amplitudes = energies * state
    del energies
    for atom in range(program.atoms):
        control.check()
        source = state.reshape(1 << atom, 2, -1)
        target = result.reshape(1 << atom, 2, -1)
        target[:, 0] += (rabi[atom] / 2) * source[:, 1]
        target[:, 1] += (np.conj(rabi[atom]) / 2) * source[:, 0]
    for j, k in zip(*np.nonzero(np.triu(program.exchange)), strict=True):
        control.check()
        shape = 1 << j, 2, 1 << (k - j - 1), 2, -1
        source, target = state.reshape(shape), result.reshape(shape)
        strength = program.exchange[j, k] * factors[j, k]
        target[:, 0, :, 1] += strength * source[:, 1, :, 0]
        target[:, 1, :, 0] += strength * source[:, 0, :, 1]
    return result


def _diagonal(single: Reals, pairs: Reals) -> Reals:
    """Energies [2**n] of atoms of the state 1, and of their pairs."""
    n = len(single)
    result = np.zeros(1)
    for atom in reversed(range(n)):
        own = np.full(1, single[atom])  # of this atom, over the states of those after it
        for other in reversed(range(atom + 1, n)):
            own = np.concatenate([own, own + pairs[atom, other]])
        result = np.concatenate([result, result + own])
    return result
