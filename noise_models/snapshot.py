"""Calibration snapshots as JSON: reading, writing, and the checks of their values.

`check` rejects values that no device can have; `clamps` lists the measured values that a noise
model limits, because they contradict the model's physics.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from noise_models import calibration, strict_json as checks
from noise_models.atoms import AnalogCalibration, check_analog
from noise_models.layers import check_layers
from noise_models.linked_modules import check_logical, check_modules, check_paulis
from noise_models.strict_json import (
    MAX_QUBITS,
    NS,
    STAR_US,
    UNIT,
    US,
    Range,
    SnapshotError,
    short_repr,
)

MAX_GATES = 2_000_000
MAX_DATES = 1_000_000
MAX_REASON = 1_000  # characters
MAX_FAMILIES = 1_000
MAX_OFF_MEAN = (
    0.01  # of a readout error; published ones, measured apart from p01 and p10, have less
)
MAX_OFF_PAULIS = 1e-3  # relative, of a gate's error and the infidelity of its Pauli channel
_COLUMN_TOLERANCE = 1e-6
_FIELD = re.compile(r"([a-z0-9_]{1,40})(\[\d{1,7}\])?(\.[a-z0-9_]{1,40})?", re.ASCII)

# Ranges of the fields of each object that are not None.
_ANGLE: Range = (-math.pi, math.pi)
_DEVICE: dict[str, Range] = {
    "num_qubits": (1, MAX_QUBITS),
    "max_shots": (0, 10**15),
    **dict.fromkeys(("dt_ns", "feed_forward_ns", "rep_delay_ns", "overhead_ns"), NS),
    "zz_strength": (-10.0, 10.0),
}
_FIT: dict[str, Range] = {
    **dict.fromkeys(
        ("bodies", "widest", "two_qubit_gates", "one_qubit_gates", "depth"), (0, 10**9)
    ),
    **dict.fromkeys(("delay_ns", "duration_ns"), (0.0, 1e18)),
}
_NATIVE: dict[str, Range] = {"num_qubits": (1, 64), "num_params": (0, 64)}
_QUBIT: dict[str, Range] = {
    **dict.fromkeys(("t1_us", "t2_us", "leaked_t1_us"), US),
    "t2_star_us": STAR_US,
    **dict.fromkeys(("readout_ns", "reset_ns"), NS),
    **dict.fromkeys(("p01", "p10", "readout_error", "excited"), UNIT),
    **dict.fromkeys(("reset_error", "preparation_error", "memory_error"), UNIT),
    **dict.fromkeys(("measure_decay", "measure_excitation", "readout_decided"), UNIT),
    "leaked_readout": UNIT,
    "frequency_ghz": (0.0, 1e9),
}
_JUMPS: dict[str, Range] = {
    "per_hour": (1e-9, 1e6), "dwell_s": (1e-3, 1e9), "factor": (1e-6, 1.0),
}  # fmt: skip
_GATE: dict[str, Range] = {
    "error": UNIT, "duration_ns": NS, "over_rotation_rad": _ANGLE, "leakage": UNIT, "seepage": UNIT,
}  # fmt: skip
_MEASUREMENT: dict[str, Range] = {"error": UNIT, "duration_ns": NS}


def check(snapshot: calibration.CalibrationSnapshot) -> None:
    """Raise SnapshotError at the first value that is out of range."""
    for field in ("name", "provider", "version", "source_format", "source_digest"):
        checks.check_text(field, getattr(snapshot, field))
    if not snapshot.name:
        raise SnapshotError("name", "empty", hint="give the device a name")
    checks.check_ranges("", snapshot, _DEVICE)
    if snapshot.fitted is not None:
        _scope(snapshot.fitted, snapshot.num_qubits)
    if snapshot.outside is not None:
        _outside(snapshot, snapshot.outside)
    if snapshot.calibrated:
        checks.check_date("calibrated", snapshot.calibrated)
    native: set[str] = set()
    for field in ("native_gates", "fractional_gates"):
        for index, each in enumerate(getattr(snapshot, field)):
            checks.check_gate_name(f"{field}[{index}].name", each.name)
            checks.check_ranges(f"{field}[{index}].", each, _NATIVE)
            checks.check_once(f"{field}[{index}].name", each.name, native)
    if snapshot.all_to_all and snapshot.coupling:
        hint = "leave coupling empty there"
        raise SnapshotError("coupling", "pairs on an all-to-all device", hint=hint)
    _groups(snapshot, "coupling", snapshot.coupling)
    for field in ("unusable", "unmeasured"):
        checks.check_qubits(field, getattr(snapshot, field), snapshot.num_qubits)
    _angle_bounds(snapshot)
    for field in ("qubits", "coordinates"):
        if len(getattr(snapshot, field)) not in (0, snapshot.num_qubits):
            text = f"{len(getattr(snapshot, field))} entries for {snapshot.num_qubits} qubits"
            hint = "give one entry for each qubit, or none"
            raise SnapshotError(field, text, hint=hint)
    for index, place in enumerate(snapshot.coordinates):
        for value in place:
            checks.check_range(f"coordinates[{index}]", value, (-1e6, 1e6))
    for index, qubit in enumerate(snapshot.qubits):
        checks.check_ranges(f"qubits[{index}].", qubit, _QUBIT)
        if qubit.t1_jumps is not None:
            checks.check_ranges(f"qubits[{index}].t1_jumps.", qubit.t1_jumps, _JUMPS)
            if qubit.t1_us is None:
                hint = "give t1_us, or leave t1_jumps out"
                raise SnapshotError(f"qubits[{index}].t1_jumps", "jumps without T1", hint=hint)
    _gates(snapshot)
    _measurements(snapshot)
    _crosstalk(snapshot)
    _groups(snapshot, "zz", [tuple(sorted(each.qubits)) for each in snapshot.zz])
    for index, term in enumerate(snapshot.zz):
        checks.check_range(f"zz[{index}].rate_khz", term.rate_khz, checks.KHZ)
    together = snapshot.correlated_readout
    _groups(snapshot, "correlated_readout", [tuple(sorted(each.qubits)) for each in together])
    for index, group in enumerate(together):
        at, size = f"correlated_readout[{index}]", len(group.qubits)
        checks.check_confusion(at, group.confusion, size, _COLUMN_TOLERANCE)
    check_layers(snapshot)
    check_modules(snapshot)
    if snapshot.logical is not None:
        check_logical(snapshot.logical)
    if snapshot.analog is not None:
        _analog(snapshot, snapshot.analog)
    _dates(snapshot)


def clamps(snapshot: calibration.CalibrationSnapshot) -> tuple[tuple[str, str], ...]:
    """Return (field, replacement in a noise model) of each value that a noise model limits or
    contradicts. These are T2 above 2 T1, T2* above T2, a memory error or crosstalk of a measurement
    above 1/3, a readout error that is not the mean of p01 and p10, leakage beyond the error of its
    gate, an error of 1, which marks a gate that does not work, and an error beyond the largest of a
    depolarizing channel: d / (d + 1) with d = 2^n, as average gate infidelity."""
    results = []
    for index, qubit in enumerate(snapshot.qubits):
        if qubit.t1_us is not None and qubit.t2_us is not None and qubit.t2_us > 2 * qubit.t1_us:
            note = f"T2 = {qubit.t2_us:g} us is above 2 T1; used: {2 * qubit.t1_us:g} us"
            results.append((f"qubits[{index}].t2_us", note))
        star_us, echo_us = qubit.t2_star_us, qubit.t2_limited_us
        if star_us is not None and echo_us is not None and star_us > echo_us:
            note = f"T2* = {star_us:g} us is above T2; used: {echo_us:g} us, no detuning"
            results.append((f"qubits[{index}].t2_star_us", note))
        if (qubit.memory_error or 0.0) > calibration.MOST_MEMORY_ERROR:
            note = f"{qubit.memory_error:g} is above 1/3; used: complete dephasing in each layer"
            results.append((f"qubits[{index}].memory_error", note))
        if qubit.readout_error is not None and qubit.p01 is not None and qubit.p10 is not None:
            mean = (qubit.p01 + qubit.p10) / 2.0
            if abs(mean - qubit.readout_error) > MAX_OFF_MEAN:
                note = f"{qubit.readout_error:g} is not the mean of p01 and p10, {mean:g}; used:"
                results.append((f"qubits[{index}].readout_error", f"{note} p01 and p10"))
    for index, each in enumerate(snapshot.measurement_crosstalk):
        if (each.error or 0.0) > calibration.MOST_MEMORY_ERROR:
            note = f"{each.error:g} is above 1/3; used: complete dephasing by each measurement"
            results.append((f"measurement_crosstalk[{index}].error", note))
    arity = {gate.name: gate.num_qubits for gate in snapshot.all_gates}
    for index, gate in enumerate(snapshot.gates):
        side = 1 << (len(gate.qubits) or arity.get(gate.name, 1))
        if gate.error is not None and gate.error > side / (side + 1):
            place = f"{gate.name} on {list(gate.qubits) or 'all qubits'}"
            note = f"{gate.error:g} of {place} marks a gate that does not work; used:"
            note += f" {side / (side + 1):g}, complete depolarization"
            results.append((f"gates[{index}].error", note))
        if (gate.leakage or 0.0) > 1.0 - 1.0 / side:
            note = f"{gate.leakage:g} is above {1.0 - 1.0 / side:g}, the leakage of a gate whose"
            results.append((f"gates[{index}].leakage", f"{note} qubits all leak from |1>; used"))
            continue
        leaked = calibration.leaked_infidelity(gate, side.bit_length() - 1)
        if gate.error is not None and leaked > gate.error:
            note = f"{gate.leakage:g} alone has an infidelity of {leaked:.3g}, above the error of"
            note += f" {gate.name} on {list(gate.qubits) or 'all qubits'}, {gate.error:g}; used:"
            results.append((f"gates[{index}].leakage", f"{note} leakage, no depolarizing error"))
    return tuple(results)


def _outside(
    snapshot: calibration.CalibrationSnapshot, outside: calibration.CalibrationSnapshot
) -> None:
    """Check the calibration for circuits outside the scope of a fit: one of the same device."""
    if snapshot.fitted is None or outside.outside is not None:
        hint = "leave it out"
        raise SnapshotError("outside", "has no scope of a fit around it", hint=hint)
    if (outside.num_qubits, outside.all_gates) != (snapshot.num_qubits, snapshot.all_gates):
        hint = "the calibration that the fit began with"
        raise SnapshotError("outside", "qubits or native gates of another device", hint=hint)
    check(outside)


def _scope(scope: calibration.FitScope, num_qubits: int) -> None:
    checks.check_text("fitted.device", scope.device)
    checks.check_text("fitted.refused", scope.refused, MAX_REASON)
    checks.check_qubits("fitted.qubits", scope.qubits, num_qubits)
    checks.check_ranges("fitted.", scope, _FIT)
    for pair in scope.pairs:
        checks.check_qubits("fitted.pairs", pair, num_qubits)
    checks.check_entries("fitted.gates", scope.gates, MAX_GATES)
    for name, count in scope.gates:
        checks.check_text("fitted.gates", name)
        checks.check_range("fitted.gates", count, (0, 10**9))
    checks.check_entries("fitted.families", scope.families, MAX_FAMILIES)
    for family in scope.families:
        checks.check_text("fitted.families", family)
    for field in ("first", "last"):
        if value := getattr(scope, field):
            checks.check_date(f"fitted.{field}", value)


def _groups(
    snapshot: calibration.CalibrationSnapshot, field: str, groups: Sequence[tuple[int, ...]]
) -> None:
    """Check groups of qubits, each of which is listed once."""
    seen: set[tuple[int, ...]] = set()
    at = "" if field == "coupling" else ".qubits"
    for index, qubits in enumerate(groups):
        checks.check_qubits(f"{field}[{index}]{at}", qubits, snapshot.num_qubits)
        checks.check_once(f"{field}[{index}]{at}", qubits, seen)


def _gates(snapshot: calibration.CalibrationSnapshot) -> None:
    checks.check_entries("gates", snapshot.gates, MAX_GATES)
    arity = {gate.name: gate.num_qubits for gate in snapshot.all_gates}
    names: set[str] = set()
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for index, gate in enumerate(snapshot.gates):
        field = f"gates[{index}]"
        if gate.name not in names:
            checks.check_gate_name(f"{field}.name", gate.name)
            names.add(gate.name)
        if gate.qubits:
            checks.check_qubits(f"{field}.qubits", gate.qubits, snapshot.num_qubits)
            if len(gate.qubits) != arity.get(gate.name, len(gate.qubits)):
                text = f"{len(gate.qubits)} qubits of {gate.name}"
                hint = f"{gate.name} acts on {arity[gate.name]}"
                raise SnapshotError(f"{field}.qubits", text, hint=hint)
        checks.check_once(f"{field}.qubits", (gate.name, gate.qubits), seen)
        checks.check_ranges(f"{field}.", gate, _GATE)
        for number, rotation in enumerate(gate.rotations):
            _rotation(f"{field}.rotations[{number}]", rotation, gate, arity)
        if gate.paulis:
            _paulis(field, gate, len(gate.qubits) or arity.get(gate.name, 0))


def _paulis(field: str, gate: calibration.GateCalibration, size: int) -> None:
    """Check the Pauli errors of a gate, beside its average infidelity."""
    if size not in (1, 2):
        hint = "give `error` of gates on more than two qubits"
        raise SnapshotError(f"{field}.paulis", f"{gate.name} acts on {size} qubits", hint=hint)
    check_paulis(f"{field}.paulis", gate.paulis, size)
    own = calibration.pauli_infidelity(gate.paulis, size)
    if gate.error is not None and abs(gate.error - own) > MAX_OFF_PAULIS * own + 1e-9:
        hint = "leave `error` out, or give the average infidelity of `paulis`"
        text = f"{gate.error:g} beside Pauli errors of {own:.4g}"
        raise SnapshotError(f"{field}.error", text, hint=hint)


def _measurements(snapshot: calibration.CalibrationSnapshot) -> None:
    checks.check_entries("measurements", snapshot.measurements, MAX_GATES)
    seen: set[tuple[str, int]] = set()
    for index, each in enumerate(snapshot.measurements):
        field = f"measurements[{index}]"
        if not calibration.is_named_measurement(each.name):
            hint = "measure_ and letters, digits or _"
            raise SnapshotError(f"{field}.name", short_repr(each.name), hint=hint)
        checks.check_qubits(f"{field}.qubit", (each.qubit,), snapshot.num_qubits)
        checks.check_once(f"{field}.qubit", (each.name, each.qubit), seen)
        checks.check_ranges(f"{field}.", each, _MEASUREMENT)


def _crosstalk(snapshot: calibration.CalibrationSnapshot) -> None:
    """Check what measurements do to other qubits."""
    terms = snapshot.measurement_crosstalk
    checks.check_entries("measurement_crosstalk", terms, MAX_GATES)
    seen: set[tuple[int, ...]] = set()
    for index, each in enumerate(terms):
        field = f"measurement_crosstalk[{index}]"
        if each.qubits:
            checks.check_qubits(f"{field}.qubits", each.qubits, snapshot.num_qubits)
        if len(each.qubits) not in (0, 2):
            hint = "the measured qubit and another one; none: any two"
            raise SnapshotError(f"{field}.qubits", f"{len(each.qubits)} qubits", hint=hint)
        checks.check_once(f"{field}.qubits", each.qubits, seen)
        checks.check_ranges(f"{field}.", each, {"error": UNIT, "angle_rad": _ANGLE})


def _angle_bounds(snapshot: calibration.CalibrationSnapshot) -> None:
    params = {gate.name: gate.num_params for gate in snapshot.all_gates}
    seen: set[str] = set()
    for index, each in enumerate(snapshot.angle_bounds):
        field = f"angle_bounds[{index}]"
        checks.check_once(f"{field}.gate", each.gate, seen)
        if params.get(each.gate) != len(each.bounds_rad):
            text = f"bounds of {len(each.bounds_rad)} angles of {short_repr(each.gate)}"
            hint = "one pair for each parameter of a native gate"
            raise SnapshotError(f"{field}.bounds_rad", text, hint=hint)
        for low, high in each.bounds_rad:
            if not low <= high or math.inf in (-low, high):
                text = f"{low:g} to {high:g}"
                raise SnapshotError(f"{field}.bounds_rad", text, hint="a finite interval")


def _rotation(
    field: str,
    rotation: calibration.PauliRotation,
    gate: calibration.GateCalibration,
    arity: dict[str, int],
) -> None:
    size = len(gate.qubits) or arity.get(gate.name, 0)
    letters = set(rotation.pauli)
    if not (letters <= set("IXYZ") and letters != {"I"} and len(rotation.pauli) == size <= 2):
        text = f"{rotation.pauli[:32]!r} after {gate.name}"
        hint = "letters I, X, Y, Z, one for each qubit of a gate on one or two"
        raise SnapshotError(f"{field}.pauli", text, hint=hint)
    checks.check_range(f"{field}.angle_rad", rotation.angle_rad, _ANGLE)


# Fields of a device that runs circuits.
_OF_CIRCUITS = (
    *("native_gates", "gates", "coupling", "all_to_all", "qubits", "zz", "correlated_readout"),
    *("measurements", "measurement_crosstalk", "layers", "modules", "links", "logical", "dynamic"),
    *("fitted", "angle_bounds", "fractional_gates"),
)


def _analog(snapshot: calibration.CalibrationSnapshot, analog: AnalogCalibration) -> None:
    """Check a device that runs pulse sequences."""
    for field in _OF_CIRCUITS:
        if getattr(snapshot, field):
            text = "in the snapshot of a device that runs pulse sequences"
            raise SnapshotError(field, text, hint="a device has gates, or an analog part")
    check_analog(analog)


def _dates(snapshot: calibration.CalibrationSnapshot) -> None:
    checks.check_entries("dates", snapshot.dates, MAX_DATES)
    checked: set[str] = set()
    for name, when in snapshot.dates.items():
        field = f"dates[{short_repr(name)}]"
        if not _FIELD.fullmatch(name):
            raise SnapshotError(field, "not the name of a field", hint="as qubits[3].t1_us")
        if when not in checked:
            checks.check_date(field, when)
            checked.add(when)


# Conversion of calibration snapshots to and from canonical JSON, with strict reading.
#
# An error names its field. The stored form is `dump(snapshot)`; its SHA-256 identifies the
# snapshot.


def dump(snapshot: calibration.CalibrationSnapshot) -> bytes:
    """Check a snapshot and return its canonical JSON: equal snapshots, equal bytes. Raises
    SnapshotError."""
    check(snapshot)
    return msgspec.json.encode(snapshot, order="deterministic")


def load(data: bytes) -> calibration.CalibrationSnapshot:
    """Read a snapshot from its JSON. Raises SnapshotError, which names the field."""
    return from_values(checks.parse(data))


def from_values(values: Any) -> calibration.CalibrationSnapshot:
    """Build a snapshot from parsed JSON: checks types, then ranges. Raises SnapshotError."""
    if not isinstance(values, dict) or values.get("kind") != "snapshot":
        hint = 'a snapshot has "kind": "snapshot"; other formats have importers'
        raise SnapshotError("kind", "the document is not a calibration snapshot", hint=hint)
    stated = values.get("format", calibration.FORMATS[0])
    if type(stated) is not int or stated not in calibration.FORMATS:
        hint = f"this version reads formats {calibration.FORMATS[0]} to {calibration.FORMATS[-1]}"
        raise SnapshotError("format", f"{short_repr(stated)} is not supported", hint=hint)
    result = checks.converted(values, calibration.CalibrationSnapshot)
    if result.format > stated:
        text = f"{stated}, with fields of format {result.format}"
        hint = f'modules, links, logical, analog and paulis need "format": {result.format}'
        raise SnapshotError("format", text, hint=hint)
    check(result)
    return result
