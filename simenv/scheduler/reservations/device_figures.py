"""Mean durations and errors of a device, by which reservations are priced. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from simenv.model import DeviceProfile, Workload
from simenv.model.devices import DeviceInfo, device_time_ns

_READOUT = "measure"
_NO_GATES = frozenset({_READOUT, "reset", "delay"})
_UNKNOWN_ERRORS = 1e-3, 1e-2  # of a gate on one qubit and on two, if a device states none
# Most that compilation adds. A gate on two qubits becomes up to three native ones, a gate on one
# qubit up to five; a native gate on two qubits has up to eight gates on one qubit around it.
_PAIRS_PER_PAIR = 3
_SINGLES_PER_SINGLE = 5
_SINGLES_PER_PAIR = 8
_SPREAD = 2.0  # durations of single qubits and pairs, relative to the mean


class DeviceFigures(msgspec.Struct, frozen=True):
    """Means over the operations of one device; durations are None if none is stated."""

    num_qubits: int = 0
    gate_1q_ns: float | None = None
    gate_2q_ns: float | None = None
    readout_ns: float | None = None
    error_1q: float = _UNKNOWN_ERRORS[0]
    error_2q: float = _UNKNOWN_ERRORS[1]
    distance: float = 3.0  # mean distance of two qubits in the coupling; 1: all are coupled
    reset_ns: float = 0.0  # before each shot
    overhead_ns: float = 0.0  # of a circuit without its shots

    def compiled(self, work: Workload) -> Workload:
        """Return the most that circuits of these sizes have after compilation for the device."""
        pairs = math.ceil(_PAIRS_PER_PAIR * self.distance * work.gates_2q)
        wide = 2 * (work.qubits or work.measurements) + 2
        return msgspec.structs.replace(
            work,
            qubits=min(wide, self.num_qubits) if self.num_qubits else wide,
            gates_1q=_SINGLES_PER_SINGLE * work.gates_1q + _SINGLES_PER_PAIR * pairs,
            gates_2q=pairs,
        )

    def clock_ns(self, work: Workload) -> tuple[float, float]:
        """Return the least and the largest time of one circuit on the device's clock: all gates
        that can be are simultaneous, or none."""
        gate_1q, gate_2q, readout = self.durations_ns
        width = max(1, work.qubits or work.measurements)
        measured = readout if work.measurements else 0.0
        serial = work.gates_1q * gate_1q + work.gates_2q * gate_2q
        parallel = work.gates_1q * gate_1q / width + work.gates_2q * gate_2q / max(1, width // 2)
        least = self.reset_ns + (parallel + measured) / _SPREAD
        longest = self.reset_ns + (serial + measured) * _SPREAD
        times = [
            device_time_ns(work.shots, 1, self.overhead_ns, shot_ns) for shot_ns in (least, longest)
        ]
        return max(1.0, times[0]), max(1.0, times[1])

    @property
    def durations_ns(self) -> tuple[float, float, float]:
        """Durations; those of the default profile where none is stated."""
        default = DeviceProfile()
        return (
            default.one_q_gate_ns if self.gate_1q_ns is None else self.gate_1q_ns,
            default.two_q_gate_ns if self.gate_2q_ns is None else self.gate_2q_ns,
            default.measurement_ns if self.readout_ns is None else self.readout_ns,
        )


UNDESCRIBED = DeviceFigures()  # of an emulated device that cannot be read


def hardware_ns(figures: DeviceFigures, work: Workload) -> float | None:
    """Return the time of one circuit on a machine in ns; None if no kind of operation has a
    duration.

    Each kind of operation takes its mean duration at each shot. A kind without a duration takes the
    duration of the default profile.
    """
    stated = figures.gate_1q_ns, figures.gate_2q_ns, figures.readout_ns
    if stated == (None, None, None):
        return None
    gate_1q, gate_2q, readout = figures.durations_ns
    shot_ns = work.gates_1q * gate_1q + work.gates_2q * gate_2q + work.measurements * readout
    return max(1.0, shot_ns * work.shots)


def figures_of(info: DeviceInfo, reset_ns: float = 0.0, overhead_ns: float = 0.0) -> DeviceFigures:
    """Return the figures of a described device. `reset_ns`: before each shot; `overhead_ns`: of a
    circuit without its shots."""
    gates = [each for each in info.operations if each.name not in _NO_GATES]
    singles = [each for each in gates if len(each.qubits) == 1]
    pairs = [each for each in gates if len(each.qubits) > 1]
    readout = _mean(qubit.readout_ns for qubit in info.qubits)
    if readout is None:
        readout = _mean(each.duration_ns for each in info.operations if each.name == _READOUT)
    errors = [_mean(each.error for each in some if each.error < 1.0) for some in (singles, pairs)]
    error_1q, error_2q = (
        unknown if error is None else error
        for error, unknown in zip(errors, _UNKNOWN_ERRORS, strict=True)
    )
    return DeviceFigures(
        info.num_qubits,
        _mean(each.duration_ns for each in singles),
        _mean(each.duration_ns for each in pairs),
        readout,
        error_1q,
        error_2q,
        1.0 if info.all_to_all else _mean_distance(info),
        reset_ns,
        overhead_ns,
    )


def _mean_distance(device: DeviceInfo) -> float:
    """Return the mean distance of two coupled qubits, at least 1."""
    neighbours: dict[int, set[int]] = {}
    for first, second in device.coupling:
        neighbours.setdefault(first, set()).add(second)
        neighbours.setdefault(second, set()).add(first)
    total = count = 0
    for start in neighbours:
        seen, level, distance = {start}, [start], 0
        while level:
            distance += 1
            level = [q for each in level for q in neighbours[each] if q not in seen]
            level = list(dict.fromkeys(level))
            seen.update(level)
            total, count = total + distance * len(level), count + len(level)
    return max(1.0, total / count) if count else 1.0


def _mean(values: Iterable[float]) -> float | None:
    measured = [each for each in values if math.isfinite(each) and each >= 0]
    return sum(measured) / len(measured) if measured else None
