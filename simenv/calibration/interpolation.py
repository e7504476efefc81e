"""Interpolation between a snapshot and a fitted one, value by value.

Times and probabilities are interpolated by their logarithms; angles of rotations, ZZ rates and what
one of both lacks linearly (`blended`).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from noise_models import calibration
from noise_models.build import build
from noise_models.confusion import independent_confusion
from noise_models.layer_noise import own_errors
from noise_models.layers import layer_key
from noise_models.options import NoiseOptions

_BROKEN = 1.0  # calibrated error of a gate that does not work
_TIMES = ("t1_us", "t2_us", "leaked_t1_us")  # absent: a rate of 0


def blended(
    before: calibration.CalibrationSnapshot, after: calibration.CalibrationSnapshot, share: float
) -> calibration.CalibrationSnapshot:
    """Interpolate from `before` (share 0) to `after` (share 1), which supplies all other fields.
    Both have the same qubits and gates in the same order. A term that one of them lacks acts there
    with strength 0, so that the other's is multiplied by its share."""
    if share in (0.0, 1.0):
        return after if share else before
    result = msgspec.structs.replace(
        after,
        qubits=tuple(
            _qubit(a, b, share, after) for a, b in zip(before.qubits, after.qubits, strict=True)
        ),
        gates=tuple(_gate(a, b, share) for a, b in zip(before.gates, after.gates, strict=True)),
        feed_forward_ns=between(before.feed_forward_ns, after.feed_forward_ns, share) or 0.0,
        correlated_readout=_together(before, after, share),
        measurements=_measurements(before, after, share),
        measurement_crosstalk=_terms(
            before.measurement_crosstalk, after.measurement_crosstalk, share, ("qubits",)
        ),
        layers=_terms(
            with_same_layers(before, after),
            with_same_layers(after, before),
            share,
            ("gates", "qubits"),
        ),
    )
    old, new = before.acting_zz_khz, after.acting_zz_khz
    if old == new:
        return result
    zz = tuple(
        calibration.ZZCoupling(
            pair, (1.0 - share) * old.get(pair, 0.0) + share * new.get(pair, 0.0)
        )
        for pair in sorted({*old, *new})
    )
    return msgspec.structs.replace(result, zz=zz, zz_strength=1.0)


def with_same_layers(
    snapshot: calibration.CalibrationSnapshot, other: calibration.CalibrationSnapshot
) -> tuple[calibration.LayerCalibration, ...]:
    """Layers of a snapshot, and with the errors that its own gates have those of another one that
    it lacks."""
    known = set(map(layer_key, snapshot.layers))
    lacking = [each for each in other.layers if layer_key(each) not in known]
    if not lacking:
        return snapshot.layers
    model = build(snapshot, NoiseOptions.parse({"qubit.t1_jumps": 0}))  # layers have jumps apart
    made = (msgspec.structs.replace(each, generators=own_errors(model, each)) for each in lacking)
    return (*snapshot.layers, *made)


def _values(before: Any, after: Any, share: float) -> dict[str, Any]:
    """Interpolate all numbers of two structs: angles linearly, others as `between` does."""
    results: dict[str, Any] = {}
    for name in after.__struct_fields__:
        ends = getattr(before, name), getattr(after, name)
        if ends[0] == ends[1] or not all(
            each is None or (isinstance(each, float | int) and not isinstance(each, bool))
            for each in ends
        ):
            continue
        if name.endswith("_rad"):
            results[name] = (1.0 - share) * (ends[0] or 0.0) + share * (ends[1] or 0.0)
        else:
            results[name] = between(ends[0], ends[1], share)
    return results


def _terms(before: Any, after: Any, share: float, key: tuple[str, ...]) -> tuple[Any, ...]:
    """Interpolate the terms of two lists; the fields of `key` name a term. One that a list lacks is
    its term for any qubits, or has strength 0."""
    if before == after:
        return tuple(after)
    ends: list[dict[Any, Any]] = []
    for terms in (before, after):
        named: dict[Any, Any] = {}
        for each in terms:
            name = tuple(getattr(each, field) for field in key)
            number = sum(known[0] == name for known in named)  # of terms of the same name
            named[name, number] = each
        ends.append(named)
    results = []
    for place in dict.fromkeys((*ends[0], *ends[1])):
        first, second = (named.get(place, named.get((((),), 0))) for named in ends)
        like = ends[1].get(place) or ends[0][place]
        first, second = (_without(like) if each is None else each for each in (first, second))
        changes = _values(first, second, share)
        if isinstance(like, calibration.LayerCalibration):
            place_of = ("pauli", "qubits")
            changes["generators"] = _terms(first.generators, second.generators, share, place_of)
        names = {field: getattr(like, field) for field in key}
        results.append(msgspec.structs.replace(second, **names, **changes))
    return tuple(results)


def _without(term: Any) -> Any:
    """The same term with strength 0."""
    changes: dict[str, Any] = {
        name: 0.0 for name in term.__struct_fields__ if isinstance(getattr(term, name), float)
    }
    return msgspec.structs.replace(term, **changes)


def _measurements(
    before: calibration.CalibrationSnapshot, after: calibration.CalibrationSnapshot, share: float
) -> tuple[calibration.MeasurementCalibration, ...]:
    """Interpolate the measurements with names; what one lacks is that of its qubit."""
    if before.measurements == after.measurements:
        return after.measurements
    ends = [
        {(each.name, each.qubit): each for each in snapshot.measurements}
        for snapshot in (before, after)
    ]
    results = []
    for name, number in dict.fromkeys((*ends[0], *ends[1])):
        known = []
        for snapshot, named in zip((before, after), ends, strict=True):
            each = named.get((name, number), calibration.MeasurementCalibration(name, number))
            qubit = snapshot.qubits[number]
            flips = qubit.confusion
            error = 0.5 * sum(flips) if each.error is None and flips else each.error
            duration = qubit.readout_ns if each.duration_ns is None else each.duration_ns
            known.append(msgspec.structs.replace(each, error=error, duration_ns=duration))
        results.append(msgspec.structs.replace(known[1], **_values(known[0], known[1], share)))
    return tuple(results)


def _qubit(
    before: calibration.QubitCalibration,
    after: calibration.QubitCalibration,
    share: float,
    device: calibration.CalibrationSnapshot,
) -> calibration.QubitCalibration:
    if before == after:
        return after
    ends = _with_meanings(before, device), _with_meanings(after, device)
    changes = _values(*ends, share)
    for name in after.__struct_fields__:
        old, new = (getattr(end, name) for end in ends)
        if getattr(before, name) is None and getattr(after, name) is None:
            changes.pop(name, None)
        elif name in _TIMES and (old is None or new is None):
            changes[name] = new / share if old is None else old / (1.0 - share)
    if before.frequency_ghz is None or after.frequency_ghz is None:
        changes["frequency_ghz"] = before.frequency_ghz or after.frequency_ghz
    result = msgspec.structs.replace(after, **changes)
    if (before.t2_star_us is None) != (after.t2_star_us is None):
        rate = (1.0 - share) * before.detuning_rad_us + share * after.detuning_rad_us
        result = result.with_detuning(rate)
    if before.t1_jumps == after.t1_jumps:
        return result
    return msgspec.structs.replace(result, t1_jumps=_jumps(before, after, result.t1_us, share))


def _with_meanings(
    qubit: calibration.QubitCalibration, device: calibration.CalibrationSnapshot
) -> calibration.QubitCalibration:
    """The qubit with the values by which those that are absent, and do not mean 0, act."""
    p01, p10 = qubit.confusion or (None, None)
    mean = qubit.readout_error
    if mean is None and p01 is not None and p10 is not None:
        mean = 0.5 * (p01 + p10)
    prepared, leaked = qubit.preparation_error, qubit.leaked_readout
    return msgspec.structs.replace(
        qubit,
        p01=p01,
        p10=p10,
        readout_error=mean,
        preparation_error=qubit.excited if prepared is None else prepared,
        leaked_readout=1.0 if leaked is None else leaked,
        leaked_t1_us=device.leaked_t1_us(qubit),
    )


def _jumps(
    before: calibration.QubitCalibration,
    after: calibration.QubitCalibration,
    t1_us: float | None,
    share: float,
) -> calibration.T1Jumps | None:
    """Jumps of a qubit: what they add to 1 / T1 now is interpolated, beside T1 itself."""
    first, second = before.t1_jumps, after.t1_jumps
    known = second or first
    if known is None:
        return None
    ends = (first or _never(known), second or _never(known))
    result = msgspec.structs.replace(known, **_values(ends[0], ends[1], share))
    rate = (1.0 - share) * before.jump_rate_per_us + share * after.jump_rate_per_us
    if not rate or not t1_us:
        return result
    return msgspec.structs.replace(result, low=True, factor=1.0 / (1.0 + rate * t1_us))


def _never(jumps: calibration.T1Jumps) -> calibration.T1Jumps:
    return msgspec.structs.replace(jumps, per_hour=0.0, low=False)


def _together(
    before: calibration.CalibrationSnapshot, after: calibration.CalibrationSnapshot, share: float
) -> tuple[calibration.CorrelatedReadout, ...]:
    """Mean of both confusion matrices of each group, by shares. A group that only one of them has
    is read qubit by qubit in the other."""
    groups = [
        {each.qubits: np.array(each.confusion) for each in snapshot.correlated_readout}
        for snapshot in (before, after)
    ]
    results = []
    for qubits in dict.fromkeys((*groups[0], *groups[1])):
        mixed = np.zeros((1 << len(qubits),) * 2)
        for weight, snapshot, own in zip(
            (1.0 - share, share), (before, after), groups, strict=True
        ):
            flips = np.array([snapshot.qubits[q].confusion or (0.0, 0.0) for q in qubits])
            mixed += weight * own.get(qubits, independent_confusion(flips))
        results.append(calibration.CorrelatedReadout(qubits, tuple(map(tuple, mixed.tolist()))))
    return tuple(results)


def _gate(
    before: calibration.GateCalibration, after: calibration.GateCalibration, share: float
) -> calibration.GateCalibration:
    if _BROKEN in (before.error, after.error):
        return before if before.error == _BROKEN else after
    rotations = tuple(
        each
        for each in _terms(before.rotations, after.rotations, share, ("pauli",))
        if each.angle_rad
    )
    return msgspec.structs.replace(after, rotations=rotations, **_values(before, after, share))


def between(before: float | None, after: float | None, share: float) -> float | None:
    """Interpolate a value by its logarithm, or linearly if one end is 0 or absent."""
    if before == after:
        return after
    if before is None or after is None or before <= 0.0 or after <= 0.0:
        return (1.0 - share) * (before or 0.0) + share * (after or 0.0)
    return float(before ** (1.0 - share) * after**share)
