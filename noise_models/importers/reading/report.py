"""Report of an import: what of the source was used, ignored, defaulted or clamped."""

from __future__ import annotations

import re

import msgspec

# [3], .0-1 and "row 7" of a place in the source.
_INDEX = re.compile(r"\[\d+\]|(?<=\.)\d+(-\d+)?(?=[.\[]|$)|(?<=^row )\d+")


class ReportLine(msgspec.Struct, frozen=True):
    """One kind of field of the source, or one value that is limited."""

    field: str  # with [*] for each index
    note: str  # where it went, or why not
    count: int = 1


class ImportReport(msgspec.Struct, frozen=True):
    """What became of the fields of the imported files.

    `clamped` names values that are stored as measured and limited when a noise model is built.
    """

    format: str
    used: tuple[ReportLine, ...] = ()
    ignored: tuple[ReportLine, ...] = ()
    defaulted: tuple[ReportLine, ...] = ()
    clamped: tuple[ReportLine, ...] = ()


class Recorder:
    """Counts fields by their pattern while a source is read."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], int] = {}
        self._ignored: dict[tuple[str, str], int] = {}
        self._defaulted: dict[tuple[str, str], int] = {}
        self._clamped: list[ReportLine] = []

    def used(self, field: str, note: str) -> None:
        """The value of a field went into the snapshot; `note` says where."""
        _count(self._used, field, note)

    def ignored(self, field: str, note: str) -> None:
        """A field was passed over; `note` says why."""
        _count(self._ignored, field, note)

    def defaulted(self, field: str, note: str) -> None:
        """A field of the snapshot was not given; `note` says what stands for it."""
        _count(self._defaulted, field, note)

    def clamped(self, field: str, note: str) -> None:
        """A value that a noise model limits, or that was corrected."""
        self._clamped.append(ReportLine(field, note))

    def report(self, name: str) -> ImportReport:
        """All of it, in the order in which fields were met first."""
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
