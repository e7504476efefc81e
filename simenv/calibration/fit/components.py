"""Components of a device's noise that a fit changes, and snapshots with fitted components.

A component is the logarithm of a factor on a calibrated value, an angle in radians, or the change
of a factor:

    relaxation, q   factor of 1/T1
    dephasing, q    factor of 1/T2 - 1/(2 T1)
    error, qubits   factor of the depolarizing parameter of all gates on these qubits
    p01, q; p10, q  factors of the readout error
    P, gate         angle of the rotation exp(-i angle P / 2) after a gate on two qubits
    zz, pair        change of the factor of the ZZ rate of two idle qubits
    quasistatic     factor of the detunings of all qubits that are constant during a shot
    asymmetry       change of the factor of p10 - p01 of all qubits, whose means stay
    p01+; p10+      probability that is added to the readout error of all qubits
    joint, pair     probability that the records of two qubits are both flipped
    uniform         part of the records that are uniform; of no device, to test counts for it

A pooled component has no qubits: it acts on all qubits, or on all gates on one or on two of them
(`error 1`, `error 2`).

`DeviceChannels` and `Setting` give the channels of a device with their derivatives. The channel of
a gate is R D V: rotations V, depolarizing D, relaxation R, as in `noise_models.build`. Detunings
that are constant during a shot are no channels: a fit changes T1 and T2 around them, and T2*
follows. All
components at 0 give the calibrated device, apart from the least values that a factor can act on
(`_LEAST`).

`fitted_snapshot` makes a calibration snapshot with fitted components in place of calibrated values,
`homogeneous` one with the median of each value.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models import calibration as snapshots
from noise_models.channel import Channel, pauli_number, paulis
from noise_models.confusion import independent_confusion
from noise_models.device_model import DeviceModel
from noise_models.gate_errors import largest_parameter, over_rotation
from noise_models.options import NoiseOptions
from simenv.model.availability import BROKEN, Availability
from simenv.service.devices.registry import device_info
from simulators.transfer.evaluate import Detuning, JointFlip, UniformPart
from simulators.transfer.evolution import DualMatrix, constant

RELAXATION, DEPHASING, ERROR, P01, P10 = "relaxation", "dephasing", "error", "p01", "p10"
ZZ, ASYMMETRY, QUASISTATIC, JOINT = "zz", "asymmetry", "quasistatic", "joint"
UNIFORM = "uniform"
ADDED = {P01: f"{P01}+", P10: f"{P10}+"}
CHANGES = (
    ZZ,
    ASYMMETRY,
    JOINT,
    UNIFORM,
    *ADDED.values(),
)  # kinds that are a change, not a factor's logarithm
READ = (P01, P10, ASYMMETRY, JOINT, *ADDED.values())  # kinds of errors of readout
ERRORS = ("", f"{ERROR} 1", f"{ERROR} 2")  # pooled, by the number of a gate's qubits
POOLED = (RELAXATION, DEPHASING, P01, P10, ASYMMETRY, *ADDED.values(), *ERRORS[1:])
_LEAST = 0.02  # least part: of 1/T1 for the dephasing rate, of a gate's error for its parameter
_LEAST_FLIP = 1e-4  # least readout error that a factor can change
_MOST_FLIP = 0.5
_MOST_JOINT = 0.25  # of a joint flip
LEAST_JOINT = 1e-3  # stored probability of a joint flip


class Component(msgspec.Struct, frozen=True, order=True):
    """One number that a fit changes. `gate`: of a rotation, whose kind is a Pauli name, or of the
    error of one of several gates on the same qubits; else ""."""

    kind: str
    qubits: tuple[int, ...]
    gate: str = ""

    @property
    def is_angle(self) -> bool:
        """True for an angle, False for the logarithm of a factor."""
        return bool(self.gate) and self.kind != ERROR


class ChannelKey(msgspec.Struct, frozen=True):
    """Origin of a channel: a gate on its calibrated qubits, or an idle time of a qubit or pair."""

    gate: str
    qubits: tuple[int, ...]
    duration_ns: float = 0.0
    is_reversed: bool = False


class DeviceChannels:
    """Channels of a device as functions of its components. `coherent`: gates get rotations
    (`rotations_of`) in addition to the calibrated ones. Gates that are calibrated for all qubits at
    once have an entry for each set of qubits in `snapshot`, and every qubit has an entry."""

    def __init__(self, snapshot: snapshots.CalibrationSnapshot, *, coherent: bool = False) -> None:
        self.snapshot = snapshot = with_gates_of_each_set(with_each_qubit(snapshot))
        self.coherent = coherent
        self.zz_khz = snapshots.acting_zz_khz(snapshot.zz)  # without the factor, which may be 0
        full = msgspec.structs.replace(snapshot, zz_strength=1.0)
        self.model = DeviceModel(full, NoiseOptions())  # with all pairs
        self._gates = {(gate.name, gate.qubits): gate for gate in snapshot.gates}
        self._parameters: dict[tuple[str, tuple[int, ...]], float] = {}

    def components(
        self,
        qubits: Sequence[int],
        gates: Sequence[ChannelKey],
        pairs: Iterable[tuple[int, ...]],
        *,
        pooled: bool = False,
    ) -> tuple[Component, ...]:
        """Components of the qubits, gates and idle pairs that circuits use, or the pooled ones."""
        if pooled:
            kinds = [*POOLED, ZZ] if self.zz_khz else [*POOLED]
            kinds += [QUASISTATIC] if any(map(self._is_detuned, qubits)) else []
            return tuple(sorted(Component(kind, ()) for kind in kinds))
        results = {Component(ZZ, pair) for pair in pairs}
        if any(map(self._is_detuned, qubits)):
            results.add(Component(QUASISTATIC, ()))
        for qubit in qubits:
            calibration = self.snapshot.qubits[qubit]
            if calibration.t1_us or calibration.t2_us:
                results |= {Component(RELAXATION, (qubit,)), Component(DEPHASING, (qubit,))}
            if calibration.confusion is not None:
                results |= {Component(P01, (qubit,)), Component(P10, (qubit,))}
                results |= {Component(kind, ()) for kind in (ASYMMETRY, *ADDED.values())}
        for key in gates:
            gate = self._gates[key.gate, key.qubits]
            if gate.error:
                results.add(Component(ERROR, tuple(sorted(key.qubits))))
            if self.coherent:
                names = rotations_of(key.gate, len(key.qubits))
                results |= {Component(name, key.qubits, key.gate) for name in names}
        return tuple(sorted(results))

    def _is_detuned(self, qubit: int) -> bool:
        return self.snapshot.qubits[qubit].detuning_rad_us > 0.0

    def key_of(self, name: str, qubits: tuple[int, ...]) -> ChannelKey | None:
        """Key of the gate that is calibrated for these qubits; None: a fit does not change it."""
        for result, is_reversed in ((qubits, False), (qubits[::-1], len(qubits) > 1)):
            if (name, result) in self._gates:
                return ChannelKey(name, result, 0.0, is_reversed)
        return None

    def gate(self, key: ChannelKey) -> snapshots.GateCalibration:
        """Calibration of a gate."""
        return self._gates[key.gate, key.qubits]

    def parameter(self, key: ChannelKey) -> float:
        """Depolarizing parameter that follows from the calibrated error."""
        name = (key.gate, key.qubits)
        if name not in self._parameters:
            self._parameters[name] = self.model.gates.rest(self.gate(key), key.qubits)
        return self._parameters[name]


class Setting:
    """Channels for one set of values of the components."""

    def __init__(
        self, device: DeviceChannels, components: Sequence[Component], values: NDArray[np.float64]
    ) -> None:
        self._device = device
        self._number = {component: k for k, component in enumerate(components)}
        self._values = values

    def channel(self, key: ChannelKey) -> DualMatrix:
        """Transfer matrix of a channel."""
        if key.duration_ns and len(key.qubits) == 2:
            return self.interaction(key.qubits, key.duration_ns)
        if key.duration_ns:
            return self.relaxation(key.qubits[0], key.duration_ns)
        result = self._product(key)
        if not key.is_reversed:
            return result
        size = np.arange(16)
        order = (size & 3) << 2 | size >> 2
        return DualMatrix(np.ascontiguousarray(result.values[:, order][:, :, order]), result.params)

    def confusion(self, qubit: int) -> DualMatrix | None:
        """Readout error [2, 2]: row read, column true."""
        readout = self._device.snapshot.qubits[qubit].confusion
        if readout is None:
            return None
        up, *of_up = self._flip(P01, qubit, *readout)
        down, *of_down = self._flip(P10, qubit, *readout[::-1])
        values = [[[1.0 - up, down], [up, 1.0 - down]]]
        values += [[[-slope, 0.0], [slope, 0.0]] for slope in of_up]
        values += [[[0.0, slope], [0.0, -slope]] for slope in of_down]
        values[2] = (np.array(values[2]) + values.pop(5)).tolist()  # one asymmetry for both
        places = [
            *(self._at(P01, (qubit,)), self._at(ASYMMETRY, ()), self._at(ADDED[P01], ())),
            *(self._at(P10, (qubit,)), self._at(ADDED[P10], ())),
        ]
        return _sorted(np.array(values), places)

    def read_together(self, group: snapshots.CorrelatedReadout) -> DualMatrix:
        """Confusion of qubits that are calibrated together, without joint flips: the calibrated
        one, C, at the calibrated errors M of its qubits, and C M^-1 M' at others M'."""
        result = constant(np.eye(1))
        for qubit in group.qubits:
            own = self.confusion(qubit) or constant(np.eye(2))
            result = own.tensor(result)
        calibrated = [self._device.snapshot.qubits[q].confusion or (0.0, 0.0) for q in group.qubits]
        alone = independent_confusion(np.array(calibrated))
        change: NDArray[np.float64] = np.array(group.confusion) @ np.linalg.pinv(alone)
        return constant(change).after(result)

    @functools.cached_property
    def joint_flips(self) -> tuple[JointFlip, ...]:
        """Joint flips of pairs of records. In a step of a fit, a probability may be below 0."""
        return tuple(
            JointFlip(
                (each.qubits[0], each.qubits[1]),
                min(float(self._values[number]), _MOST_JOINT),
                number,
            )
            for each, number in self._number.items()
            if each.kind == JOINT
        )

    @property
    def uniform(self) -> UniformPart:
        """Part of the records that are uniform over all outcomes."""
        number = self._at(UNIFORM, ())
        return UniformPart() if number < 0 else UniformPart(float(self._values[number]), number)

    def flips(self, qubit: int) -> tuple[float, float] | None:
        """(p01, p10) of a qubit."""
        readout = self._device.snapshot.qubits[qubit].confusion
        if readout is None:
            return None
        return self._flip(P01, qubit, *readout)[0], self._flip(P10, qubit, *readout[::-1])[0]

    def flip_factor(self, kind: str, qubit: int) -> float:
        """Logarithm of the factor that alone gives the readout error of a qubit."""
        base = self._device.snapshot.qubits[qubit].confusion
        flips = self.flips(qubit)
        if base is None or flips is None:
            return 0.0
        place = 0 if kind == P01 else 1
        return math.log(max(flips[place], 1e-9) / max(base[place], _LEAST_FLIP))

    def _flip(
        self, kind: str, qubit: int, base: float, other: float
    ) -> tuple[float, float, float, float]:
        """Readout error with its derivatives: by the logarithm of its factor, by the asymmetry, by
        what is added. `other`: error of the other outcome."""
        if self._at(kind, (qubit,)) < 0:
            return base, 0.0, 0.0, 0.0
        half, number = (base - other) / 2.0, self._at(ASYMMETRY, ())
        shifted = base if number < 0 else base + float(self._values[number]) * half
        factor = self.factor(kind, (qubit,))
        scaled = max(shifted, _LEAST_FLIP) * factor
        added = self._at(ADDED[kind], ())
        result = scaled + (0.0 if added < 0 else float(self._values[added]))
        if not 0.0 < result < _MOST_FLIP:
            return (_MOST_FLIP if result > 0.0 else 0.0), 0.0, 0.0, 0.0
        return result, scaled, half * factor if shifted > _LEAST_FLIP else 0.0, 1.0

    def _at(self, kind: str, qubits: tuple[int, ...], gate: str = "") -> int:
        """Index of a component, its own or the pooled one; -1: there is none."""
        result = self._number.get(Component(kind, qubits, gate))
        if result is None and not gate:
            pooled = ERRORS[len(qubits)] if kind == ERROR else kind
            result = self._number.get(Component(pooled, ()))
        return -1 if result is None else result

    def _error_at(self, key: ChannelKey) -> int:
        """Index of the error of a gate, else of all gates on its qubits."""
        qubits = tuple(sorted(key.qubits))
        own = self._at(ERROR, qubits, key.gate)
        return self._at(ERROR, qubits) if own < 0 else own

    def factor(self, kind: str, qubits: tuple[int, ...]) -> float:
        """Factor of a calibrated value; 1 if no component changes it."""
        number = self._at(kind, qubits)
        return 1.0 if number < 0 else math.exp(self._values[number])

    def rotations(self, key: ChannelKey) -> list[tuple[str, float, int]]:
        """Pauli, angle and number of the component (-1: none) of each rotation after a gate."""
        gate = self._device.gate(key)
        angles = {each.pauli: each.angle_rad for each in gate.rotations}
        names = rotations_of(key.gate, len(key.qubits)) if self._device.coherent else ()
        results = []
        for name in dict.fromkeys((*angles, *names)):
            number = self._at(name, key.qubits, key.gate)
            change = 0.0 if number < 0 else float(self._values[number])
            if number >= 0 or name in angles:
                results.append((name, angles.get(name, 0.0) + change, number))
        return results

    def rates(self, qubit: int) -> tuple[float, float]:
        """1/T1 and 1/T2 - 1/(2 T1) of a qubit, 1/ns."""
        decay, dephasing = base_rates(self._device.snapshot, qubit)
        changes = self._at(RELAXATION, (qubit,)) >= 0
        least = _LEAST * decay if changes else 0.0
        dephasing = max(dephasing, least) * self.factor(DEPHASING, (qubit,))
        return decay * self.factor(RELAXATION, (qubit,)), dephasing

    def relaxation(self, qubit: int, duration_ns: float) -> DualMatrix:
        """Relaxation of one qubit over a time."""
        decay, dephasing = self.rates(qubit)
        z = math.exp(-decay * duration_ns)
        x = math.exp(-(decay / 2.0 + dephasing) * duration_ns)
        shift = 1.0 - 2.0 * (self._device.snapshot.qubits[qubit].excited or 0.0)
        values = np.zeros((3, 4, 4))
        values[0] = np.diag([1.0, x, x, z])
        values[0, 3, 0] = (1.0 - z) * shift
        slope = decay * duration_ns
        values[1, 1, 1] = values[1, 2, 2] = -slope / 2.0 * x
        values[1, 3, 3] = -slope * z
        values[1, 3, 0] = slope * z * shift
        values[2, 1, 1] = values[2, 2, 2] = -dephasing * duration_ns * x
        return _sorted(values, [self._at(RELAXATION, (qubit,)), self._at(DEPHASING, (qubit,))])

    @property
    def detuning(self) -> Detuning:
        """Factor of the detunings of all qubits."""
        return Detuning(self.factor(QUASISTATIC, ()), self._at(QUASISTATIC, ()))

    def dephasing(self, qubit: int, duration_ns: float) -> DualMatrix:
        """Mean channel of a qubit's detuning over a time, without derivatives."""
        rate = 1e-3 * self._device.snapshot.qubits[qubit].detuning_rad_us * self.detuning.factor
        left = math.exp(-0.5 * (rate * duration_ns) ** 2)
        return constant(np.diag([1.0, left, left, 1.0]))

    def zz_factor(self, pair: tuple[int, ...]) -> float:
        """Factor of the ZZ rate of a pair."""
        number = self._at(ZZ, pair)
        change = 0.0 if number < 0 else float(self._values[number])
        return self._device.snapshot.zz_factor + change

    def interaction(self, pair: tuple[int, ...], duration_ns: float) -> DualMatrix:
        """ZZ interaction of an idle pair over a time: diag(1, 1, 1, exp(-i angle))."""
        full = 2e-6 * math.pi * self._device.zz_khz[pair[0], pair[1]] * duration_ns
        angle = full * self.zz_factor(pair)
        first, second = _both_excited()
        sine, cosine = math.sin(angle), math.cos(angle)
        value = np.eye(16) + sine * first + (1.0 - cosine) * second
        slope = full * (cosine * first + sine * second)
        return _sorted(np.array([value, slope]), [self._at(ZZ, pair)])

    def parameter(self, key: ChannelKey) -> float:
        """Depolarizing parameter of a gate."""
        base = self._device.parameter(key)
        number = self._error_at(key)
        if number < 0:
            return base
        least = _LEAST * (self._device.gate(key).error or 0.0)
        limit = largest_parameter(len(key.qubits))
        return min(max(base, least) * math.exp(self._values[number]), limit)

    def _product(self, key: ChannelKey) -> DualMatrix:
        size, parameter = len(key.qubits), self.parameter(key)
        diagonal = np.zeros((2, 4**size))
        diagonal[0], diagonal[1, 1:] = 1.0 - parameter, -parameter
        diagonal[0, 0] = 1.0
        if parameter >= largest_parameter(size):
            diagonal[1] = 0.0
        matrices = diagonal[:, :, None] * np.eye(4**size)
        result = _sorted(matrices, [self._error_at(key)])
        for name, angle, number in reversed(self.rotations(key)):
            result = result.after(rotation(name, angle, number))
        duration = self._device.gate(key).duration_ns or 0.0
        if duration:
            parts = [self.relaxation(qubit, duration) for qubit in key.qubits]
            relaxed = parts[0] if size == 1 else parts[1].tensor(parts[0])
            result = relaxed.after(result)
        gate = self._device.gate(key)
        if not gate.over_rotation_rad:
            return result
        turn = over_rotation(gate.name, size, gate.over_rotation_rad)
        return result.after(constant(turn.ptm))


def with_each_qubit(snapshot: snapshots.CalibrationSnapshot) -> snapshots.CalibrationSnapshot:
    """Copy with an entry for each qubit, empty where the snapshot has none."""
    if snapshot.qubits:
        return snapshot
    empty = (snapshots.QubitCalibration(),) * snapshot.num_qubits
    return msgspec.structs.replace(snapshot, qubits=empty)


def with_gates_of_each_set(
    snapshot: snapshots.CalibrationSnapshot,
) -> snapshots.CalibrationSnapshot:
    """Copy of the device with one entry for each place in place of the native gates that are
    calibrated for all qubits at once."""
    if all(gate.qubits for gate in snapshot.gates):
        return snapshot
    available = _available(snapshot)
    natives = {gate.name for gate in snapshot.all_gates}
    own = {
        (gate.name, order) for gate in snapshot.gates for order in (gate.qubits, gate.qubits[::-1])
    }
    gates: list[snapshots.GateCalibration] = []
    for gate in snapshot.gates:
        is_everywhere = not gate.qubits and gate.name in natives
        sets = sorted(available.places(gate.name)) if is_everywhere else []
        built = [
            msgspec.structs.replace(gate, qubits=each)
            for each in sets
            if (gate.name, each) not in own
        ]
        gates += built if sets else [gate]
    return msgspec.structs.replace(snapshot, gates=tuple(gates))


def _available(snapshot: snapshots.CalibrationSnapshot) -> Availability:
    """Places of the operations of a snapshot's device."""
    return Availability(device_info(snapshot.name, snapshot, ""))


def without_jumps(snapshot: snapshots.CalibrationSnapshot) -> snapshots.CalibrationSnapshot:
    """The snapshot with the calibrated T1 of all qubits: counts of other times do not have the T1
    of its jumps."""
    change = msgspec.structs.replace
    qubits = tuple(
        change(each, t1_jumps=change(each.t1_jumps, low=False)) if each.t1_jumps else each
        for each in snapshot.qubits
    )
    return change(snapshot, qubits=qubits)


def base_rates(snapshot: snapshots.CalibrationSnapshot, qubit: int) -> tuple[float, float]:
    """Calibrated 1/T1 and 1/T2 - 1/(2 T1), 1/ns; 0 if not measured."""
    calibration = snapshot.qubits[qubit]
    decay = 1e-3 / calibration.t1_us if calibration.t1_us else 0.0
    limited = calibration.t2_limited_us
    return decay, max(1e-3 / limited - decay / 2.0, 0.0) if limited else 0.0


def rotations_of(gate: str, num_qubits: int) -> tuple[str, ...]:
    """Paulis of the rotations that a gate may have in addition to its own (Sundaresan et al., arXiv
    2007.02925: errors of the cross-resonance gate). The first letter acts on its first qubit."""
    if num_qubits == 1:
        return ("X",)
    return ("ZZ", "ZI", "IZ") if gate in ("cz", "rzz", "cp") else ("ZX", "ZI", "IX", "IZ", "ZZ")


def rotation(name: str, angle_rad: float, number: int) -> DualMatrix:
    """Transfer matrix of exp(-i angle P / 2): 1 + sin(angle) K + (1 - cos(angle)) K^2. `number`:
    index of the parameter that is the angle, or -1."""
    first, second = _generator(name)
    sine, cosine = math.sin(angle_rad), math.cos(angle_rad)
    value = np.eye(len(first)) + sine * first + (1.0 - cosine) * second
    if number < 0:
        return constant(value)
    return DualMatrix(np.array([value, cosine * first + sine * second]), (number,))


@functools.cache
def _generator(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Generator of exp(-i angle P / 2), and its square: float64 [4^n, 4^n]."""
    return _generator_of(0.5 * paulis(len(name))[pauli_number(name)])


@functools.cache
def _both_excited() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Generator of diag(1, 1, 1, exp(-i angle)), and its square."""
    return _generator_of(np.diag([0.0, 0.0, 0.0, 1.0]))


def _generator_of(
    hamiltonian: NDArray[np.complex128],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Generator K[i, j] = tr(P_i (-i) [H, P_j]) / 2^n, and its square, for an H with differences of
    eigenvalues of 0 and 1."""
    basis = paulis(len(hamiltonian).bit_length() - 1)
    moved = -1j * (hamiltonian @ basis - basis @ hamiltonian)
    result = np.einsum("iab,jba->ij", basis, moved).real / len(hamiltonian)
    return result, result @ result


def _sorted(values: NDArray[np.float64], indices: Sequence[int]) -> DualMatrix:
    """Values with their derivatives in ascending order of index; derivatives with index -1 are left
    out."""
    order = sorted((number, 1 + k) for k, number in enumerate(indices) if number >= 0)
    keep = [0, *(k for _, k in order)]
    return DualMatrix(np.ascontiguousarray(values[keep]), tuple(number for number, _ in order))


def all_components(device: DeviceChannels) -> tuple[Component, ...]:
    """Components of all qubits and gates of the device."""
    gates = [ChannelKey(gate.name, gate.qubits) for gate in device.snapshot.gates if _changes(gate)]
    return device.components(range(device.snapshot.num_qubits), gates, device.zz_khz)


def are_calibrated(components: Iterable[Component]) -> bool:
    """Return whether any of the components changes a calibrated value: joint flips do not."""
    return any(each.kind != JOINT for each in components)


def fitted_snapshot(
    device: DeviceChannels, components: Sequence[Component], values: NDArray[np.float64]
) -> snapshots.CalibrationSnapshot:
    """Snapshot whose noise model has these components, by the recipe `simenv`."""
    setting = Setting(device, components, values)
    snapshot = device.snapshot
    qubits = tuple(
        fitted_qubit(calibration, qubit, setting)
        for qubit, calibration in enumerate(snapshot.qubits)
    )
    gates = tuple(fitted_gate(gate, setting) for gate in snapshot.gates)
    together = _read_together(snapshot, setting)
    result = msgspec.structs.replace(
        snapshot, qubits=qubits, gates=gates, correlated_readout=together
    )
    return _with_interactions(result, {pair: setting.zz_factor(pair) for pair in device.zz_khz})


def _stored_flips(setting: Setting) -> list[JointFlip]:
    """Joint flips of a fit that are stored, the most probable first."""
    results = [each for each in setting.joint_flips if each.probability >= LEAST_JOINT]
    return sorted(results, key=lambda each: (-each.probability, each.qubits))


def _read_together(
    snapshot: snapshots.CalibrationSnapshot, setting: Setting
) -> tuple[snapshots.CorrelatedReadout, ...]:
    """Confusion of the calibrated groups, and of pairs whose records are flipped together: those of
    the most probable flips, without a common qubit. Of other pairs, each record is flipped alone
    with the same probability, which is part of the errors of its qubit."""
    flips = _stored_flips(setting)
    groups = {each.qubits: setting.read_together(each) for each in snapshot.correlated_readout}
    used = {qubit for qubits in groups for qubit in qubits}
    for flip in flips:
        if used.isdisjoint(flip.qubits):
            low, high = (setting.confusion(qubit) or constant(np.eye(2)) for qubit in flip.qubits)
            groups[flip.qubits] = high.tensor(low)
            used |= set(flip.qubits)
    results = []
    for qubits, matrix in groups.items():
        confusion, outcomes = matrix.values[0], np.arange(1 << len(qubits))
        for flip in flips:
            mask = sum(1 << qubits.index(qubit) for qubit in flip.qubits if qubit in qubits)
            if mask:
                swapped = confusion[outcomes ^ mask]
                confusion = confusion + flip.probability * (swapped - confusion)
        confusion = np.maximum(confusion, 0.0)
        confusion = confusion / confusion.sum(axis=0)
        results.append(snapshots.CorrelatedReadout(qubits, tuple(map(tuple, confusion.tolist()))))
    return tuple(results)


def _with_interactions(
    snapshot: snapshots.CalibrationSnapshot, factors: Mapping[tuple[int, int], float]
) -> snapshots.CalibrationSnapshot:
    """Snapshot with these factors of its ZZ rates: a common one is stored beside the rates."""
    if not factors:
        return snapshot
    common = set(factors.values())
    if len(common) == 1:
        return msgspec.structs.replace(snapshot, zz_strength=common.pop())
    rates = snapshots.acting_zz_khz(snapshot.zz)
    zz = tuple(snapshots.ZZCoupling(pair, rates[pair] * factor) for pair, factor in factors.items())
    return msgspec.structs.replace(snapshot, zz=zz, zz_strength=1.0)


def fitted_qubit(
    calibration: snapshots.QubitCalibration, qubit: int, setting: Setting
) -> snapshots.QubitCalibration:
    """Calibration of a qubit with the values of its components."""
    changes: dict[str, float] = {}
    if calibration.t1_us or calibration.t2_us:
        decay, dephasing = setting.rates(qubit)
        if calibration.t1_us:
            changes["t1_us"] = 1e-3 / decay
        if calibration.t2_us and decay / 2.0 + dephasing > 0.0:
            changes["t2_us"] = 1e-3 / (decay / 2.0 + dephasing)
    flips = setting.flips(qubit)
    for each in _stored_flips(setting):
        if flips is not None and qubit in each.qubits:
            p01, p10 = (p + each.probability * (1.0 - 2.0 * p) for p in flips)
            flips = p01, p10
    if flips is not None:
        changes["p01"], changes["p10"] = flips
        changes["readout_error"] = sum(flips) / 2.0
    if changes or setting.detuning.factor != 1.0:
        result = msgspec.structs.replace(calibration, **changes)
        if calibration.t2_star_us is None:
            return result
        return result.with_detuning(calibration.detuning_rad_us * setting.detuning.factor)
    return calibration


def fitted_gate(gate: snapshots.GateCalibration, setting: Setting) -> snapshots.GateCalibration:
    """Calibration of a gate with the values of its components."""
    if not _changes(gate):
        return gate
    key = ChannelKey(gate.name, gate.qubits)
    channel = setting.channel(key)
    parts = [setting.dephasing(qubit, gate.duration_ns or 0.0) for qubit in gate.qubits]
    channel = (parts[0] if len(parts) == 1 else parts[1].tensor(parts[0])).after(channel)
    error = Channel(channel.values[0]).infidelity
    rotations = tuple(
        snapshots.PauliRotation(name, math.remainder(angle, 2.0 * math.pi))
        for name, angle, _ in setting.rotations(key)
        if angle
    )
    error = min(max(error, 0.0), math.nextafter(1.0, 0.0))
    return msgspec.structs.replace(gate, error=error, rotations=rotations)


def _changes(gate: snapshots.GateCalibration) -> bool:
    """Return whether a fit may change the gate's error."""
    works = gate.error is not None and 0.0 < gate.error < BROKEN
    return bool(works) and 0 < len(gate.qubits) <= 2 and gate.name not in ("measure", "reset")


def _is_broken(gate: snapshots.GateCalibration) -> bool:
    return gate.error is not None and gate.error >= BROKEN


def homogeneous(snapshot: snapshots.CalibrationSnapshot) -> snapshots.CalibrationSnapshot:
    """Device with the median of each calibrated value at all qubits and gates. For circuits whose
    qubits are unknown, no qubit differs from another. Gates that do not work stay so, and no
    circuit is compiled onto qubits that lack a measurement or a gate on one qubit."""
    available = _available(snapshot)
    dead = {qubit for qubit in range(snapshot.num_qubits) if not available.is_complete(qubit)}
    fields = (
        "t1_us",
        "t2_us",
        "t2_star_us",
        "p01",
        "p10",
        "readout_error",
        "readout_ns",
        "excited",
    )
    medians = {
        field: _median(snapshot.qubits, lambda q, f=field: getattr(q, f)) for field in fields
    }
    measured = {field: value for field, value in medians.items() if value is not None}
    qubits = tuple(msgspec.structs.replace(qubit, **measured) for qubit in snapshot.qubits)
    named: dict[str, list[snapshots.GateCalibration]] = defaultdict(list)
    for gate in snapshot.gates:
        if not _is_broken(gate):
            named[gate.name].append(gate)
    gates = []
    for gate in snapshot.gates:
        if _is_broken(gate) or (len(gate.qubits) == 2 and dead.intersection(gate.qubits)):
            gates.append(msgspec.structs.replace(gate, error=BROKEN))
            continue
        alike = named[gate.name]
        changes = {
            field: _median(alike, lambda g, f=field: getattr(g, f))
            for field in ("error", "duration_ns")
        }
        gates.append(msgspec.structs.replace(gate, **changes))
    return msgspec.structs.replace(snapshot, qubits=qubits, gates=tuple(gates))


def _median(items: Sequence[object], value: Callable[..., float | None]) -> float | None:
    results = [each for each in map(value, items) if each is not None]
    return statistics.median(results) if results else None
