"""Importer of snapshots in the JSON that `noise_models.snapshot.dump` writes."""

import msgspec

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import missing
from noise_models.importers.report import ImportReport, Recorder
from noise_models.importers.source import Source
from noise_models.snapshot import clamps, from_values
from noise_models.strict_json import SnapshotError

NAME = "simenv"


def recognizes(source: Source) -> bool:
    """Return whether a document has the kind "snapshot"."""
    return any(value.get("kind") == "snapshot" for _, value in source.objects())


def read(source: Source, name: str) -> tuple[CalibrationSnapshot, ImportReport]:
    """Read the snapshot; `name` "" keeps its name. Raises SnapshotError."""
    if len(source.documents) != 1 or source.tables:
        raise SnapshotError("files", "a snapshot is one JSON file", hint="give that file alone")
    result = from_values(next(iter(source.documents.values())))
    if name:
        result = msgspec.structs.replace(result, name=name)
    recorder = Recorder()
    for field in result.__struct_fields__:
        if getattr(result, field) != getattr(_EMPTY, field):
            recorder.used(field, field)
    for field, note in clamps(result):
        recorder.clamped(field, note)
    missing.report(result, {}, recorder)
    return result, recorder.report(NAME)


_EMPTY = CalibrationSnapshot(name="", num_qubits=0)
