"""Calibration snapshots as JSON: reading, writing, and the checks of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from noise_models import strict_json
from noise_models.calibration import (
    FORMAT,
    CalibrationSnapshot,
    CorrelatedReadout,
    FitScope,
    GateCalibration,
    NativeGate,
    PauliRotation,
    QubitCalibration,
    Technology,
    ZZCoupling,
)
from noise_models.strict_json import SnapshotError, short_repr

__all__ = [
    "FORMAT",
    "CalibrationSnapshot",
    "CorrelatedReadout",
    "GateCalibration",
    "NativeGate",
    "PauliRotation",
    "QubitCalibration",
    "Technology",
    "ZZCoupling",
    "check",
    "clamps",
    "dump",
    "from_values",
    "load",
]

# Ranges and consistency of a calibration snapshot.
#
# `check` rejects values that no device can have; `clamps` lists the measured values that a noise
# model limits, because they contradict the model's physics.

MAX_QUBITS = 10_000
MAX_GATES = 2_000_000
MAX_DATES = 1_000_000
MAX_NAME_CHARS = 100
MAX_FAMILIES = 1_000
MAX_READ_TOGETHER = 8  # a confusion matrix of 256 x 256
_MAX_US = 1e15  # 32 years
_MAX_NS = 1e12  # 17 minutes
_COLUMN_TOLERANCE = 1e-6

_TIMES_US = ("t1_us", "t2_us")
_TIMES_NS = ("readout_ns", "reset_ns")
_PROBABILITIES = ("p01", "p10", "readout_error", "excited", "reset_error", "preparation_error")
_GATE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_FIELD = re.compile(r"([a-z0-9_]{1,40})(\[\d{1,7}\])?(\.[a-z0-9_]{1,40})?", re.ASCII)


def check(snapshot: CalibrationSnapshot) -> None:
    """Raise SnapshotError at the first value that is out of range."""
    for field in ("name", "provider", "version", "source_format", "source_digest"):
        _text(field, getattr(snapshot, field))
    if not snapshot.name:
        raise SnapshotError("name", "empty", hint="give the device a name")
    _count("num_qubits", snapshot.num_qubits, 1, MAX_QUBITS)
    _count("max_shots", snapshot.max_shots, 0, 10**15)
    _range("dt_ns", snapshot.dt_ns, 0.0, _MAX_NS)
    _range("feed_forward_ns", snapshot.feed_forward_ns, 0.0, _MAX_NS)
    _range("rep_delay_ns", snapshot.rep_delay_ns, 0.0, _MAX_NS)
    _range("overhead_ns", snapshot.overhead_ns, 0.0, _MAX_NS)
    if snapshot.zz_strength is not None:
        _range("zz_strength", snapshot.zz_strength, -10.0, 10.0)
    if snapshot.fitted is not None:
        _scope(snapshot.fitted, snapshot.num_qubits)
    if snapshot.calibrated:
        _date("calibrated", snapshot.calibrated)
    _natives(snapshot)
    _coupling(snapshot)
    if len(snapshot.qubits) not in (0, snapshot.num_qubits):
        raise SnapshotError(
            "qubits",
            f"{len(snapshot.qubits)} entries for {snapshot.num_qubits} qubits",
            hint="give one entry for each qubit, or none",
        )
    if len(snapshot.coordinates) not in (0, snapshot.num_qubits):
        raise SnapshotError(
            "coordinates",
            f"{len(snapshot.coordinates)} entries for {snapshot.num_qubits} qubits",
            hint="give one pair for each qubit, or none",
        )
    for index, place in enumerate(snapshot.coordinates):
        for value in place:
            _range(f"coordinates[{index}]", value, -1e6, 1e6)
    for index, qubit in enumerate(snapshot.qubits):
        _qubit(f"qubits[{index}]", qubit)
    _gates(snapshot)
    _interactions(snapshot)
    _dates(snapshot)


def clamps(snapshot: CalibrationSnapshot) -> tuple[tuple[str, str], ...]:
    """Return (field, replacement in a noise model) of each value that a noise model limits.

    These are T2 above 2 T1, an error of 1, which marks a gate that does not work, and an error
    beyond the largest of a depolarizing channel: d / (d + 1) with d = 2^n, as average gate
    infidelity.
    """
    results = []
    for index, qubit in enumerate(snapshot.qubits):
        if qubit.t1_us is not None and qubit.t2_us is not None and qubit.t2_us > 2 * qubit.t1_us:
            results.append(
                (
                    f"qubits[{index}].t2_us",
                    f"T2 = {qubit.t2_us:g} us is above 2 T1; used: {2 * qubit.t1_us:g} us",
                )
            )
    arity = {gate.name: gate.num_qubits for gate in snapshot.native_gates}
    for index, gate in enumerate(snapshot.gates):
        side = 1 << (len(gate.qubits) or arity.get(gate.name, 1))
        if gate.error is not None and gate.error > side / (side + 1):
            place = f"{gate.name} on {list(gate.qubits) or 'all qubits'}"
            results.append(
                (
                    f"gates[{index}].error",
                    f"{gate.error:g} of {place} marks a gate that does not work; used:"
                    f" {side / (side + 1):g}, complete depolarization",
                )
            )
    return tuple(results)


def _scope(scope: FitScope, num_qubits: int) -> None:
    _text("fitted.device", scope.device)
    _qubits("fitted.qubits", scope.qubits, num_qubits)
    for name in ("bodies", "widest", "two_qubit_gates"):
        _count(f"fitted.{name}", getattr(scope, name), 0, 10**9)
    _count("fitted.families", len(scope.families), 0, MAX_FAMILIES)
    for family in scope.families:
        _text("fitted.families", family)
    for field in ("first", "last"):
        if value := getattr(scope, field):
            _date(f"fitted.{field}", value)


def _natives(snapshot: CalibrationSnapshot) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(snapshot.native_gates):
        field = f"native_gates[{index}]"
        _gate_name(f"{field}.name", gate.name)
        _count(f"{field}.num_qubits", gate.num_qubits, 1, 64)
        _count(f"{field}.num_params", gate.num_params, 0, 64)
        if gate.name in seen:
            raise SnapshotError(f"{field}.name", f"{gate.name} twice", hint="remove one of the two")
        seen.add(gate.name)


def _coupling(snapshot: CalibrationSnapshot) -> None:
    if snapshot.all_to_all and snapshot.coupling:
        raise SnapshotError(
            "coupling", "pairs on an all-to-all device", hint="leave coupling empty there"
        )
    seen: set[tuple[int, ...]] = set()
    for index, pair in enumerate(snapshot.coupling):
        _qubits(f"coupling[{index}]", pair, snapshot.num_qubits)
        _once(f"coupling[{index}]", pair, seen)


def _qubit(field: str, qubit: QubitCalibration) -> None:
    for name in _TIMES_US:
        value = getattr(qubit, name)
        if value is not None:
            _range(f"{field}.{name}", value, 0.0, _MAX_US)
            if value == 0.0:
                raise SnapshotError(
                    f"{field}.{name}", "0 us", hint="leave out what was not measured"
                )
    for name in _TIMES_NS:
        if (value := getattr(qubit, name)) is not None:
            _range(f"{field}.{name}", value, 0.0, _MAX_NS)
    for name in _PROBABILITIES:
        if (value := getattr(qubit, name)) is not None:
            _range(f"{field}.{name}", value, 0.0, 1.0)
    if qubit.frequency_ghz is not None:
        _range(f"{field}.frequency_ghz", qubit.frequency_ghz, 0.0, 1e9)


def _gates(snapshot: CalibrationSnapshot) -> None:
    if len(snapshot.gates) > MAX_GATES:
        raise SnapshotError("gates", f"{len(snapshot.gates)} entries", hint=f"at most {MAX_GATES}")
    arity = {gate.name: gate.num_qubits for gate in snapshot.native_gates}
    names: set[str] = set()
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for index, gate in enumerate(snapshot.gates):
        field = f"gates[{index}]"
        if gate.name not in names:
            _gate_name(f"{field}.name", gate.name)
            names.add(gate.name)
        if gate.qubits:
            _qubits(f"{field}.qubits", gate.qubits, snapshot.num_qubits)
            if len(gate.qubits) != arity.get(gate.name, len(gate.qubits)):
                raise SnapshotError(
                    f"{field}.qubits",
                    f"{len(gate.qubits)} qubits of {gate.name}",
                    hint=f"{gate.name} acts on {arity[gate.name]}",
                )
        if (gate.name, gate.qubits) in seen:
            raise SnapshotError(
                f"{field}.qubits",
                f"{gate.name} on {list(gate.qubits)} twice",
                hint="remove one of the two",
            )
        seen.add((gate.name, gate.qubits))
        if gate.error is not None:
            _range(f"{field}.error", gate.error, 0.0, 1.0)
        if gate.duration_ns is not None:
            _range(f"{field}.duration_ns", gate.duration_ns, 0.0, _MAX_NS)
        if gate.over_rotation_rad is not None:
            _range(f"{field}.over_rotation_rad", gate.over_rotation_rad, -math.pi, math.pi)
        for number, rotation in enumerate(gate.rotations):
            _rotation(f"{field}.rotations[{number}]", rotation, gate, arity)


def _rotation(
    field: str, rotation: PauliRotation, gate: GateCalibration, arity: dict[str, int]
) -> None:
    size = len(gate.qubits) or arity.get(gate.name, 0)
    letters = set(rotation.pauli)
    if not (letters <= set("IXYZ") and letters != {"I"} and len(rotation.pauli) == size <= 2):
        raise SnapshotError(
            f"{field}.pauli",
            f"{rotation.pauli[:32]!r} after {gate.name}",
            hint="letters I, X, Y, Z, one for each qubit of a gate on one or two",
        )
    _range(f"{field}.angle_rad", rotation.angle_rad, -math.pi, math.pi)


def _interactions(snapshot: CalibrationSnapshot) -> None:
    pairs: set[tuple[int, ...]] = set()
    for index, term in enumerate(snapshot.zz):
        _qubits(f"zz[{index}].qubits", term.qubits, snapshot.num_qubits)
        _once(f"zz[{index}].qubits", tuple(sorted(term.qubits)), pairs)
        _range(f"zz[{index}].rate_khz", term.rate_khz, -1e6, 1e6)
    groups: set[tuple[int, ...]] = set()
    for index, group in enumerate(snapshot.correlated_readout):
        field = f"correlated_readout[{index}]"
        _qubits(f"{field}.qubits", group.qubits, snapshot.num_qubits)
        _once(f"{field}.qubits", tuple(sorted(group.qubits)), groups)
        _count(f"{field}.qubits", len(group.qubits), 1, MAX_READ_TOGETHER)
        side = 1 << len(group.qubits)
        if len(group.confusion) != side or any(len(row) != side for row in group.confusion):
            raise SnapshotError(
                f"{field}.confusion",
                f"not {side} rows of {side} numbers",
                hint="one row for each outcome that is read, one column for each true one",
            )
        for row, values in enumerate(group.confusion):
            for column, value in enumerate(values):
                _range(f"{field}.confusion[{row}][{column}]", value, 0.0, 1.0)
        for column in range(side):
            total = math.fsum(row[column] for row in group.confusion)
            if abs(total - 1.0) > _COLUMN_TOLERANCE:
                raise SnapshotError(
                    f"{field}.confusion",
                    f"column {column} sums to {total:.6g}",
                    hint="the outcomes of one true state have a total probability of 1",
                )


def _dates(snapshot: CalibrationSnapshot) -> None:
    if len(snapshot.dates) > MAX_DATES:
        raise SnapshotError("dates", f"{len(snapshot.dates)} entries", hint=f"at most {MAX_DATES}")
    checked: set[str] = set()
    for name, when in snapshot.dates.items():
        if not _FIELD.fullmatch(name):
            raise SnapshotError(
                f"dates[{short_repr(name)}]", "not the name of a field", hint="as qubits[3].t1_us"
            )
        if when not in checked:
            _date(f"dates[{short_repr(name)}]", when)
            checked.add(when)


def _text(field: str, value: str) -> None:
    if len(value) > MAX_NAME_CHARS or not value.isprintable():
        raise SnapshotError(
            field, short_repr(value), hint=f"printable text of at most {MAX_NAME_CHARS} characters"
        )


def _gate_name(field: str, name: str) -> None:
    if not _GATE_NAME.fullmatch(name):
        raise SnapshotError(
            field, f"the gate name {short_repr(name)}", hint="letters, digits and underscores"
        )


def _count(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SnapshotError(field, short_repr(value), hint=f"{low} to {high}")


def _range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false of NaN
        raise SnapshotError(field, f"{value:g} is out of range", hint=f"{low:g} to {high:g}")


def _qubits(field: str, qubits: Iterable[int], num_qubits: int) -> None:
    inputs = tuple(qubits)
    for qubit in inputs:
        if not 0 <= qubit < num_qubits:
            raise SnapshotError(
                field, f"qubit {short_repr(qubit)} is out of range", hint=f"0 to {num_qubits - 1}"
            )
    if len(set(inputs)) < len(inputs):
        raise SnapshotError(field, f"a qubit twice in {list(inputs)}", hint="name each qubit once")


def _once(field: str, key: tuple[int, ...], seen: set[tuple[int, ...]]) -> None:
    if key in seen:
        raise SnapshotError(field, f"{list(key)} twice", hint="remove one of the two")
    seen.add(key)


def _date(field: str, value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise SnapshotError(
            field, f"{short_repr(value)} is not a date", hint="ISO 8601, as 2025-02-26T06:56:41Z"
        ) from None


# Conversion of calibration snapshots to and from canonical JSON, with strict reading.
#
# An error names its field. The stored form is `dump(snapshot)`; its SHA-256 identifies the
# snapshot.


def dump(snapshot: CalibrationSnapshot) -> bytes:
    """Check a snapshot and return its canonical JSON: equal snapshots, equal bytes.

    Raises SnapshotError.
    """
    check(snapshot)
    return msgspec.json.encode(snapshot, order="deterministic")


def load(data: bytes) -> CalibrationSnapshot:
    """Read a snapshot from its JSON. Raises SnapshotError, which names the field."""
    return from_values(strict_json.parse(data))


def from_values(values: Any) -> CalibrationSnapshot:
    """Build a snapshot from parsed JSON: checks types, then ranges. Raises SnapshotError."""
    if not isinstance(values, dict) or values.get("kind") != "snapshot":
        raise SnapshotError(
            "kind",
            "the document is not a calibration snapshot",
            hint='a snapshot has "kind": "snapshot"; import other formats with'
            " noise_models.importers",
        )
    if values.get("format", FORMAT) != FORMAT:
        raise SnapshotError(
            "format",
            f"{strict_json.short_repr(values['format'])} is not supported",
            hint=f"this version reads format {FORMAT}",
        )
    try:
        result = msgspec.convert(values, CalibrationSnapshot)
    except msgspec.ValidationError as error:
        raise strict_json.type_error(error, CalibrationSnapshot) from None
    check(result)
    return result
