"""Importers of calibration files: each turns the files of one vendor into a snapshot.

An importer is a module with NAME, `recognizes` and `read`. `REGISTRY` lists those of simenv; other
distributions add theirs by the entry point `simenv.importers`: docs/guides/write_importer.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec

from noise_models.calibration import CalibrationSnapshot
from noise_models.importers import (
    braket,
    cunqa,
    ibm_csv,
    ibm_properties,
    ionq,
    iqm,
    native,
    pulser,
    qdmi,
    qhw,
    qiskit_target,
    trapped_ion,
)
from noise_models.importers.builder import SnapshotBuilder
from noise_models.importers.convert import parsed_number, qubit_index
from noise_models.importers.report import ImportReport, ReportLine
from noise_models.importers.source import Source, parse
from noise_models.strict_json import SnapshotError

__all__ = [
    "ENTRY_POINTS", "REGISTRY", "ImportReport", "Importer", "ReportLine", "SnapshotBuilder",
    "SnapshotError", "Source", "import_snapshot", "importers", "parsed_number", "qubit_index",
]  # fmt: skip
ENTRY_POINTS = "simenv.importers"
_MOST_UNREAD = 8  # fields that an error names


@runtime_checkable
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
        *(native, pulser, qiskit_target, qhw, ibm_properties, cunqa, braket, ionq, iqm, qdmi),
        *(trapped_ion, ibm_csv),
    )
}


def importers() -> dict[str, Importer]:
    """Return the importers of this distribution, then those of entry points by name, without the
    ones that cannot be used."""
    return _installed()[0]


def _installed() -> tuple[dict[str, Importer], list[str]]:
    """Return the importers by name, and why each other entry point is no usable one."""
    from importlib.metadata import entry_points  # here: importing it takes 10 ms

    results = dict(REGISTRY)
    broken = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        at = f"entry point {entry.name!r} of {ENTRY_POINTS!r} ({entry.value})"
        try:
            found = entry.load()
        except Exception as error:  # noqa: BLE001 - another distribution may raise anything
            broken.append(f"{at}: {type(error).__name__}: {error}"[:200])
            continue
        if not isinstance(found, Importer) or entry.name != found.NAME:
            broken.append(f"{at} is not an importer of that name with NAME, recognizes and read")
        elif entry.name in results:
            broken.append(f"{at}: there is another importer of this name")
        else:
            results[entry.name] = found
    return results, broken


def _known() -> tuple[dict[str, Importer], str]:
    """Return the importers, and a text that names them and the entry points left out."""
    known, broken = _installed()
    return known, "; left out: ".join((f"known: auto, {', '.join(known)}", *broken))


def import_snapshot(
    files: Mapping[str, bytes],
    source_format: str = "auto",
    name: str = "",
    *,
    allow_ignored: bool = False,
) -> tuple[CalibrationSnapshot, ImportReport]:
    """Convert calibration files, by their names, to a snapshot and a report of their fields.

    `source_format`: a key of `importers()`, or "auto" to detect it. `name`: of the device; "" takes
    the name that the files give. `allow_ignored`: accept fields that look like noise and that the
    format does not have; the snapshot's `unread` names them. Raises SnapshotError, which names the
    field.
    """
    source = parse(files)
    importer = REGISTRY.get(source_format) or _importer(source, source_format)
    if importer.NAME in REGISTRY:
        snapshot, report = importer.read(source, name)
    else:
        snapshot, report = _foreign(importer, partial(_read, importer, source, name))
    if not report.unread:
        return snapshot, report
    fields = tuple(line.field for line in report.unread)
    if not allow_ignored:
        raise _unread(report)
    return msgspec.structs.replace(snapshot, unread=fields), report


def _importer(source: Source, source_format: str) -> Importer:
    if source_format != "auto":
        known, hint = _known()
        if source_format in known:
            return known[source_format]
        raise SnapshotError("format", f"{source_format!r} is unknown", hint=hint)
    for importer in REGISTRY.values():
        if importer.recognizes(source):
            return importer
    known, listed = _known()  # entry points are read only if necessary
    for importer in known.values():
        if importer.NAME not in REGISTRY and _foreign(
            importer, partial(_recognizes, importer, source)
        ):
            return importer
    names = ", ".join((*source.documents, *source.tables))
    if any("errors" in value or value.get("kind") == "channels" for _, value in source.objects()):
        text = "a noise model without a device, not calibration data"
        hint = "give it as the noise of a task: noise="
        raise SnapshotError(names, text, hint=hint)
    text = "of no known format"
    if columns := [column for table in source.tables.values() for column in table.columns]:
        shown = ", ".join(column for column in columns if column.lower() != "qubit")
        text += f": {ibm_csv.NAME} has none of the columns {shown}"[:300]
    hint = "write a device of your own with simenv devices new, or name the format with"
    hint += f" source_format=; {listed}"
    raise SnapshotError(names, text, hint=hint)


def _recognizes(importer: Importer, source: Source) -> bool:
    return bool(importer.recognizes(source))


def _read(
    importer: Importer, source: Source, name: str
) -> tuple[CalibrationSnapshot, ImportReport]:
    answer: Any = importer.read(source, name)
    snapshot, report = answer
    if not isinstance(snapshot, CalibrationSnapshot) or not isinstance(report, ImportReport):
        text = f"read returned {type(snapshot).__name__} and {type(report).__name__}"
        raise TypeError(f"{text}, not a CalibrationSnapshot and an ImportReport")
    return snapshot, report


_Answer = TypeVar("_Answer")


def _foreign(importer: Importer, call: Callable[[], _Answer]) -> _Answer:
    """Call an importer of another distribution. Raises SnapshotError for whatever it raises."""
    try:
        return call()
    except SnapshotError:
        raise
    except Exception as error:
        text = f"the importer failed: {type(error).__name__}: {error}"[:200]
        hint = "its distribution must raise SnapshotError with the place"
        raise SnapshotError(importer.NAME, text, hint=hint) from error


def _unread(report: ImportReport) -> SnapshotError:
    """Return the error that names the fields which look like noise and were not read."""
    shown, more = report.unread[:_MOST_UNREAD], len(report.unread) - _MOST_UNREAD
    places = ", ".join(line.field for line in shown) + (f" and {more} more" if more > 0 else "")
    one = len(report.unread) == 1
    text = f"{'looks' if one else 'look'} like noise, and the format {report.format} has no such"
    text += f" {'field' if one else 'fields'}"
    notes = "; ".join(line.note for line in shown if line.note)
    hint = "rename it as the format does; allow_ignored=True imports the device"
    return SnapshotError(
        places, f"{text}: {notes}" if notes else text, hint=f"{hint} without this noise"
    )
