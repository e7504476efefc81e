"""Calibration snapshots with fitted components in place of calibrated values, and homogeneous
ones."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    PauliRotation,
    QubitCalibration,
    ZZCoupling,
    acting_zz_khz,
)
from noise_models.channel import Channel
from simenv.calibration.fit.components import ChannelKey, Component, DeviceChannels, Setting

_BROKEN = 1.0  # calibrated error of a gate that does not work


def all_components(device: DeviceChannels) -> tuple[Component, ...]:
    """Components of all qubits and gates of the device."""
    gates = [ChannelKey(gate.name, gate.qubits) for gate in device.snapshot.gates if _changes(gate)]
    return device.components(range(device.snapshot.num_qubits), gates, device.zz_khz)


def fitted_snapshot(
    device: DeviceChannels, components: Sequence[Component], values: NDArray[np.float64]
) -> CalibrationSnapshot:
    """Snapshot whose noise model has these components, by the recipe `simenv`."""
    setting = Setting(device, components, values)
    snapshot = device.snapshot
    qubits = tuple(
        _qubit(calibration, qubit, setting) for qubit, calibration in enumerate(snapshot.qubits)
    )
    gates = tuple(_gate(gate, setting) for gate in snapshot.gates)
    result = msgspec.structs.replace(snapshot, qubits=qubits, gates=gates)
    return _with_interactions(result, {pair: setting.zz_factor(pair) for pair in device.zz_khz})


def _with_interactions(
    snapshot: CalibrationSnapshot, factors: Mapping[tuple[int, int], float]
) -> CalibrationSnapshot:
    """Snapshot with these factors of its ZZ rates: a common one is stored beside the rates."""
    if not factors:
        return snapshot
    common = set(factors.values())
    if len(common) == 1:
        return msgspec.structs.replace(snapshot, zz_strength=common.pop())
    rates = acting_zz_khz(snapshot.zz)
    zz = tuple(ZZCoupling(pair, rates[pair] * factor) for pair, factor in factors.items())
    return msgspec.structs.replace(snapshot, zz=zz, zz_strength=1.0)


def _qubit(calibration: QubitCalibration, qubit: int, setting: Setting) -> QubitCalibration:
    changes: dict[str, float] = {}
    if calibration.t1_us or calibration.t2_us:
        decay, dephasing = setting.rates(qubit)
        if calibration.t1_us:
            changes["t1_us"] = 1e-3 / decay
        if calibration.t2_us and decay / 2.0 + dephasing > 0.0:
            changes["t2_us"] = 1e-3 / (decay / 2.0 + dephasing)
    flips = setting.flips(qubit)
    if flips is not None:
        changes["p01"], changes["p10"] = flips
        changes["readout_error"] = sum(flips) / 2.0
    return msgspec.structs.replace(calibration, **changes) if changes else calibration


def _gate(gate: GateCalibration, setting: Setting) -> GateCalibration:
    if not _changes(gate):
        return gate
    key = ChannelKey(gate.name, gate.qubits)
    error = Channel(setting.channel(key).values[0]).infidelity
    rotations = tuple(
        PauliRotation(name, math.remainder(angle, 2.0 * math.pi))
        for name, angle, _ in setting.rotations(key)
        if angle
    )
    error = min(max(error, 0.0), math.nextafter(1.0, 0.0))
    return msgspec.structs.replace(gate, error=error, rotations=rotations)


def _changes(gate: GateCalibration) -> bool:
    """Return whether a fit may change the gate's error."""
    works = gate.error is not None and 0.0 < gate.error < _BROKEN
    return bool(works) and 0 < len(gate.qubits) <= 2 and gate.name not in ("measure", "reset")


def _is_broken(gate: GateCalibration) -> bool:
    return gate.error is not None and gate.error >= _BROKEN


def homogeneous(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Device with the median of each calibrated value at all qubits and gates.

    For circuits whose qubits are unknown, no qubit differs from another. Gates that do not work
    stay so, and no circuit is compiled onto the qubits of one-qubit gates that do not work.
    """
    dead = {gate.qubits[0] for gate in snapshot.gates if len(gate.qubits) == 1 and _is_broken(gate)}
    fields = ("t1_us", "t2_us", "p01", "p10", "readout_error", "readout_ns", "excited")
    medians = {
        field: _median(snapshot.qubits, lambda q, f=field: getattr(q, f)) for field in fields
    }
    measured = {field: value for field, value in medians.items() if value is not None}
    qubits = tuple(msgspec.structs.replace(qubit, **measured) for qubit in snapshot.qubits)
    named: dict[str, list[GateCalibration]] = defaultdict(list)
    for gate in snapshot.gates:
        if not _is_broken(gate):
            named[gate.name].append(gate)
    gates = []
    for gate in snapshot.gates:
        if _is_broken(gate) or (len(gate.qubits) == 2 and dead.intersection(gate.qubits)):
            gates.append(msgspec.structs.replace(gate, error=_BROKEN))
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
