"""Noise model of a calibration snapshot."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.build import gate_noise
from noise_models.channel import Channel, controlled_phase, from_paulis, relaxation, tensor
from noise_models.model import LocatedChannel
from noise_models.options import NoiseOptions
from noise_models.readout import Readout, ReadoutGroup
from noise_models.snapshot import CalibrationSnapshot, GateCalibration, QubitCalibration

_VERSION = b"simenv noise 1"  # of the recipes; a change gives every model a new digest
_MOST_CROSSTALK = 4096  # channels of a pair and a time that are held: 2 KiB each
_Gates = dict[tuple[str, tuple[int, ...]], GateCalibration]


class DeviceModel:
    """Noise of a device by the recipe `simenv`; see `NoiseModel` for the methods.

    Channels are computed when they are asked for the first time.
    """

    def __init__(self, snapshot: CalibrationSnapshot, options: NoiseOptions) -> None:
        self.snapshot = snapshot
        self.options = options
        self.num_qubits = snapshot.num_qubits
        self.dt_ns = snapshot.dt_ns
        self.feed_forward_ns = snapshot.feed_forward_ns
        missing = snapshot.num_qubits - len(snapshot.qubits)
        self._qubits = snapshot.qubits + (QubitCalibration(),) * missing
        self._gates: _Gates = {(gate.name, gate.qubits): gate for gate in snapshot.gates}
        self._after: dict[tuple[str, tuple[int, ...]], tuple[LocatedChannel, ...]] = {}
        self._idle: dict[tuple[int, float], Channel | None] = {}
        self._crosstalk: dict[tuple[int, int, float], Channel] = {}
        self._readout: Readout | None = None
        self._readout_made = False
        self._digest = b""
        rate = options.factor("gate.crosstalk") if options.idle else 0.0
        self._zz_khz = {
            (min(zz.qubits), max(zz.qubits)): zz.rate_khz * rate
            for zz in snapshot.zz
            if zz.rate_khz * rate != 0.0
        }
        self.crosstalk_pairs = tuple(sorted(self._zz_khz))

    @property
    def digest(self) -> bytes:
        """SHA-256 of the snapshot, the options and the version of the recipes."""
        if not self._digest:
            options = msgspec.json.encode(self.options.wire())
            self._digest = hashlib.sha256(_VERSION + self.snapshot.digest + options).digest()
        return self._digest

    @property
    def has_idle_noise(self) -> bool:
        """Does a qubit relax, or interact with a neighbour, while it waits?"""
        relaxes = any(_relaxes(qubit) for qubit in self.snapshot.qubits)
        waits = relaxes and self.options.factor("qubit.idle") > 0.0
        return self.options.idle and (waits or bool(self.crosstalk_pairs))

    def after_gate(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        """Over-rotation, depolarizing rest and relaxation of a gate, composed."""
        key = (name, qubits)
        result = self._after.get(key)
        if result is None:
            result = self._after[key] = self._compute(name, qubits)
        return result

    def idle(self, qubit: int, duration_ns: float) -> Channel | None:
        """Relaxation of a qubit that waits."""
        key = (qubit, duration_ns)
        if key not in self._idle:
            factor = self.options.factor("qubit.idle")
            self._idle[key] = self._relax(qubit, duration_ns * factor)
        return self._idle[key]

    def crosstalk(self, pair: tuple[int, int], duration_ns: float) -> Channel | None:
        """diag(1, 1, 1, exp(-2 pi i rate t)): the ZZ interaction in the frame in which a qubit's
        frequency is that with its neighbours in |0>."""
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

    def preparation(self, qubit: int) -> Channel | None:
        """X with the probability of |1> at the start of a circuit.

        It is the thermal population where no preparation error was measured.
        """
        return _flip(self.preparation_error(qubit) * self.options.factor("qubit.preparation"))

    def preparation_error(self, qubit: int) -> float:
        """Probability of |1> at the start, before the factor of `qubit.preparation`."""
        calibration = self._qubits[qubit]
        if calibration.preparation_error is not None:
            return calibration.preparation_error
        return self._excited(calibration)

    def after_reset(self, qubit: int) -> Channel | None:
        """X with the probability of |1> after a reset."""
        error = self._qubits[qubit].reset_error or 0.0
        return _flip(error * self.options.factor("qubit.reset"))

    def readout(self) -> Readout | None:
        """Confusion of all qubits; groups of qubits as far as they were measured."""
        if not self._readout_made:
            self._readout = self._compute_readout()
            self._readout_made = True
        return self._readout

    def duration_ns(self, name: str, qubits: tuple[int, ...]) -> float:
        """Calibrated duration of a gate, `measure` or `reset`."""
        gate = self.calibration(name, qubits)
        if gate is not None and gate.duration_ns is not None:
            return gate.duration_ns
        if name == "measure":
            return self._qubits[qubits[0]].readout_ns or 0.0
        if name == "reset":
            return self._qubits[qubits[0]].reset_ns or 0.0
        return 0.0

    def calibration(self, name: str, qubits: tuple[int, ...]) -> GateCalibration | None:
        """That of the qubits, of their reverse, or of the gate on all qubits."""
        gates = self._gates
        return gates.get((name, qubits)) or gates.get((name, qubits[::-1])) or gates.get((name, ()))

    def _compute(self, name: str, qubits: tuple[int, ...]) -> tuple[LocatedChannel, ...]:
        gate = self.calibration(name, qubits)
        if gate is None or len(qubits) > 2 or name in ("measure", "reset", "delay"):
            return ()
        if gate.qubits == qubits[::-1] != qubits:
            built = self._gate_channel(gate, gate.qubits)
            return located(qubits, None if built is None else built.reversed())
        return located(qubits, self._gate_channel(gate, qubits))

    def _gate_channel(self, gate: GateCalibration, qubits: tuple[int, ...]) -> Channel | None:
        """The rest of the error follows from the measured values; then every part is scaled."""
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
        """Depolarizing parameter of what is left of a gate's measured error, before the factor of
        `gate.depolarizing`."""
        return _rest(gate, len(qubits), product(*self._measured(gate, qubits)))

    def _measured(
        self, gate: GateCalibration, qubits: tuple[int, ...]
    ) -> tuple[Channel | None, Channel | None]:
        """Coherent error and relaxation of a gate as they were measured."""
        coherent = gate_noise.coherent_error(gate, len(qubits))
        return coherent, self._relax_all(qubits, gate.duration_ns or 0.0)

    def _relax_all(self, qubits: tuple[int, ...], duration_ns: float) -> Channel | None:
        """Relaxation of each qubit; None: none."""
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
    """Depolarizing parameter beside the `other` part of a gate's measured error."""
    infidelity = 0.0 if other is None else other.infidelity
    return gate_noise.depolarizing_rest(gate.error or 0.0, infidelity, size)


def located(qubits: tuple[int, ...], channel: Channel | None) -> tuple[LocatedChannel, ...]:
    if channel is None or channel.is_identity:
        return ()
    return (LocatedChannel(qubits, channel),)


def product(*channels: Channel | None) -> Channel | None:
    """Channels one after another; None does nothing."""
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
    """Confusion matrix of qubits that are read independently; the first one is bit 0."""
    result = np.ones((1, 1))
    for p01, p10 in flips:
        result = np.kron(np.array([[1.0 - p01, p10], [p01, 1.0 - p10]]), result)
    return result


def scaled_readout(
    measured: NDArray[np.float64],
    together: Sequence[tuple[tuple[int, ...], NDArray[np.float64]]],
    options: NoiseOptions,
) -> Readout | None:
    """Readout of measured p01 and p10, [qubits, 2], and of groups of qubits (numbers, confusion).

    A factor of `qubit.correlated_readout` below 1 mixes the confusion of a group with that of
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
    """1 + factor (C - 1), with the sum of the wrong outcomes of a column limited to 1."""
    wrong = confusion * factor
    np.fill_diagonal(wrong, 0.0)
    total = wrong.sum(axis=0)
    wrong /= np.maximum(total, 1.0)
    np.fill_diagonal(wrong, 1.0 - wrong.sum(axis=0))
    return wrong
