"""Calibrated figures of a device, and the noise of its qubits over times."""

from __future__ import annotations

import math
from collections.abc import Sequence

from noise_models import channel as channels
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    QubitCalibration,
    is_named_measurement,
)
from noise_models.link_waits import WaitPart, mean_kept
from noise_models.options import NoiseOptions


class DeviceFigures:
    """Calibrated figures of the operations of a device. `reversible`: the entry of a gate holds for
    its qubits in reverse order too."""

    def __init__(self, snapshot: CalibrationSnapshot, *, reversible: bool = True) -> None:
        missing = snapshot.num_qubits - len(snapshot.qubits)
        self.qubits = snapshot.qubits + (QubitCalibration(),) * missing
        self.measurements = {(each.name, each.qubit): each for each in snapshot.measurements}
        self.linked = snapshot.linked
        self._gates = {(gate.name, gate.qubits): gate for gate in snapshot.gates}
        self._reversible = reversible

    def gate(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """Return a gate's calibration: of these qubits, of their reverse, or of the gate on all
        qubits."""
        found = self._gates.get((name, qubits))
        if found is None and self._reversible:
            found = self._gates.get((name, qubits[::-1]))
        return found or self._gates.get((name, ()))

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the calibrated duration of a gate, a measurement or `reset`."""
        gate = self.gate(name, qubits)
        if gate is not None and gate.duration_ns is not None:
            return gate.duration_ns
        if name == "measure" or is_named_measurement(name):
            own = self.measurements.get((name, qubits[0]))
            if own is not None and own.duration_ns is not None:
                return own.duration_ns
            return self.qubits[qubits[0]].readout_ns or 0.0
        if name == "reset":
            return self.qubits[qubits[0]].reset_ns or 0.0
        return 0.0


class QubitNoise:
    """Relaxation and detuning of the qubits of a device over times."""

    def __init__(self, qubits: tuple[QubitCalibration, ...], options: NoiseOptions) -> None:
        self._qubits = qubits
        self._thermal = options.factor("qubit.thermal")
        share = options.factor("qubit.t1_jumps")
        self._jumps = tuple(each.jump_rate_per_us * share for each in qubits)

    def relax(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of a qubit over a time (no factor); None: none."""
        calibration = self._qubits[qubit]
        if duration_ns <= 0.0 or not relaxes(calibration):
            return None
        t1_us = calibration.t1_us or math.inf
        t2_us = min(calibration.t2_us or math.inf, 2.0 * t1_us)
        return channels.relaxation(duration_ns, t1_us, t2_us, self.excited(qubit))

    def jump(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return what a jump of T1 adds to the relaxation over a time, times the factor of
        `qubit.t1_jumps`; None: nothing. No measured error contains it."""
        rate_per_us = self._jumps[qubit]
        if not rate_per_us or duration_ns <= 0.0:
            return None
        t1_us = 1.0 / rate_per_us
        return channels.relaxation(duration_ns, t1_us, 2.0 * t1_us, self.excited(qubit))

    def await_links(
        self, qubit: int, parts: Sequence[WaitPart], factor: float
    ) -> channels.Channel | None:
        """Return the mean relaxation of a qubit over random waits, the rates of T1 and T2 times a
        factor and that of a jump as it is; None: none."""
        calibration, jump = self._qubits[qubit], 1e-3 * self._jumps[qubit]
        decay = dephasing = 0.0
        if factor and relaxes(calibration):
            t1_us = calibration.t1_us or math.inf
            decay = 1e-3 * factor / t1_us
            dephasing = 1e-3 * factor / min(calibration.t2_us or math.inf, 2.0 * t1_us)
        decay, dephasing = decay + jump, dephasing + 0.5 * jump
        if not (decay or dephasing):
            return None
        kept = mean_kept(parts, decay), mean_kept(parts, dephasing)
        return channels.relaxed(*kept, self.excited(qubit))

    def detuned(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the mean channel of a qubit's detuning over a time (no factor); None: none."""
        angle = 1e-3 * self._qubits[qubit].detuning_rad_us * duration_ns
        if angle == 0.0:
            return None
        return channels.dephasing(math.exp(-0.5 * angle * angle))

    def excited(self, qubit: int) -> float:
        """Return the thermal population of |1>, times the factor of `qubit.thermal`."""
        return min((self._qubits[qubit].excited or 0.0) * self._thermal, 1.0)


def relaxes(calibration: QubitCalibration) -> bool:
    """Return whether a relaxation time of a qubit is known."""
    return calibration.t1_us is not None or calibration.t2_us is not None


def populations(relaxed: channels.Channel | None) -> tuple[float, float]:
    """Return (u, k) of a relaxation that changes the population s of |1> to u + k s."""
    if relaxed is None:
        return 0.0, 1.0
    return 0.5 * float(1.0 - relaxed.ptm[3, 0] - relaxed.ptm[3, 3]), float(relaxed.ptm[3, 3])
