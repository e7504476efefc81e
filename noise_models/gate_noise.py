"""Noise of the calibrated gates of a device."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from noise_models import channel as channels
from noise_models.calibration import GateCalibration, leaked_infidelity
from noise_models.gate_errors import (
    coherent_error,
    depolarize,
    depolarizing_rest,
    errors_on_both,
    pair_errors,
    pauli_mixture,
)
from noise_models.model import LocatedChannel, located
from noise_models.options import NoiseOptions
from noise_models.qubit_noise import DeviceFigures, QubitNoise


class GateNoise:
    """Errors of the gates of a device: coherent, depolarizing or Pauli, relaxation, leakage."""

    def __init__(self, figures: DeviceFigures, qubits: QubitNoise, options: NoiseOptions) -> None:
        self._figures, self._qubits, self._factor = figures, qubits, options.factor

    def error_factor(self, qubits: tuple[int, ...]) -> float:
        """Return the factor of the depolarizing or Pauli error of a gate: that of `link.pair` for
        the gate that makes the pair of a link."""
        is_link = frozenset(qubits) in self._figures.linked
        return self._factor("link.pair" if is_link else "gate.depolarizing")

    def after(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the composition of over-rotation, depolarizing rest and relaxation of a gate."""
        gate = self._figures.gate(name, qubits)
        if gate is None:
            return ()
        if len(qubits) > 2:
            return self._wide(gate, qubits)
        if gate.qubits == qubits[::-1] != qubits:
            built = self._gate_channel(gate, gate.qubits)
            return located(qubits, None if built is None else built.reversed())
        return located(qubits, self._gate_channel(gate, qubits))

    def unrelaxed(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the coherent error and the depolarizing rest of a gate on one qubit."""
        gate = self._figures.gate(name, (qubit,))
        channel = None if gate is None else channels.product(*self._unrelaxed(gate, (qubit,)))
        return located((qubit,), channel)

    def leakage(self, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
        """Return the calibrated leakage of a gate from |1>, times the factor of `gate.leakage`, and
        its seepage."""
        gate = self._figures.gate(name, qubits)
        if gate is None:
            return 0.0, 0.0
        leaks = gate.leaks_from_one(len(qubits)) * self._factor("gate.leakage")
        return min(leaks, 1.0), gate.seepage or 0.0

    def _wide(self, gate: GateCalibration, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels of a gate on more than two qubits: Pauli errors on pairs, and then
        the relaxation of each qubit. Their composition has the measured average gate fidelity."""
        duration, factor = gate.duration_ns or 0.0, self._factor
        measured = [
            channels.product(
                self._qubits.relax(qubit, duration), self._qubits.detuned(qubit, duration)
            )
            for qubit in qubits
        ]
        error = max(0.0, (gate.error or 0.0) - leaked_infidelity(gate, len(qubits)))
        error = pair_errors(error, measured) * factor("gate.depolarizing")
        flips = channels.from_paulis(errors_on_both(min(error, 1.0))) if error > 0.0 else None
        results = [
            part for pair in itertools.combinations(qubits, 2) for part in located(pair, flips)
        ]
        scaled = duration * factor("qubit.relaxation")
        for qubit in qubits:
            results += located((qubit,), self._qubits.relax(qubit, scaled))
            results += located((qubit,), self._qubits.jump(qubit, duration))
        return tuple(results)

    def _gate_channel(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> channels.Channel | None:
        """Compose the channel of a gate. The depolarizing rest follows from the measured values;
        the factors then scale each part."""
        duration = gate.duration_ns or 0.0
        full = self._relax_all(qubits, duration * self._factor("qubit.relaxation"))
        jumps = _together([self._qubits.jump(qubit, duration) for qubit in qubits])
        return channels.product(*self._unrelaxed(gate, qubits), full, jumps)

    def _unrelaxed(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> tuple[channels.Channel | None, channels.Channel | None]:
        """Return the coherent error of a gate and the depolarizing rest, or its Pauli errors, times
        their factors."""
        size, factor = len(qubits), self.error_factor(qubits)
        coherent = coherent_error(gate, size, self._factor("gate.coherent"))
        if gate.paulis:
            return coherent, pauli_mixture(gate.paulis, size, factor)
        return coherent, depolarize(self.rest(gate, qubits) * factor, size)

    def rest(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Return the depolarizing parameter of the rest of a gate's measured error. The rest is the
        error that coherent error, relaxation, detuning and leakage do not explain, before the
        factor of `gate.depolarizing`; 0 of a gate with Pauli errors."""
        if gate.paulis:
            return 0.0
        error = max(0.0, (gate.error or 0.0) - leaked_infidelity(gate, len(qubits)))
        other = self._explained(gate, qubits)
        return depolarizing_rest(error, 0.0 if other is None else other.infidelity, len(qubits))

    def infidelity(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Return the average gate infidelity of a gate's coherent error, relaxation, detuning and
        leakage, before factors."""
        other = self._explained(gate, qubits)
        leaked = leaked_infidelity(gate, len(qubits))
        return leaked if other is None else leaked + other.infidelity

    def _explained(self, gate: GateCalibration, qubits: tuple[int, ...]) -> channels.Channel | None:
        """Return the composition of the parts of a gate's measured error that have values of their
        own. Of the detuning it is the mean over the shots, as in randomized benchmarking."""
        duration = gate.duration_ns or 0.0
        parts = [self._qubits.detuned(qubit, duration) for qubit in qubits]
        return channels.product(*self._measured(gate, qubits), _together(parts))

    def _measured(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> tuple[channels.Channel | None, channels.Channel | None]:
        """Return the coherent error and the relaxation of a gate from the measured values (no
        factors)."""
        coherent = coherent_error(gate, len(qubits))
        return coherent, self._relax_all(qubits, gate.duration_ns or 0.0)

    def _relax_all(self, qubits: tuple[int, ...], duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of all qubits of a gate; None: no relaxation."""
        return _together([self._qubits.relax(qubit, duration_ns) for qubit in qubits])


def _together(parts: Sequence[channels.Channel | None]) -> channels.Channel | None:
    """Return the channel of one or two qubits that each have their own; None: none has one."""
    if all(each is None for each in parts):
        return None
    built = [each if each is not None else channels.Channel(np.eye(4)) for each in parts]
    return built[0] if len(built) == 1 else channels.tensor(built[0], built[1])
