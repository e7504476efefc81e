"""Noise models of calibration snapshots: of the recipe `simenv`, and of those of Qiskit Aer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import msgspec
import numpy as np

from noise_models import calibration, channel as channels
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    QubitCalibration,
    is_named_measurement,
)
from noise_models.document_model import MOST_CHANNELS, DocumentModel
from noise_models.gate_noise import GateNoise
from noise_models.layer_noise import noise_of_layer
from noise_models.link_waits import WaitPart
from noise_models.measurement_noise import MeasurementNoise
from noise_models.model import Disturbance, LayerNoise, LocatedChannel, located
from noise_models.network import network
from noise_models.options import NoiseOptions
from noise_models.qubit_noise import DeviceFigures, QubitNoise, populations, relaxes


class DeviceModel(DocumentModel):
    """Noise of a device by the recipe `simenv`; see `NoiseModel` for the methods."""

    VERSION = b"simenv noise 7"
    REVERSIBLE = True  # the entry of a gate holds for its qubits in reverse order too

    def __init__(self, snapshot: CalibrationSnapshot, options: NoiseOptions) -> None:
        self.snapshot = snapshot
        self.figures = DeviceFigures(snapshot, reversible=self.REVERSIBLE)
        self.qubits = QubitNoise(self.figures.qubits, options)
        self.gates = GateNoise(self.figures, self.qubits, options)
        self.measurements = MeasurementNoise(snapshot, self.figures, self.qubits, options)
        self.has_jumps = any(each.t1_jumps for each in snapshot.qubits)
        self.network = network(snapshot, self._awaiting)
        self.leaks = snapshot.leaks and options.factor("gate.leakage") > 0.0
        self._detuning_factor = options.factor("qubit.quasistatic")
        self._memory_factor = options.factor("qubit.memory") if options.idle else 0.0
        self._memory: dict[tuple[int, int], channels.Channel | None] = {}
        self._beside: dict[tuple[str, int], tuple[LocatedChannel, ...]] = {}
        super().__init__(
            snapshot,
            options,
            (
                relaxes(each) or (self.leaks and each.leaked_t1_us is not None)
                for each in snapshot.qubits
            ),
        )
        self.decides, self.disturbs = self.measurements.decides, self.measurements.disturbs
        if factor := options.factor("gate.layer"):
            self.layers = tuple(self._layer(each, factor) for each in snapshot.layers)

    def _layer(self, layer: calibration.LayerCalibration, factor: float) -> LayerNoise:
        """Return the noise of a layer; its rates contain relaxation, but not that of jumps."""
        result = noise_of_layer(layer, factor)
        duration = max(
            (self.duration_ns(each.name, each.qubits) for each in layer.gates), default=0
        )
        jumps = [located((qubit,), self._jump(qubit, duration)) for qubit in layer.qubits]
        return msgspec.structs.replace(
            result, channels=(*result.channels, *itertools.chain(*jumps))
        )

    def calibration(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """Return a gate's calibration, see `DeviceFigures.gate`."""
        return self.figures.gate(name, qubits)

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the calibrated duration of a gate, a measurement or `reset`."""
        return self.figures.duration_ns(name, qubits)

    def leakage(self, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
        """Return the calibrated leakage of a gate, see `GateNoise.leakage`."""
        return self.gates.leakage(name, qubits) if self.leaks else (0.0, 0.0)

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:
        """Return the populations of |1> and |0> after a decay from the third level: at its own rate
        to |1>, then as an idle qubit relaxes. The rates are times the factor of `qubit.idle`."""
        if not self.leaks or duration_ns <= 0.0:
            return 0.0, 0.0
        up, kept = populations(self.idle(qubit, duration_ns))
        excited = up / (1.0 - kept) if kept < 1.0 else 0.0
        relaxed = -math.log(max(kept, 1e-300))  # g t of the rates g to |0>, and h t to |1>
        calibrated = self.figures.qubits[qubit]
        if calibrated.leaked_t1_us is not None:
            own_us = calibrated.leaked_t1_us
            decayed = 1e-3 * duration_ns / own_us * self.options.factor("qubit.idle")
        elif self.snapshot.leaked_t1_us(calibrated) is None:
            return 0.0, 0.0
        else:
            decayed = 2.0 * relaxed  # with the relaxation of a jump
        apart = decayed - relaxed
        # h (e^(-g t) - e^(-h t)) / (h - g): neither in the third level nor relaxed
        between = -math.expm1(-apart) / apart if apart else 1.0
        first = decayed * math.exp(-relaxed) * between
        gone = -math.expm1(-decayed)
        one = min(first + excited * (gone - first), gone)
        return one, gone - one

    def leaked_readout(self, qubit: int) -> float:
        """Return the calibrated probability; 1.0 if there is none."""
        value = self.figures.qubits[qubit].leaked_readout
        return 1.0 if value is None else value

    def preparation(self, qubit: int) -> channels.Channel | None:
        """Return an X error with the probability of |1> at the start of a circuit. The probability
        is the thermal population if no preparation error was measured."""
        return _flip(self.preparation_error(qubit) * self.options.factor("qubit.preparation"))

    def preparation_error(self, qubit: int) -> float:
        """Return the probability of |1> at the start, before the factor of `qubit.preparation`."""
        error = self.figures.qubits[qubit].preparation_error
        return self.qubits.excited(qubit) if error is None else error

    def after_reset(self, qubit: int) -> channels.Channel | None:
        """Return an X error with the probability of |1> after a reset."""
        error = self.figures.qubits[qubit].reset_error or 0.0
        return _flip(error * self.options.factor("qubit.reset"))

    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels after a gate or measurement."""
        if name == "measure" or is_named_measurement(name):
            duration = self.duration_ns(name, qubits) * self.measurements.undecided(qubits[0])
            relaxed = located(qubits, self.during_readout(qubits[0], duration))
            return self.by_measurement(name, qubits[0]) + relaxed
        return () if name in ("reset", "delay") else self.gates.after(name, qubits)

    def during_readout(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of a measured qubit during its readout. It acts on the state that
        the measurement leaves; the record has the calibrated confusion, which was measured with
        it."""
        relaxed = self._relax(qubit, duration_ns * self.options.factor("qubit.relaxation"))
        return channels.product(relaxed, self._jump(qubit, duration_ns))

    def detuning(self, qubit: int) -> float:
        """Return the standard deviation of a qubit's detuning, times the factor of
        `qubit.quasistatic`."""
        return 1e-3 * self.figures.qubits[qubit].detuning_rad_us * self._detuning_factor

    def _awaiting(self, qubit: int, parts: Sequence[WaitPart]) -> channels.Channel | None:
        """Return the mean relaxation over random waits, times the factor of `link.wait` in place of
        that of `qubit.idle`."""
        return self.qubits.await_links(qubit, parts, self.options.factor("link.wait"))

    def memory(self, qubit: int, layers: int) -> channels.Channel | None:
        """Return the dephasing of a qubit by its memory error e in each layer: Z with probability
        1.5 e, whose average infidelity is e, times the factor of `qubit.memory`."""
        key = (qubit, layers)
        if key not in self._memory:
            if len(self._memory) >= MOST_CHANNELS:
                self._memory.clear()
            error = (self.figures.qubits[qubit].memory_error or 0.0) * self._memory_factor
            left = max(1.0 - 3.0 * error, 0.0) ** layers
            self._memory[key] = channels.dephasing(left) if error else None
        return self._memory[key]

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the transitions of a measured qubit that its relaxation does not explain."""
        return self.measurements.by_measurement(name, qubit)

    def disturbance(self, qubit: int) -> Disturbance:
        """Return the dephasing and rotation of other qubits by a measurement of this one."""
        return self.measurements.disturbance(qubit)

    def before_decision(self, name: str, qubit: int) -> channels.Channel | None:
        """Return the relaxation of the part of a readout that decides its outcome."""
        return self.measurements.before_decision(name, qubit)

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return the confusion at the decision, see `MeasurementNoise.flips_inside`."""
        return self.measurements.flips_inside(name, qubit)

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return p01 and p10 of a measurement with a name of its own."""
        return self.measurements.flips_of(name, qubit)

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the coherent error and the depolarizing rest of a gate."""
        key = (name, qubit)
        if key not in self._beside:
            self._beside[key] = self.gates.unrelaxed(name, qubit)
        return self._beside[key]

    def _jump(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        return self.qubits.jump(qubit, duration_ns)

    def _relax(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        return self.qubits.relax(qubit, duration_ns)

    def _compute_readout(self) -> channels.Readout | None:
        return self.measurements.readout()


def _flip(probability: float) -> channels.Channel | None:
    if probability <= 0.0:
        return None
    flip = min(probability, 1.0)
    return channels.from_paulis(np.array([1.0 - flip, flip, 0.0, 0.0]))


# Noise model of Qiskit Aer's `NoiseModel.from_backend`, value by value (qiskit-aer 0.18).
#
# The recipe has depolarizing noise and then relaxation after every gate, and readout errors. It has
# no coherent errors, crosstalk, thermal population, preparation errors or reset errors. A reset
# relaxes its qubit for its duration. A calibrated gate with its qubits in another order has no
# noise. Idle noise is that of Aer's RelaxationNoisePass on the delays of a scheduled circuit.

JUMPS = "qubit.t1_jumps"  # a part of T1 for Aer's recipe


class AerModel(DeviceModel):
    """Noise of a device by the recipes `aer` and `aer-properties`. Recipe `aer` reads 0 and 1
    wrongly with the same probability `readout_error`, as `from_backend` does; `aer-properties` has
    p01 and p10, as `from_backend_properties` does."""

    REVERSIBLE = False

    def __init__(self, snapshot: CalibrationSnapshot, options: NoiseOptions) -> None:
        # The factor of all, or of all of a qubit, scales the relaxation at the T1 of the jump.
        jumps = dict(options.factors).get(JUMPS, 1.0)
        is_symmetric = options.recipe == "aer"
        super().__init__(reduced(snapshot, symmetric=is_symmetric, jumps=jumps), options)
        self.has_jumps = any(each.t1_jumps for each in snapshot.qubits)

    def during_readout(
        self,
        qubit: int,  # noqa: ARG002
        duration_ns: float,  # noqa: ARG002
    ) -> channels.Channel | None:
        """None: the recipe has readout errors alone."""
        return None

    def after_reset(self, qubit: int) -> channels.Channel | None:
        """Relaxation over the duration of the reset."""
        duration = self.duration_ns("reset", (qubit,))
        return self._relax(qubit, duration * self.options.factor("qubit.relaxation"))


def reduced(
    snapshot: CalibrationSnapshot, *, symmetric: bool, jumps: float = 1.0
) -> CalibrationSnapshot:
    """Remove the values that Aer does not read from a snapshot. `symmetric`: 0 and 1 are read
    wrongly with the same probability. `jumps`: factor of what jumps add to 1/T1 now."""
    change = msgspec.structs.replace
    return change(
        snapshot,
        qubits=tuple(_qubit(qubit, symmetric, jumps) for qubit in snapshot.qubits),
        gates=tuple(
            change(gate, over_rotation_rad=None, rotations=(), leakage=None, seepage=None)
            if gate.over_rotation_rad is not None or gate.rotations or gate.leakage is not None
            else gate
            for gate in snapshot.gates
        ),
        zz=(),
        correlated_readout=(),
        measurement_crosstalk=(),
        layers=(),
    )


def _qubit(qubit: QubitCalibration, symmetric: bool, jumps: float) -> QubitCalibration:
    qubit = qubit.with_jump(jumps)
    p01, p10, mean = qubit.p01, qubit.p10, qubit.readout_error
    if symmetric:
        if mean is None and qubit.confusion is not None:
            mean = sum(qubit.confusion) / 2.0
        p01 = p10 = mean
    return msgspec.structs.replace(
        qubit, p01=p01, p10=p10, excited=None, preparation_error=None, reset_error=None,
        t2_star_us=None, memory_error=None, measure_decay=None, measure_excitation=None,
        readout_decided=None, t1_jumps=None,
    )  # fmt: skip
