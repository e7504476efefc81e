"""Importers of calibration files: each turns the files of one vendor into a snapshot.

An importer is a module with NAME, `recognizes` and `read`; `REGISTRY` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import (
    braket,
    cunqa,
    ibm_csv,
    ibm_properties,
    iqm,
    native,
    qdmi,
    qhw,
    qiskit_target,
    trapped_ion,
)
from noise_models.importers.reading import ImportReport, ReportLine, Source, parse
from noise_models.strict_json import SnapshotError

__all__ = ["REGISTRY", "ImportReport", "Importer", "ReportLine", "import_snapshot"]


class Importer(Protocol):
    """Importer of one format of calibration data."""

    NAME: str

    def recognizes(self, source: Source) -> bool:
        """Return whether the files have this format."""

    def read(self, source: Source, name: str) -> tuple[CalibrationSnapshot, ImportReport]:
        """Convert the files to a snapshot and a report. Raises SnapshotError.

        `name`: of the device; "" takes the name that the files give.
        """


# Order of detection: formats with an explicit mark come first.
REGISTRY: dict[str, Importer] = {
    importer.NAME: importer
    for importer in (
        *(native, qiskit_target, qhw, ibm_properties, cunqa, braket, iqm, qdmi, trapped_ion),
        ibm_csv,
    )
}


def import_snapshot(
    files: Mapping[str, bytes], source_format: str = "auto", name: str = ""
) -> tuple[CalibrationSnapshot, ImportReport]:
    """Convert calibration files, by their names, to a snapshot and a report of their fields.

    `source_format`: a key of REGISTRY, or "auto" to detect it. `name`: of the device; "" takes the
    name that the files give. Raises SnapshotError, which names the field.
    """
    if source_format not in REGISTRY and source_format != "auto":
        hint = f"known: auto, {', '.join(REGISTRY)}"
        raise SnapshotError("format", f"{source_format!r} is unknown", hint=hint)
    source = parse(files)
    if source_format != "auto":
        return REGISTRY[source_format].read(source, name)
    for importer in REGISTRY.values():
        if importer.recognizes(source):
            return importer.read(source, name)
    if any("errors" in value or value.get("kind") == "channels" for _, value in source.objects()):
        text = "a noise model without a device, not calibration data"
        hint = "give it as the noise of a task: noise="
        raise SnapshotError(", ".join(files), text, hint=hint)
    hint = f"name it with source_format=; known: {', '.join(REGISTRY)}"
    raise SnapshotError(", ".join(files), "of no known format", hint=hint)
