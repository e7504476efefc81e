"""Interpolation between a snapshot and a fitted one, value by value.

Times and probabilities change by their logarithms, angles of rotations and ZZ rates linearly.
"""

from __future__ import annotations

import msgspec

from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    PauliRotation,
    QubitCalibration,
    ZZCoupling,
)

_QUBIT = ("t1_us", "t2_us", "p01", "p10", "readout_error", "readout_ns", "excited")
_GATE = ("error", "duration_ns")
_BROKEN = 1.0  # calibrated error of a gate that does not work


def blended(
    before: CalibrationSnapshot, after: CalibrationSnapshot, share: float
) -> CalibrationSnapshot:
    """Interpolate from `before` (share 0) to `after` (share 1), which supplies all other fields.
    Both have the same qubits and gates in the same order."""
    if share == 1.0:
        return after
    qubits = tuple(_qubit(a, b, share) for a, b in zip(before.qubits, after.qubits, strict=True))
    gates = tuple(_gate(a, b, share) for a, b in zip(before.gates, after.gates, strict=True))
    result = msgspec.structs.replace(after, qubits=qubits, gates=gates)
    old, new = before.acting_zz_khz, after.acting_zz_khz
    if old == new:
        return result
    zz = tuple(
        ZZCoupling(pair, (1.0 - share) * old.get(pair, 0.0) + share * new.get(pair, 0.0))
        for pair in sorted({*old, *new})
    )
    return msgspec.structs.replace(result, zz=zz, zz_strength=1.0)


def _qubit(before: QubitCalibration, after: QubitCalibration, share: float) -> QubitCalibration:
    changes = {name: between(getattr(before, name), getattr(after, name), share) for name in _QUBIT}
    return msgspec.structs.replace(after, **changes)


def _gate(before: GateCalibration, after: GateCalibration, share: float) -> GateCalibration:
    if _BROKEN in (before.error, after.error):
        return before if before.error == _BROKEN else after
    changes = {name: between(getattr(before, name), getattr(after, name), share) for name in _GATE}
    angles = {each.pauli: (1.0 - share) * each.angle_rad for each in before.rotations}
    for each in after.rotations:
        angles[each.pauli] = angles.get(each.pauli, 0.0) + share * each.angle_rad
    rotations = tuple(PauliRotation(name, angle) for name, angle in angles.items() if angle)
    return msgspec.structs.replace(after, rotations=rotations, **changes)


def between(before: float | None, after: float | None, share: float) -> float | None:
    """Interpolate a value by its logarithm, or linearly if one end is 0. If one end is unknown, the
    result is `before`, and `after` only at share 1."""
    if before is None or after is None or before == after:
        return before if share < 1.0 else after
    if before <= 0.0 or after <= 0.0:
        return (1.0 - share) * before + share * after
    return float(before ** (1.0 - share) * after**share)
