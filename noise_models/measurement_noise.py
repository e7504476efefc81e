"""Noise of the measurements of a device."""

from __future__ import annotations

import numpy as np

from noise_models import channel as channels
from noise_models.calibration import CalibrationSnapshot, MeasurementCrosstalk
from noise_models.confusion import scaled_readout
from noise_models.gate_errors import pauli_rotation
from noise_models.model import Disturbance, LocatedChannel, located
from noise_models.options import NoiseOptions
from noise_models.qubit_noise import DeviceFigures, QubitNoise, populations

_LEAST_KEPT = 1e-12  # part of a population that is left after a readout


class MeasurementNoise:
    """What measurements of a device do to their qubits and to others, and when outcomes are
    decided."""

    def __init__(
        self,
        snapshot: CalibrationSnapshot,
        figures: DeviceFigures,
        qubits: QubitNoise,
        options: NoiseOptions,
    ) -> None:
        self._snapshot, self._figures, self._qubits = snapshot, figures, qubits
        self._options, self._factor = options, options.factor
        self._after: dict[tuple[str, int], tuple[LocatedChannel, ...]] = {}
        self._before: dict[tuple[str, int], channels.Channel | None] = {}
        self._disturbed: dict[MeasurementCrosstalk, channels.Channel | None] = {}
        self._disturbances: dict[int, Disturbance] = {}
        self._terms: dict[int, dict[int, MeasurementCrosstalk]] = {}
        self._other_term: MeasurementCrosstalk | None = None
        for term in snapshot.measurement_crosstalk:
            if term.qubits:
                self._terms.setdefault(term.qubits[0], {})[term.qubits[1]] = term
            else:
                self._other_term = term

    @property
    def disturbs(self) -> bool:
        """True if a measurement acts on qubits other than its own."""
        terms = self._snapshot.measurement_crosstalk
        return any(self._disturbed_by(each) is not None for each in terms)

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the transitions of a measured qubit that its relaxation does not explain."""
        key = (name, qubit)
        result = self._after.get(key)
        if result is None:
            result = located((qubit,), self._transition(name, qubit))
            self._after[key] = result
        return result

    def disturbance(self, qubit: int) -> Disturbance:
        """Return the dephasing and rotation of other qubits by a measurement of this one."""
        result = self._disturbances.get(qubit)
        if result is None:
            terms = self._terms.get(qubit, {})
            result = self._disturbances[qubit] = Disturbance(
                {other: self._disturbed_by(term) for other, term in terms.items()},
                None if self._other_term is None else self._disturbed_by(self._other_term),
            )
        return result

    def _disturbed_by(self, term: MeasurementCrosstalk) -> channels.Channel | None:
        """Return the dephasing with an average infidelity, and the rotation about Z, times the
        factor of `qubit.measurement_crosstalk`."""
        if term not in self._disturbed:
            factor = self._factor("qubit.measurement_crosstalk")
            error, angle = (term.error or 0.0) * factor, (term.angle_rad or 0.0) * factor
            result = channels.dephasing(max(1.0 - 3.0 * error, 0.0)) if error else None
            turned = pauli_rotation("Z", angle) if angle else None
            self._disturbed[term] = channels.product(result, turned)
        return self._disturbed[term]

    def undecided(self, qubit: int) -> float:
        """Return the part of a readout after its outcome is decided."""
        return 1.0 - self._decided(qubit)

    def _decided(self, qubit: int) -> float:
        return self._figures.qubits[qubit].readout_decided or 0.0

    def before_decision(self, name: str, qubit: int) -> channels.Channel | None:
        """Return the relaxation of the part of a readout that decides its outcome."""
        key = (name, qubit)
        if key not in self._before:
            duration = self._figures.duration_ns(name, (qubit,)) * self._decided(qubit)
            scaled = duration * self._factor("qubit.relaxation")
            relaxed = self._qubits.relax(qubit, scaled)
            self._before[key] = channels.product(relaxed, self._qubits.jump(qubit, duration))
        return self._before[key]

    @property
    def decides(self) -> bool:
        """True if a readout of any name is decided after a part of its relaxation."""
        probes = [("measure", q) for q in range(len(self._figures.qubits)) if self._decided(q)]
        probes += [each for each in self._figures.measurements if self._decided(each[1])]
        return any(self.before_decision(*each) is not None for each in probes)

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return `confusion_at_decision`, times the factor of `qubit.readout`: 0 where relaxation
        alone has more."""
        found = self.confusion_at_decision(name, qubit)
        factor = self._factor("qubit.readout")
        if found is None:
            return None
        first, second = (min(max(p, 0.0) * factor, 1.0) for p in found)
        return first, second

    def confusion_at_decision(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return the confusion that makes up the calibrated one with the relaxation before the
        decision; below 0 where relaxation alone has more. None: the outcome is decided at the
        beginning, or relaxation is complete."""
        decided = self._decided(qubit) * self._figures.duration_ns(name, (qubit,))
        relaxed = self._qubits.relax(qubit, decided)
        if relaxed is None or relaxed.ptm[3, 3] < _LEAST_KEPT:
            return None
        own = self._figures.measurements.get((name, qubit))
        if own is not None and own.error is not None:
            p01 = p10 = own.error
        else:
            p01, p10 = self._figures.qubits[qubit].confusion or (0.0, 0.0)
        up, kept = populations(relaxed)
        contrast = (1.0 - p01 - p10) / kept  # P(1) of |1> less that of |0>, at the decision
        at_zero = p01 - contrast * up
        return float(at_zero), float(1.0 - contrast - at_zero)

    def _transition(self, name: str, qubit: int) -> channels.Channel | None:
        """Return `transitions`, times the factor of `qubit.measurement`. A qubit whose relaxation
        alone has more gets none."""
        found, factor = self.transitions(name, qubit), self._factor("qubit.measurement")
        if found is None or not factor:
            return None
        return channels.transitions(*(min(max(p, 0.0) * factor, 1.0) for p in found))

    def transitions(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return the probabilities of transitions up and down at the decision of a readout that
        make up the measured ones with the relaxation before and after it; below 0 where relaxation
        alone has more. None: none were measured, or relaxation is complete."""
        each = self._figures.qubits[qubit]
        if each.measure_decay is None and each.measure_excitation is None:
            return None
        duration, decided = self._figures.duration_ns(name, (qubit,)), self._decided(qubit)
        up, kept = populations(self._qubits.relax(qubit, duration * decided))
        up_after, kept_after = populations(self._qubits.relax(qubit, duration * (1.0 - decided)))
        if kept * kept_after < _LEAST_KEPT:
            return None  # relaxation is complete
        excited, decayed = each.measure_excitation, each.measure_decay
        relaxed = up_after + kept_after * up
        excited = relaxed if excited is None else excited
        decayed = 1.0 - kept * kept_after - relaxed if decayed is None else decayed
        left = (1.0 - decayed - excited) / (kept * kept_after)
        rise = (excited - up_after) / kept_after - left * up
        fall = 1.0 - left - rise
        return rise, fall

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return p01 and p10 of a measurement with a name of its own."""
        own = self._figures.measurements.get((name, qubit))
        if own is None or own.error is None:
            return None
        flip = min(own.error * self._factor("qubit.readout"), 1.0)
        return flip, flip

    def readout(self) -> channels.Readout | None:
        """Return the confusion of all qubits, and of each group with correlations; None: no
        error."""
        pairs = [qubit.confusion or (0.0, 0.0) for qubit in self._figures.qubits]
        measured = np.array(pairs, np.float64).reshape(-1, 2)
        together = [
            (group.qubits, np.array(group.confusion, np.float64))
            for group in self._snapshot.correlated_readout
        ]
        return scaled_readout(measured, together, self._options)
