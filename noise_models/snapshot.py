"""Conversion of calibration snapshots to and from canonical JSON, with strict reading.

An error names its field. The stored form is `dump(snapshot)`; its SHA-256 identifies the snapshot.
"""

from __future__ import annotations

from typing import Any

import msgspec

from noise_models import strict_json
from noise_models.calibration import (
    FORMAT,
    CalibrationSnapshot,
    CorrelatedReadout,
    GateCalibration,
    NativeGate,
    PauliRotation,
    QubitCalibration,
    Technology,
    ZZCoupling,
)
from noise_models.errors import SnapshotError
from noise_models.snapshot_checks import check, clamps

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
