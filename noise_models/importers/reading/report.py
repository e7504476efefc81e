"""Report of an import: the fields of the source that were used, ignored, defaulted or clamped."""

from __future__ import annotations

import re

import msgspec

# Indices in a place in the source: [3], .0-1 and "row 7".
_INDEX = re.compile(r"\[\d+\]|(?<=\.)\d+(-\d+)?(?=[.\[]|$)|(?<=^row )\d+")


class ReportLine(msgspec.Struct, frozen=True):
    """Line for one kind of field of the source, or for one clamped value."""

    field: str  # [*] replaces each index
    note: str  # field of the snapshot that stores the value, or the reason why none does
    count: int = 1


class ImportReport(msgspec.Struct, frozen=True):
    """Report on the fields of the imported files.

    `clamped` names values that are stored as measured and limited when a noise model is built.
    """

    format: str
    used: tuple[ReportLine, ...] = ()
    ignored: tuple[ReportLine, ...] = ()
    defaulted: tuple[ReportLine, ...] = ()
    clamped: tuple[ReportLine, ...] = ()


class Recorder:
    """Counter of fields by their pattern while a source is read."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], int] = {}
        self._ignored: dict[tuple[str, str], int] = {}
        self._defaulted: dict[tuple[str, str], int] = {}
        self._clamped: list[ReportLine] = []

    def used(self, field: str, note: str) -> None:
        """Count a field whose value is stored in the snapshot; `note` names the snapshot's
        field."""
        _count(self._used, field, note)

    def ignored(self, field: str, note: str) -> None:
        """Count a field that is not stored; `note` gives the reason."""
        _count(self._ignored, field, note)

    def defaulted(self, field: str, note: str) -> None:
        """Count a missing field of the snapshot; `note` gives the default."""
        _count(self._defaulted, field, note)

    def clamped(self, field: str, note: str) -> None:
        """Add a value that a noise model limits, or that was corrected."""
        self._clamped.append(ReportLine(field, note))

    def report(self, name: str) -> ImportReport:
        """Return the report; fields are in the order of their first use."""
        return ImportReport(
            name,
            _lines(self._used),
            _lines(self._ignored),
            _lines(self._defaulted),
            tuple(self._clamped),
        )


def _count(counts: dict[tuple[str, str], int], field: str, note: str) -> None:
    key = (_INDEX.sub(lambda at: "[*]" if at[0][0] == "[" else "*", field), note)
    counts[key] = counts.get(key, 0) + 1


def _lines(counts: dict[tuple[str, str], int]) -> tuple[ReportLine, ...]:
    return tuple(ReportLine(field, note, count) for (field, note), count in counts.items())
