"""Noise model of a calibration snapshot."""

from __future__ import annotations

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.build import gate_noise
from noise_models.channel import Channel, controlled_phase, from_paulis, relaxation, tensor
from noise_models.model import LocatedChannel
from noise_models.options import NoiseOptions
from noise_models.readout import Readout, ReadoutGroup
from noise_models.snapshot import CalibrationSnapshot, GateCalibration, QubitCalibration

_MOST_CROSSTALK = 4096  # cached channels, one for each pair and duration: 2 KiB each
_Gates = dict[tuple[str, tuple[int, ...]], GateCalibration]


class DocumentModel(ABC):
    """Model of a document under noise options; see `NoiseModel` for the methods.

    Each channel is computed at its first use and cached.
    """

    VERSION: ClassVar[bytes]  # version of the construction, part of every digest

    def __init__(self, document: Any, options: NoiseOptions, relaxes: Iterable[bool]) -> None:
        """Set the common values. `document`: snapshot, or document of channels; `relaxes`: whether
        a qubit relaxes during idle time, for each."""
        self.options = options
        self.num_qubits = document.num_qubits
        self.dt_ns = document.dt_ns
        self.feed_forward_ns = document.feed_forward_ns
        self._document = document
        self._after: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}
        self._idle: dict[tuple[int, float], Channel | None] = {}
        self._crosstalk: dict[tuple[int, int, float], Channel] = {}
        factor = options.factor("gate.crosstalk") if options.idle else 0.0
        self._zz_khz = {
            pair: rate * factor
            for pair, rate in document.acting_zz_khz.items()
            if rate * factor != 0.0
        }
        self.crosstalk_pairs = tuple(sorted(self._zz_khz))
        waits = any(relaxes) and options.factor("qubit.idle") > 0.0
        # True if a qubit relaxes, or interacts with a neighbour, during idle time.
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

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        """Return the relaxation of an idle qubit; None: no noise."""
        key = (qubit, duration_ns)
        if key not in self._idle:
            scaled_ns = duration_ns * self.options.factor("qubit.idle")
            self._idle[key] = self._relax(qubit, scaled_ns)
        return self._idle[key]

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """Return the channel of diag(1, 1, 1, exp(-2 pi i rate t)).

        This is the ZZ interaction in the frame in which a qubit's frequency is its frequency with
        all neighbours in |0>.
        """
        key = (*pair, duration_ns)
        result = self._crosstalk.get(key)
        if result is None:
            angle = 2e-6 * math.pi * self._zz_khz.get(pair, 0.0) * duration_ns
            if angle == 0.0:
                return None
            if len(self._crosstalk) >= _MOST_CROSSTALK:
                self._crosstalk.clear()
            result = self._crosstalk[key] = controlled_phase(-angle)
        return result

    def readout(self) -> Readout | None:
        """Return the confusion of all qubits, and of each group with correlations."""
        return self._cached_readout

    @functools.cached_property
    def _cached_readout(self) -> Readout | None:
        return self._compute_readout()

    @abstractmethod
    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]: ...

    @abstractmethod
    def _relax(self, qubit: int, duration_ns: float) -> Channel | None: ...

    @abstractmethod
    def _compute_readout(self) -> Readout | None: ...


class DeviceModel(DocumentModel):
    """Noise of a device by the recipe `simenv`; see `NoiseModel` for the methods."""

    VERSION = b"simenv noise 2"

    def __init__(self, snapshot: CalibrationSnapshot, options: NoiseOptions) -> None:
        super().__init__(snapshot, options, map(_relaxes, snapshot.qubits))
        self.snapshot = snapshot
        missing = snapshot.num_qubits - len(snapshot.qubits)
        self._qubits = snapshot.qubits + (QubitCalibration(),) * missing
        self._gates: _Gates = {(gate.name, gate.qubits): gate for gate in snapshot.gates}

    def preparation(self, qubit: int) -> Channel | None:
        """Return an X error with the probability of |1> at the start of a circuit.

        The probability is the thermal population if no preparation error was measured.
        """
        return _flip(self.preparation_error(qubit) * self.options.factor("qubit.preparation"))

    def preparation_error(self, qubit: int) -> float:
        """Return the probability of |1> at the start, before the factor of `qubit.preparation`."""
        calibration = self._qubits[qubit]
        if calibration.preparation_error is not None:
            return calibration.preparation_error
        return self._excited(calibration)

    def after_reset(self, qubit: int) -> Channel | None:
        """Return an X error with the probability of |1> after a reset."""
        error = self._qubits[qubit].reset_error or 0.0
        return _flip(error * self.options.factor("qubit.reset"))

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Return the calibrated duration of a gate, `measure` or `reset`."""
        gate = self.calibration(name, qubits)
        if gate is not None and gate.duration_ns is not None:
            return gate.duration_ns
        if name == "measure":
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
        gate = self.calibration(name, qubits)
        if gate is None or len(qubits) > 2 or name in ("measure", "reset", "delay"):
            return ()
        if gate.qubits == qubits[::-1] != qubits:
            built = self._gate_channel(gate, gate.qubits)
            return located(qubits, None if built is None else built.reversed())
        return located(qubits, self._gate_channel(gate, qubits))

    def _gate_channel(self, gate: GateCalibration, qubits: tuple[int, ...]) -> Channel | None:
        """Compose the channel of a gate.

        The depolarizing rest follows from the measured values; the factors then scale each part.
        """
        size, factor = len(qubits), self.options.factor
        duration = gate.duration_ns or 0.0
        coherent, full = self._measured(gate, qubits)
        rest = _rest(gate, size, product(coherent, full))
        scale = factor("gate.coherent")
        if scale != 1.0:
            coherent = gate_noise.coherent_error(gate, size, scale)
        scale = factor("qubit.relaxation")
        if scale != 1.0:
            full = self._relax_all(qubits, duration * scale)
        depolarizing = gate_noise.depolarize(rest * factor("gate.depolarizing"), size)
        return product(coherent, depolarizing, full)

    def rest(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Return the depolarizing parameter of the rest of a gate's measured error.

        The rest is the error that coherent error and relaxation do not explain, before the factor
        of `gate.depolarizing`.
        """
        return _rest(gate, len(qubits), product(*self._measured(gate, qubits)))

    def infidelity(self, gate: GateCalibration, qubits: tuple[int, ...]) -> float:
        """Return the average gate infidelity of a gate's coherent error and relaxation, before
        factors."""
        other = product(*self._measured(gate, qubits))
        return 0.0 if other is None else other.infidelity

    def _measured(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> tuple[Channel | None, Channel | None]:
        """Return the coherent error and the relaxation of a gate from the measured values (no
        factors)."""
        coherent = gate_noise.coherent_error(gate, len(qubits))
        return coherent, self._relax_all(qubits, gate.duration_ns or 0.0)

    def _relax_all(self, qubits: tuple[int, ...], duration_ns: float) -> Channel | None:
        """Return the relaxation of all qubits of a gate; None: no relaxation."""
        results = [self._relax(qubit, duration_ns) for qubit in qubits]
        if all(each is None for each in results):
            return None
        built = [each if each is not None else Channel(np.eye(4)) for each in results]
        return built[0] if len(built) == 1 else tensor(built[0], built[1])

    def _relax(self, qubit: int, duration_ns: float) -> Channel | None:
        calibration = self._qubits[qubit]
        if duration_ns <= 0.0 or not _relaxes(calibration):
            return None
        t1_us = calibration.t1_us or math.inf
        t2_us = min(calibration.t2_us or math.inf, 2.0 * t1_us)
        return relaxation(duration_ns, t1_us, t2_us, self._excited(calibration))

    def _excited(self, calibration: QubitCalibration) -> float:
        return min((calibration.excited or 0.0) * self.options.factor("qubit.thermal"), 1.0)

    def _compute_readout(self) -> Readout | None:
        pairs = [qubit.confusion or (0.0, 0.0) for qubit in self._qubits]
        measured = np.array(pairs, np.float64).reshape(-1, 2)
        together = [
            (group.qubits, np.array(group.confusion, np.float64))
            for group in self.snapshot.correlated_readout
        ]
        return scaled_readout(measured, together, self.options)


def _relaxes(calibration: QubitCalibration) -> bool:
    return calibration.t1_us is not None or calibration.t2_us is not None


def _rest(gate: GateCalibration, size: int, other: Channel | None) -> float:
    """Return the depolarizing parameter of a gate's error without its `other` part."""
    infidelity = 0.0 if other is None else other.infidelity
    return gate_noise.depolarizing_rest(gate.error or 0.0, infidelity, size)


def located(qubits: tuple[int, ...], channel: Channel | None) -> tuple[LocatedChannel, ...]:
    if channel is None or channel.is_identity:
        return ()
    return (LocatedChannel(qubits, channel),)


def product(*channels: Channel | None) -> Channel | None:
    """Compose channels in the given order; None is the identity."""
    result: Channel | None = None
    for each in channels:
        if each is not None:
            result = each if result is None else result.then(each)
    return result


def _flip(probability: float) -> Channel | None:
    if probability <= 0.0:
        return None
    flip = min(probability, 1.0)
    return from_paulis(np.array([1.0 - flip, flip, 0.0, 0.0]))


def _independent(flips: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the confusion matrix of qubits that are read independently; the first one is bit 0."""
    result = np.ones((1, 1))
    for p01, p10 in flips:
        result = np.kron(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]), result)
    return result


def scaled_readout(
    measured: NDArray[np.float64],
    together: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]],
    options: NoiseOptions,
) -> Readout | None:
    """Build the readout from measured flips and groups, with the factors of the options.

    `measured`: p01 and p10, [qubits, 2]. `together`: (qubit numbers, confusion) of each group. A
    factor of `qubit.correlated_readout` below 1 mixes the confusion of a group with that of
    independent qubits.
    """
    factor = options.factor("qubit.readout")
    share = min(options.factor("qubit.correlated_readout"), 1.0)
    flips = np.minimum(measured * factor, 1.0)
    groups = []
    for qubits, confusion in together if share > 0.0 and factor > 0.0 else ():
        apart = _independent(measured[list(qubits)])
        mixed = scaled_confusion(share * confusion + (1.0 - share) * apart, factor)
        groups.append(ReadoutGroup(qubits, mixed))
    result = Readout(flips[:, 0].copy(), flips[:, 1].copy(), tuple(groups))
    return None if result.is_exact else result


def scaled_confusion(confusion: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return 1 + factor (C - 1), with the sum of the wrong outcomes of each column limited to 1."""
    wrong = confusion * factor
    np.fill_diagonal(wrong, 0.0)
    total = wrong.sum(axis=0)
    wrong /= np.maximum(total, 1.0)
    np.fill_diagonal(wrong, 1.0 - wrong.sum(axis=0))
    return wrong
