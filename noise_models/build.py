"""Noise models from calibration snapshots."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import calibration, channel as channels
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCrosstalk,
    QubitCalibration,
    is_named_measurement,
    leaked_infidelity,
)
from noise_models.layer_noise import noise_of_layer
from noise_models.model import UNDISTURBED, Disturbance, LayerNoise, LocatedChannel
from noise_models.options import NoiseOptions
from noise_models.strict_json import NoiseError

# Channels of one calibrated gate: coherent over-rotation, depolarizing rest, relaxation.
#
# The three act in this order. Their composition has the measured average gate infidelity e: F(R D
# V) = (1 - p) F(R V) + p / d for a depolarizing parameter p, so p = (F(R V) - (1 - e)) / (F(R V) -
# 1 / d). Where R V alone has an infidelity of e or more, p is 0 and the infidelity stays above e.
# (Horodecki et al., quant-ph/9807091; Qiskit Aer's device models.)

_X, _Y, _Z = 1, 2, 3
# Generators of one-qubit gates: Pauli numbers; X for all others.
_AXES = {
    "y": (_Y,), "ry": (_Y,), "sy": (_Y,), "sydg": (_Y,), "h": (_X, _Z),
    "z": (_Z,), "rz": (_Z,), "p": (_Z,), "u1": (_Z,),
    "s": (_Z,), "sdg": (_Z,), "t": (_Z,), "tdg": (_Z,),
}  # fmt: skip
# Generators of two-qubit gates: numbers 4 * second + first; ZZ for all others.
_ZX, _XX, _YY, _ZZ = 4 * _X + _Z, 4 * _X + _X, 4 * _Y + _Y, 4 * _Z + _Z
_PAIRS = {
    "cx": (_ZX,), "ecr": (_ZX,), "rzx": (_ZX,), "ch": (_ZX,), "cy": (4 * _Y + _Z,),
    "rxx": (_XX,), "ms": (_XX,), "xx": (_XX,), "ryy": (_YY,),
    "iswap": (_XX, _YY), "xx_plus_yy": (_XX, _YY), "siswap": (_XX, _YY),
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def _generator(name: str, num_qubits: int) -> NDArray[np.complex128]:
    """Return the Hermitian generator H of a gate's rotation, with tr H^2 = 2^n."""
    indices = _AXES.get(name, (_X,)) if num_qubits == 1 else _PAIRS.get(name, (_ZZ,))
    result = sum(channels.paulis(num_qubits)[number] for number in indices)
    return np.asarray(result / math.sqrt(len(indices)))


def over_rotation(name: str, num_qubits: int, angle_rad: float) -> channels.Channel:
    """Return the channel of exp(-i angle H / 2) for the generator H of a gate's rotation. For cx
    and ecr, control (Z) is the first and drive (X) the second qubit. The axis is X (one qubit) or
    ZZ (two qubits) if it depends on the gate's parameters."""
    values, vectors = np.linalg.eigh(_generator(name, num_qubits))
    phases = np.exp(-0.5j * angle_rad * values)
    return channels.from_unitary((vectors * phases) @ vectors.conj().T)


def coherent_error(
    gate: GateCalibration, num_qubits: int, factor: float = 1.0
) -> channels.Channel | None:
    """Return the over-rotation and then the other rotations of a gate, all angles multiplied by
    `factor`; None: no coherent error."""
    result: channels.Channel | None = None
    if gate.over_rotation_rad and factor:
        result = over_rotation(gate.name, num_qubits, gate.over_rotation_rad * factor)
    for each in gate.rotations if factor else ():
        built = pauli_rotation(each.pauli, each.angle_rad * factor)
        result = built if result is None else result.then(built)
    return result


def pauli_rotation(name: str, angle_rad: float) -> channels.Channel:
    """Return the channel of exp(-i angle P / 2); the first letter of the Pauli acts on the first
    qubit."""
    size = len(name)
    half = 0.5 * angle_rad
    pauli = channels.paulis(size)[channels.pauli_number(name)]
    matrix = math.cos(half) * np.eye(1 << size) - 1j * math.sin(half) * pauli
    return channels.from_unitary(matrix)


def depolarizing_rest(error: float, infidelity: float, num_qubits: int) -> float:
    """Return the depolarizing parameter p that raises an infidelity to the measured error. p is 0
    if the infidelity is not below the error. The error is limited to d / (d + 1), the infidelity of
    the lowest possible average fidelity."""
    side = 1 << num_qubits
    error = min(error, side / (side + 1))
    if error <= infidelity:
        return 0.0
    parameter = side * (error - infidelity) / (side * (1.0 - infidelity) - 1.0)
    return min(parameter, largest_parameter(num_qubits))


def largest_parameter(num_qubits: int) -> float:
    """Return the largest depolarizing parameter of a completely positive map: 4^n / (4^n - 1)."""
    size = 1 << 2 * num_qubits
    return size / (size - 1)


def depolarize(parameter: float, num_qubits: int) -> channels.Channel | None:
    """Return the depolarizing channel, its parameter limited to the largest one; None for 0."""
    if parameter <= 0.0:
        return None
    return channels.depolarizing(min(parameter, largest_parameter(num_qubits)), num_qubits)


# Noise model of a calibration snapshot.

_LEAST_KEPT = 1e-12  # part of a population that is left after a readout
_MOST_CHANNELS = 4096  # cached channels, one for each qubit or pair and duration: 2 KiB each
_Gates = dict[tuple[str, tuple[int, ...]], GateCalibration]


class DocumentModel(ABC):
    """Model of a document under noise options; see `NoiseModel` for the methods. Each channel is
    computed at its first use and cached."""

    VERSION: ClassVar[bytes]  # version of the construction, part of every digest
    layers: tuple[LayerNoise, ...] = ()

    def __init__(self, document: Any, options: NoiseOptions, relaxes: Iterable[bool]) -> None:
        """Set the common values. `document`: snapshot, or document of channels; `relaxes`: whether
        a qubit relaxes during idle time, for each."""
        self.options = options
        self.num_qubits = document.num_qubits
        self.dt_ns = document.dt_ns
        self.feed_forward_ns = document.feed_forward_ns
        self._document = document
        self._after: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}
        self._idle: dict[tuple[int, float], channels.Channel | None] = {}
        self._crosstalk: dict[tuple[int, int, float], channels.Channel] = {}
        factor = options.factor("gate.crosstalk") if options.idle else 0.0
        self._zz_khz = {
            pair: rate * factor
            for pair, rate in document.acting_zz_khz.items()
            if rate * factor != 0.0
        }
        self.crosstalk_pairs = tuple(sorted(self._zz_khz))
        waits = any(relaxes) and options.factor("qubit.idle") > 0.0
        waits |= any(map(self.detuning, range(self.num_qubits)))
        waits |= any(self._jump(qubit, 1.0) for qubit in range(self.num_qubits))
        # True if a qubit relaxes, is detuned or interacts with a neighbour, during idle time.
        self.has_idle_noise = options.idle and (waits or bool(self.crosstalk_pairs))

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the document, the options and the version of the construction."""
        options = msgspec.json.encode(self.options.wire())
        return hashlib.sha256(self.VERSION + self._document.digest + options).digest()

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels after a gate on these qubits, in the order they act."""
        key = (name, qubits)
        result = self._after.get(key)
        if result is None:
            result = self._after[key] = self._compute(name, qubits)
        return result

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the channels of `after_gate`: the document has no layers."""
        return self.after_gate(name, (qubit,))

    def idle(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of an idle qubit; None: no noise."""
        key = (qubit, duration_ns)
        if key not in self._idle:
            if len(self._idle) >= _MOST_CHANNELS:
                self._idle.clear()
            scaled_ns = duration_ns * self.options.factor("qubit.idle")
            jump = self._jump(qubit, duration_ns)
            self._idle[key] = product(self._relax(qubit, scaled_ns), jump)
        return self._idle[key]

    def during_readout(
        self,
        qubit: int,  # noqa: ARG002
        duration_ns: float,  # noqa: ARG002
    ) -> channels.Channel | None:
        """Return the relaxation of a measured qubit during a part of its readout; None: none."""
        return None

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> channels.Channel | None:
        """Return the channel of diag(1, 1, 1, exp(-2 pi i rate t)). This is the ZZ interaction in
        the frame in which a qubit's frequency is its frequency with all neighbours in |0>."""
        key = (*pair, duration_ns)
        result = self._crosstalk.get(key)
        if result is None:
            angle = 2e-6 * math.pi * self._zz_khz.get(pair, 0.0) * duration_ns
            if angle == 0.0:
                return None
            if len(self._crosstalk) >= _MOST_CHANNELS:
                self._crosstalk.clear()
            result = self._crosstalk[key] = channels.controlled_phase(-angle)
        return result

    def readout(self) -> channels.Readout | None:
        """Return the confusion of all qubits, and of each group with correlations."""
        return self._cached_readout

    @functools.cached_property
    def _cached_readout(self) -> channels.Readout | None:
        return self._compute_readout()

    def detuning(self, qubit: int) -> float:  # noqa: ARG002
        """Return 0.0: no detuning."""
        return 0.0

    def memory(self, qubit: int, layers: int) -> channels.Channel | None:  # noqa: ARG002
        """Return None: layers add no noise."""
        return None

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:  # noqa: ARG002
        """Return (): a measurement changes nothing else."""
        return ()

    disturbs = False

    def disturbance(self, qubit: int) -> Disturbance:  # noqa: ARG002
        """Return UNDISTURBED: a measurement acts on its own qubit."""
        return UNDISTURBED

    leaks = False

    def leakage(
        self,
        name: str,  # noqa: ARG002
        qubits: tuple[int, ...],  # noqa: ARG002
    ) -> tuple[float, float]:
        """Return (0.0, 0.0): no leakage."""
        return 0.0, 0.0

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:  # noqa: ARG002
        """Return (0.0, 0.0): no leakage."""
        return 0.0, 0.0

    def leaked_readout(self, qubit: int) -> float:  # noqa: ARG002
        """Return 1.0: as |1>."""
        return 1.0

    def before_decision(self, name: str, qubit: int) -> channels.Channel | None:  # noqa: ARG002
        """Return None: the outcome is decided at the beginning."""
        return None

    decides = False

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:  # noqa: ARG002
        """Return None: measurements inside a circuit have the confusion of others."""
        return None

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:  # noqa: ARG002
        """Return None: every measurement has the confusion of its qubit."""
        return None

    def _jump(self, qubit: int, duration_ns: float) -> channels.Channel | None:  # noqa: ARG002
        """Return None: T1 does not jump."""
        return None

    @abstractmethod
    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]: ...

    @abstractmethod
    def _relax(self, qubit: int, duration_ns: float) -> channels.Channel | None: ...

    @abstractmethod
    def _compute_readout(self) -> channels.Readout | None: ...


class DeviceModel(DocumentModel):
    """Noise of a device by the recipe `simenv`; see `NoiseModel` for the methods."""

    VERSION = b"simenv noise 7"

    def __init__(self, snapshot: CalibrationSnapshot, options: NoiseOptions) -> None:
        self.snapshot = snapshot
        missing = snapshot.num_qubits - len(snapshot.qubits)
        self._qubits = snapshot.qubits + (QubitCalibration(),) * missing
        self.has_jumps = any(each.t1_jumps for each in snapshot.qubits)
        share = options.factor("qubit.t1_jumps")
        self._jumps = tuple(each.jump_rate_per_us * share for each in self._qubits)
        self._detuning_factor = options.factor("qubit.quasistatic")
        self._leakage_factor = options.factor("gate.leakage")
        self.leaks = snapshot.leaks and self._leakage_factor > 0.0
        self._memory_factor = options.factor("qubit.memory") if options.idle else 0.0
        self._memory: dict[tuple[int, int], channels.Channel | None] = {}
        self._by_measurement: dict[tuple[str, int], tuple[LocatedChannel, ...]] = {}
        self._disturbed: dict[MeasurementCrosstalk, channels.Channel | None] = {}
        self._before: dict[tuple[str, int], channels.Channel | None] = {}
        self._disturbances: dict[int, Disturbance] = {}
        self._beside: dict[tuple[str, int], tuple[LocatedChannel, ...]] = {}
        super().__init__(
            snapshot,
            options,
            (
                _relaxes(each) or (self.leaks and each.leaked_t1_us is not None)
                for each in snapshot.qubits
            ),
        )
        self._terms: dict[int, dict[int, MeasurementCrosstalk]] = {}
        self._other_term: MeasurementCrosstalk | None = None
        for term in snapshot.measurement_crosstalk:
            if term.qubits:
                self._terms.setdefault(term.qubits[0], {})[term.qubits[1]] = term
            else:
                self._other_term = term
        self.disturbs = any(
            self._disturbed_by(each) is not None for each in snapshot.measurement_crosstalk
        )
        self._gates: _Gates = {(gate.name, gate.qubits): gate for gate in snapshot.gates}
        self._measurements = {(each.name, each.qubit): each for each in snapshot.measurements}
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

    def leakage(self, name: str, qubits: tuple[int, ...]) -> tuple[float, float]:
        """Return the calibrated leakage of a gate from |1>, times the factor of `gate.leakage`, and
        its seepage."""
        gate = self.calibration(name, qubits) if self.leaks else None
        if gate is None:
            return 0.0, 0.0
        leaks = gate.leaks_from_one(len(qubits)) * self._leakage_factor
        return min(leaks, 1.0), gate.seepage or 0.0

    def seepage(self, qubit: int, duration_ns: float) -> tuple[float, float]:
        """Return the populations of |1> and |0> after a decay from the third level: at its own rate
        to |1>, then as an idle qubit relaxes. The rates are times the factor of `qubit.idle`."""
        if not self.leaks or duration_ns <= 0.0:
            return 0.0, 0.0
        up, kept = _populations(self.idle(qubit, duration_ns))
        excited = up / (1.0 - kept) if kept < 1.0 else 0.0
        relaxed = -math.log(max(kept, 1e-300))  # g t of the rates g to |0>, and h t to |1>
        calibrated = self._qubits[qubit]
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
        value = self._qubits[qubit].leaked_readout
        return 1.0 if value is None else value

    def preparation(self, qubit: int) -> channels.Channel | None:
        """Return an X error with the probability of |1> at the start of a circuit. The probability
        is the thermal population if no preparation error was measured."""
        return _flip(self.preparation_error(qubit) * self.options.factor("qubit.preparation"))

    def preparation_error(self, qubit: int) -> float:
        """Return the probability of |1> at the start, before the factor of `qubit.preparation`."""
        calibration = self._qubits[qubit]
        if calibration.preparation_error is not None:
            return calibration.preparation_error
        return self._excited(calibration)

    def after_reset(self, qubit: int) -> channels.Channel | None:
        """Return an X error with the probability of |1> after a reset."""
        error = self._qubits[qubit].reset_error or 0.0
        return _flip(error * self.options.factor("qubit.reset"))

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the calibrated duration of a gate, a measurement or `reset`."""
        gate = self.calibration(name, qubits)
        if gate is not None and gate.duration_ns is not None:
            return gate.duration_ns
        if name == "measure" or is_named_measurement(name):
            own = self._measurements.get((name, qubits[0]))
            if own is not None and own.duration_ns is not None:
                return own.duration_ns
            return self._qubits[qubits[0]].readout_ns or 0.0
        if name == "reset":
            return self._qubits[qubits[0]].reset_ns or 0.0
        return 0.0

    def calibration(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """Return a gate's calibration: of these qubits, of their reverse, or of the gate on all
        qubits."""
        gates = self._gates
        return gates.get((name, qubits)) or gates.get((name, qubits[::-1])) or gates.get((name, ()))

    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the composition of over-rotation, depolarizing rest and relaxation of a gate."""
        if name == "measure" or is_named_measurement(name):
            duration = self.duration_ns(name, qubits) * (1.0 - self._decided(qubits[0]))
            relaxed = located(qubits, self.during_readout(qubits[0], duration))
            return self.by_measurement(name, qubits[0]) + relaxed
        gate = self.calibration(name, qubits)
        if gate is None or name in ("reset", "delay"):
            return ()
        if len(qubits) > 2:
            return self._wide(gate, qubits)
        if gate.qubits == qubits[::-1] != qubits:
            built = self._gate_channel(gate, gate.qubits)
            return located(qubits, None if built is None else built.reversed())
        return located(qubits, self._gate_channel(gate, qubits))

    def during_readout(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of a measured qubit during its readout. It acts on the state that
        the measurement leaves; the record has the calibrated confusion, which was measured with
        it."""
        relaxed = self._relax(qubit, duration_ns * self.options.factor("qubit.relaxation"))
        return product(relaxed, self._jump(qubit, duration_ns))

    def detuning(self, qubit: int) -> float:
        """Return the standard deviation of a qubit's detuning, times the factor of
        `qubit.quasistatic`."""
        return 1e-3 * self._qubits[qubit].detuning_rad_us * self._detuning_factor

    def memory(self, qubit: int, layers: int) -> channels.Channel | None:
        """Return the dephasing of a qubit by its memory error e in each layer: Z with probability
        1.5 e, whose average infidelity is e, times the factor of `qubit.memory`."""
        key = (qubit, layers)
        if key not in self._memory:
            if len(self._memory) >= _MOST_CHANNELS:
                self._memory.clear()
            error = (self._qubits[qubit].memory_error or 0.0) * self._memory_factor
            left = max(1.0 - 3.0 * error, 0.0) ** layers
            self._memory[key] = channels.dephasing(left) if error else None
        return self._memory[key]

    def by_measurement(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the transitions of a measured qubit that its relaxation does not explain."""
        key = (name, qubit)
        result = self._by_measurement.get(key)
        if result is None:
            result = located((qubit,), self._transition(name, qubit))
            self._by_measurement[key] = result
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

    def _decided(self, qubit: int) -> float:
        return self._qubits[qubit].readout_decided or 0.0

    def before_decision(self, name: str, qubit: int) -> channels.Channel | None:
        """Return the relaxation of the part of a readout that decides its outcome."""
        key = (name, qubit)
        if key not in self._before:
            duration = self.duration_ns(name, (qubit,)) * self._decided(qubit)
            scaled = duration * self.options.factor("qubit.relaxation")
            relaxed = self._relax(qubit, scaled)
            self._before[key] = product(relaxed, self._jump(qubit, duration))
        return self._before[key]

    @functools.cached_property
    def decides(self) -> bool:  # type: ignore[override]
        """True if a readout of any name is decided after a part of its relaxation."""
        probes = [("measure", q) for q in range(self.num_qubits) if self._decided(q)]
        probes += [each for each in self._measurements if self._decided(each[1])]
        return any(self.before_decision(*each) is not None for each in probes)

    def flips_inside(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return `confusion_at_decision`, times the factor of `qubit.readout`: 0 where relaxation
        alone has more."""
        found = self.confusion_at_decision(name, qubit)
        factor = self.options.factor("qubit.readout")
        if found is None:
            return None
        first, second = (min(max(p, 0.0) * factor, 1.0) for p in found)
        return first, second

    def confusion_at_decision(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return the confusion that makes up the calibrated one with the relaxation before the
        decision; below 0 where relaxation alone has more. None: the outcome is decided at the
        beginning, or relaxation is complete."""
        decided = self._decided(qubit) * self.duration_ns(name, (qubit,))
        relaxed = self._relax(qubit, decided)
        if relaxed is None or relaxed.ptm[3, 3] < _LEAST_KEPT:
            return None
        own = self._measurements.get((name, qubit))
        if own is not None and own.error is not None:
            p01 = p10 = own.error
        else:
            p01, p10 = self._qubits[qubit].confusion or (0.0, 0.0)
        up, kept = _populations(relaxed)
        contrast = (1.0 - p01 - p10) / kept  # P(1) of |1> less that of |0>, at the decision
        at_zero = p01 - contrast * up
        return float(at_zero), float(1.0 - contrast - at_zero)

    def _transition(self, name: str, qubit: int) -> channels.Channel | None:
        """Return `transitions`, times the factor of `qubit.measurement`. A qubit whose relaxation
        alone has more gets none."""
        found, factor = self.transitions(name, qubit), self.options.factor("qubit.measurement")
        if found is None or not factor:
            return None
        return channels.transitions(*(min(max(p, 0.0) * factor, 1.0) for p in found))

    def transitions(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return the probabilities of transitions up and down at the decision of a readout that
        make up the measured ones with the relaxation before and after it; below 0 where relaxation
        alone has more. None: none were measured, or relaxation is complete."""
        each = self._qubits[qubit]
        if each.measure_decay is None and each.measure_excitation is None:
            return None
        duration, decided = self.duration_ns(name, (qubit,)), self._decided(qubit)
        up, kept = _populations(self._relax(qubit, duration * decided))
        up_after, kept_after = _populations(self._relax(qubit, duration * (1.0 - decided)))
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

    def _disturbed_by(self, term: MeasurementCrosstalk) -> channels.Channel | None:
        """Return the dephasing with an average infidelity, and the rotation about Z, times the
        factor of `qubit.measurement_crosstalk`."""
        if term not in self._disturbed:
            factor = self.options.factor("qubit.measurement_crosstalk")
            error, angle = (term.error or 0.0) * factor, (term.angle_rad or 0.0) * factor
            result = channels.dephasing(max(1.0 - 3.0 * error, 0.0)) if error else None
            turned = pauli_rotation("Z", angle) if angle else None
            self._disturbed[term] = product(result, turned)
        return self._disturbed[term]

    def during_layer(self, name: str, qubit: int) -> tuple[LocatedChannel, ...]:
        """Return the coherent error and the depolarizing rest of a gate."""
        key = (name, qubit)
        if key not in self._beside:
            gate = self.calibration(name, (qubit,))
            channel = None if gate is None else product(*self._unrelaxed(gate, (qubit,)))
            self._beside[key] = located((qubit,), channel)
        return self._beside[key]

    def _wide(self, gate: GateCalibration, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Return the channels of a gate on more than two qubits: Pauli errors on pairs, and then
        the relaxation of each qubit. Their composition has the measured average gate fidelity."""
        duration, factor = gate.duration_ns or 0.0, self.options.factor
        measured = [
            product(self._relax(qubit, duration), self._detuned(qubit, duration))
            for qubit in qubits
        ]
        error = max(0.0, (gate.error or 0.0) - leaked_infidelity(gate, len(qubits)))
        error = pair_errors(error, measured) * factor("gate.depolarizing")
        flips = channels.from_paulis(_on_both(min(error, 1.0))) if error > 0.0 else None
        results = [
            part for pair in itertools.combinations(qubits, 2) for part in located(pair, flips)
        ]
        scaled = duration * factor("qubit.relaxation")
        for qubit in qubits:
            results += located((qubit,), self._relax(qubit, scaled))
            results += located((qubit,), self._jump(qubit, duration))
        return tuple(results)

    def _gate_channel(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> channels.Channel | None:
        """Compose the channel of a gate. The depolarizing rest follows from the measured values;
        the factors then scale each part."""
        duration = gate.duration_ns or 0.0
        full = self._relax_all(qubits, duration * self.options.factor("qubit.relaxation"))
        jumps = _together([self._jump(qubit, duration) for qubit in qubits])
        return product(*self._unrelaxed(gate, qubits), full, jumps)

    def _unrelaxed(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> tuple[channels.Channel | None, channels.Channel | None]:
        """Return the coherent error and the depolarizing rest of a gate, times their factors."""
        size, factor = len(qubits), self.options.factor
        coherent = coherent_error(gate, size, factor("gate.coherent"))
        return coherent, depolarize(self.rest(gate, qubits) * factor("gate.depolarizing"), size)

    def rest(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Return the depolarizing parameter of the rest of a gate's measured error. The rest is the
        error that coherent error, relaxation, detuning and leakage do not explain, before the
        factor of `gate.depolarizing`."""
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
        parts = [self._detuned(qubit, duration) for qubit in qubits]
        return product(*self._measured(gate, qubits), _together(parts))

    def _detuned(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return the mean channel of a qubit's detuning over a time (no factor); None: none."""
        angle = 1e-3 * self._qubits[qubit].detuning_rad_us * duration_ns
        if angle == 0.0:
            return None
        return channels.dephasing(math.exp(-0.5 * angle * angle))

    def _measured(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> tuple[channels.Channel | None, channels.Channel | None]:
        """Return the coherent error and the relaxation of a gate from the measured values (no
        factors)."""
        coherent = coherent_error(gate, len(qubits))
        return coherent, self._relax_all(qubits, gate.duration_ns or 0.0)

    def _relax_all(self, qubits: tuple[int, ...], duration_ns: float) -> channels.Channel | None:
        """Return the relaxation of all qubits of a gate; None: no relaxation."""
        return _together([self._relax(qubit, duration_ns) for qubit in qubits])

    def _jump(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        """Return what a jump of T1 adds to the relaxation over a time, times the factor of
        `qubit.t1_jumps`; None: nothing. No measured error contains it."""
        rate_per_us = self._jumps[qubit]
        if not rate_per_us or duration_ns <= 0.0:
            return None
        t1_us = 1.0 / rate_per_us
        return channels.relaxation(
            duration_ns, t1_us, 2.0 * t1_us, self._excited(self._qubits[qubit])
        )

    def _relax(self, qubit: int, duration_ns: float) -> channels.Channel | None:
        calibration = self._qubits[qubit]
        if duration_ns <= 0.0 or not _relaxes(calibration):
            return None
        t1_us = calibration.t1_us or math.inf
        t2_us = min(calibration.t2_us or math.inf, 2.0 * t1_us)
        return channels.relaxation(duration_ns, t1_us, t2_us, self._excited(calibration))

    def _excited(self, calibration: QubitCalibration) -> float:
        return min((calibration.excited or 0.0) * self.options.factor("qubit.thermal"), 1.0)

    def flips_of(self, name: str, qubit: int) -> tuple[float, float] | None:
        """Return p01 and p10 of a measurement with a name of its own."""
        own = self._measurements.get((name, qubit))
        if own is None or own.error is None:
            return None
        flip = min(own.error * self.options.factor("qubit.readout"), 1.0)
        return flip, flip

    def _compute_readout(self) -> channels.Readout | None:
        pairs = [qubit.confusion or (0.0, 0.0) for qubit in self._qubits]
        measured = np.array(pairs, np.float64).reshape(-1, 2)
        together = [
            (group.qubits, np.array(group.confusion, np.float64))
            for group in self.snapshot.correlated_readout
        ]
        return scaled_readout(measured, together, self.options)


def _populations(relaxed: channels.Channel | None) -> tuple[float, float]:
    """Return (u, k) of a relaxation that changes the population s of |1> to u + k s."""
    if relaxed is None:
        return 0.0, 1.0
    return 0.5 * float(1.0 - relaxed.ptm[3, 0] - relaxed.ptm[3, 3]), float(relaxed.ptm[3, 3])


def _together(parts: Sequence[channels.Channel | None]) -> channels.Channel | None:
    """Return the channel of one or two qubits that each have their own; None: none has one."""
    if all(each is None for each in parts):
        return None
    built = [each if each is not None else channels.Channel(np.eye(4)) for each in parts]
    return built[0] if len(built) == 1 else channels.tensor(built[0], built[1])


# Pauli errors of gates on more than two qubits.
#
# Channels act on two qubits at most. In place of the depolarizing channel of n qubits, each pair
# has one of the nine Paulis that act on both of its qubits with probability p in all. A Pauli on
# one qubit of a pair keeps the part g = 1 - 4 p / 3, one on both h = 1 - 8 p / 9; one on w of n
# qubits g^(w (n - w)) h^(w (w - 1) / 2). p gives the average gate fidelity of the depolarizing
# channel; populations after a gate on three qubits then agree with it to first order.


def _on_both(probability: float) -> NDArray[np.float64]:
    """Return probabilities of the 16 Paulis of a pair: `probability` on the nine that act on both
    of its qubits."""
    result = np.zeros((4, 4))
    result[1:, 1:] = probability / 9.0
    result[0, 0] = 1.0 - probability
    return result.ravel()


def pair_errors(error: float, relaxation: Sequence[channels.Channel | None]) -> float:
    """Return p of each pair of a gate whose average gate infidelity is `error` with the relaxation
    of its qubits; 0 if the relaxation alone has it."""
    size = len(relaxation)
    side = 1 << size
    # Sum of the diagonal of the relaxation's transfer matrix over Paulis on w qubits, for each w.
    sums = np.ones(1)
    for each in relaxation:
        diagonal = np.ones(4) if each is None else np.diag(each.ptm)
        sums = np.convolve(sums, (1.0, diagonal[1:].sum()))
    weights = np.arange(size + 1)

    def infidelity(p: float) -> float:
        single, both = 1.0 - 4.0 * p / 3.0, 1.0 - 8.0 * p / 9.0
        parts = single ** (weights * (size - weights)) * both ** (weights * (weights - 1) // 2)
        return float((side - (sums @ parts) / side) / (side + 1))

    low, high = 0.0, 0.75
    if error <= infidelity(low):
        return 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if infidelity(middle) < error else (low, middle)
    return low


def _relaxes(calibration: QubitCalibration) -> bool:
    return calibration.t1_us is not None or calibration.t2_us is not None


def located(
    qubits: tuple[int, ...], channel: channels.Channel | None
) -> tuple[LocatedChannel, ...]:
    if channel is None or channel.is_identity:
        return ()
    return (LocatedChannel(qubits, channel),)


def product(*parts: channels.Channel | None) -> channels.Channel | None:
    """Compose channels in the given order; None is the identity."""
    result: channels.Channel | None = None
    for each in parts:
        if each is not None:
            result = each if result is None else result.then(each)
    return result


def _flip(probability: float) -> channels.Channel | None:
    if probability <= 0.0:
        return None
    flip = min(probability, 1.0)
    return channels.from_paulis(np.array([1.0 - flip, flip, 0.0, 0.0]))


def independent_confusion(flips: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the confusion matrix of qubits that are read independently, with p01 and p10 [qubits,
    2]; the first one is bit 0."""
    result = np.ones((1, 1))
    for p01, p10 in flips:
        result = np.kron(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]), result)
    return result


def scaled_readout(
    measured: NDArray[np.float64],
    together: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]],
    options: NoiseOptions,
) -> channels.Readout | None:
    """Build the readout from measured flips and groups, with the factors of the options.
    `measured`: p01 and p10, [qubits, 2]. `together`: (qubit numbers, confusion) of each group. A
    factor of `qubit.correlated_readout` below 1 mixes the confusion of a group with that of
    independent qubits."""
    factor = options.factor("qubit.readout")
    share = min(options.factor("qubit.correlated_readout"), 1.0)
    flips = np.minimum(measured * factor, 1.0)
    groups = []
    for qubits, confusion in together if share > 0.0 and factor > 0.0 else ():
        apart = independent_confusion(measured[list(qubits)])
        mixed = scaled_confusion(share * confusion + (1.0 - share) * apart, factor)
        groups.append(channels.ReadoutGroup(qubits, mixed))
    result = channels.Readout(flips[:, 0].copy(), flips[:, 1].copy(), tuple(groups))
    return None if result.is_exact else result


def scaled_confusion(confusion: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return 1 + factor (C - 1), with the sum of the wrong outcomes of each column limited to 1."""
    wrong = confusion * factor
    np.fill_diagonal(wrong, 0.0)
    total = wrong.sum(axis=0)
    wrong /= np.maximum(total, 1.0)
    np.fill_diagonal(wrong, 1.0 - wrong.sum(axis=0))
    return wrong


# Noise model of Qiskit Aer's `NoiseModel.from_backend`, value by value (qiskit-aer 0.18).
#
# The recipe has depolarizing noise and then relaxation after every gate, and readout errors. It has
# no coherent errors, crosstalk, thermal population, preparation errors or reset errors. A reset
# relaxes its qubit for its duration. A calibrated gate with its qubits in another order has no
# noise. Idle noise is that of Aer's RelaxationNoisePass on the delays of a scheduled circuit.


class AerModel(DeviceModel):
    """Noise of a device by the recipes `aer` and `aer-properties`. Recipe `aer` reads 0 and 1
    wrongly with the same probability `readout_error`, as `from_backend` does; `aer-properties` has
    p01 and p10, as `from_backend_properties` does."""

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

    def calibration(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """Return the calibration of the gate on these qubits, or else of the gate on all qubits."""
        return self._gates.get((name, qubits)) or self._gates.get((name, ()))


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


_DEFAULT = NoiseOptions()
JUMPS = "qubit.t1_jumps"  # a part of T1 for Aer's recipe
# Components and values that Aer's recipe lacks.
NOT_AER = (
    *("gate.coherent", "gate.crosstalk", "gate.over_rotation_rad", "gate.zz_khz"),
    *("gate.zz_angle_rad", "gate.iz_angle_rad"),
    *("gate.leakage", "gate.leakage_1q", "gate.leakage_2q", "gate.seepage", "qubit.leaked_readout"),
    "qubit.leaked_t1_us",
    *("gate.zz_strength", "qubit.correlated_readout", "qubit.excited", "qubit.preparation"),
    *("qubit.memory", "qubit.memory_error", "qubit.measurement", "qubit.measure_decay"),
    *("qubit.measure_excitation", "qubit.measurement_crosstalk"),
    *("qubit.measurement_crosstalk_error", "qubit.readout_decided"),
    *("gate.layer", JUMPS),
    *("qubit.preparation_error", "qubit.quasistatic", "qubit.reset", "qubit.reset_error"),
    *("qubit.t2_star_us", "qubit.thermal"),
)


def build(snapshot: CalibrationSnapshot, options: NoiseOptions = _DEFAULT) -> DeviceModel:
    """Build the noise model of a snapshot. Raises NoiseError for options that the recipe cannot
    apply. Recipe `simenv` uses every component that the snapshot has. Recipes `aer` and
    `aer-properties` follow Qiskit Aer's device model; factor 0 of a component that it lacks changes
    nothing, and that of jumps changes T1."""
    if options.values:
        snapshot = _replaced(snapshot, dict(options.values))
    if options.recipe == "simenv":
        return DeviceModel(snapshot, options)
    scaled = (name for name, factor in options.factors if factor and name != JUMPS)
    for name in (*scaled, *dict(options.values)):
        if name in NOT_AER:
            hint = "Aer's device model has no such component; use the recipe simenv"
            raise NoiseError(f"noise option {name} with the recipe {options.recipe}", hint=hint)
    return AerModel(snapshot, options)


def _replaced(snapshot: CalibrationSnapshot, values: dict[str, float]) -> CalibrationSnapshot:
    """Return the snapshot with the given values set for all qubits, gates or pairs."""
    change = msgspec.structs.replace
    of_qubits = {
        name.removeprefix("qubit."): value
        for name, value in values.items()
        if name.startswith("qubit.") and name != _DISTURBED
    }
    qubits = snapshot.qubits or (QubitCalibration(),) * snapshot.num_qubits
    result = change(snapshot, qubits=tuple(change(qubit, **of_qubits) for qubit in qubits))
    if not of_qubits.keys().isdisjoint(("p01", "p10")):  # of every measurement
        same = tuple(change(each, error=None) for each in snapshot.measurements)
        result = change(result, measurements=same)
    if _DISTURBED in values:
        term = MeasurementCrosstalk((), values[_DISTURBED])
        result = change(result, measurement_crosstalk=(term,))
    if "gate.zz_khz" in values:
        result = change(result, zz=_coupled(snapshot, values["gate.zz_khz"]), zz_strength=1.0)
    if "gate.zz_strength" in values:
        result = change(result, zz_strength=values["gate.zz_strength"])
    of_gates = {name: value for name, value in values.items() if name in _OF_GATES}
    if of_gates:
        sizes = {gate.name: gate.num_qubits for gate in snapshot.native_gates}
        gates = tuple(_replaced_gate(gate, sizes, of_gates) for gate in snapshot.gates)
        if all(new is old for new, old in zip(gates, snapshot.gates, strict=True)):
            raise NoiseError(
                f"noise option {min(of_gates)}: device {snapshot.name} has no such gate with noise",
                hint="leave it out, or use a custom noise model",
            )
        result = change(result, gates=gates)
    if not _OF_LAYERS.isdisjoint(values):  # of every gate, whatever acts at the same time
        result = change(result, layers=())
    return result


_DISTURBED = "qubit.measurement_crosstalk_error"
_OF_GATES = (
    *("gate.error_1q", "gate.error_2q", "gate.over_rotation_rad"),
    *("gate.leakage_1q", "gate.leakage_2q", "gate.seepage"),
    *("gate.zz_angle_rad", "gate.iz_angle_rad"),
)
_OF_PAIRS = {"gate.zz_angle_rad": "ZZ", "gate.iz_angle_rad": "IZ"}
_OF_LAYERS = frozenset(("gate.error_2q", "gate.over_rotation_rad", *_OF_PAIRS))


def _coupled(snapshot: CalibrationSnapshot, rate_khz: float) -> tuple[calibration.ZZCoupling, ...]:
    """Return the same ZZ interaction for every coupled pair."""
    pairs = {(min(pair), max(pair)) for pair in snapshot.coupling}
    if snapshot.all_to_all:
        pairs |= set(itertools.combinations(range(snapshot.num_qubits), 2))
    return tuple(calibration.ZZCoupling(pair, rate_khz) for pair in sorted(pairs))


def _replaced_gate(
    gate: GateCalibration, sizes: dict[str, int], values: dict[str, float]
) -> GateCalibration:
    if not gate.error and not gate.duration_ns:
        return gate  # a virtual gate (change of frame): no noise
    size = len(gate.qubits) or sizes.get(gate.name, 0)
    changes: dict[str, Any] = {
        field: values[name]
        for field, name in (
            ("error", f"gate.error_{size}q"),
            ("over_rotation_rad", "gate.over_rotation_rad"),
            ("leakage", f"gate.leakage_{size}q"),
            ("seepage", "gate.seepage"),
        )
        if name in values
    }
    angles = {name: values[key] for key, name in _OF_PAIRS.items() if key in values}
    if size == 2 and angles:
        turns = [calibration.PauliRotation(*each) for each in angles.items() if each[1]]
        others = [each for each in gate.rotations if each.pauli not in angles]
        changes["rotations"] = (*others, *turns)
    return msgspec.structs.replace(gate, **changes) if changes else gate
