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
    """Report on the fields of the imported files. `missing` names what the device does not have;
    `clamped` names values that are stored as measured and limited when a noise model is built.
    `unread` names fields that look like noise and that the format does not have: an import refuses
    them where the caller does not accept their loss."""

    format: str
    used: tuple[ReportLine, ...] = ()
    ignored: tuple[ReportLine, ...] = ()
    defaulted: tuple[ReportLine, ...] = ()
    clamped: tuple[ReportLine, ...] = ()
    missing: tuple[ReportLine, ...] = ()
    unread: tuple[ReportLine, ...] = ()


class Recorder:
    """Counter of fields by their pattern while a source is read."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str], int] = {}
        self._ignored: dict[tuple[str, str], int] = {}
        self._defaulted: dict[tuple[str, str], int] = {}
        self._clamped: list[ReportLine] = []
        self._missing: list[ReportLine] = []
        self._unread: dict[tuple[str, str], int] = {}

    def used(self, field: str, note: str) -> None:
        """Count a field whose value is stored in the snapshot; `note` names the snapshot's
        field."""
        _count(self._used, field, note)

    def place(self, note: str) -> str:
        """Return the field whose value the snapshot's field `note` stores; "": there is none."""
        return next((field for field, other in self._used if other == note), "")

    def ignored(self, field: str, note: str) -> None:
        """Count a field that is not stored; `note` gives the reason."""
        _count(self._ignored, field, note)

    def unknown(self, field: str, *, is_noise: bool | None = None, note: str = "") -> None:
        """Count a field that the format does not have. It is unread if it looks like noise by the
        last part of its name, or by `is_noise`; else ignored. `note`: names that it may mean."""
        if is_noise is None:
            is_noise = looks_like_noise(field.rpartition(".")[2])
        if is_noise:
            _count(self._unread, field, note)
        else:
            _count(self._ignored, field, "not used by the noise model")

    def defaulted(self, field: str, note: str) -> None:
        """Count a missing field of the snapshot; `note` gives the default."""
        _count(self._defaulted, field, note)

    def clamped(self, field: str, note: str) -> None:
        """Add a value that a noise model limits, or that was corrected."""
        self._clamped.append(ReportLine(field, note))

    def missing(self, field: str, note: str, count: int = 1) -> None:
        """Add something that the device does not have."""
        self._missing.append(ReportLine(field, note, count))

    def report(self, name: str) -> ImportReport:
        """Return the report; fields are in the order of their first use."""
        used, ignored, defaulted = map(_lines, (self._used, self._ignored, self._defaulted))
        clamped, missing = tuple(self._clamped), tuple(self._missing)
        unread = _lines(self._unread)
        return ImportReport(name, used, ignored, defaulted, clamped, missing, unread)


# Words of names of noise, where an underscore, a blank or a change of case separates words.
_NOISE = re.compile(
    r"t[12](?![0-9])|p[_ ]?(01|10|meas|init|1|2)(?![0-9])|err|infidel|fidel|prob|readout|spam|noise"
    r"|relax|dephas|decoh|coheren|depol|damp|confus|assignm|misread|leak|cross|excited|thermal|flip"
    r"|zz|over_?rotation",
    re.IGNORECASE,
)
_FIGURES_OF_FIGURES = re.compile(
    r"std|stderr|standard|uncertain|_unc(?![a-z])|_ci|confiden|mitigat|t[12][ _]err", re.IGNORECASE
)


def looks_like_noise(name: str) -> bool:
    """Return whether a name may be that of a figure of noise; that of the uncertainty of a figure
    is none."""
    return bool(_NOISE.search(name)) and not _FIGURES_OF_FIGURES.search(name)


def _count(counts: dict[tuple[str, str], int], field: str, note: str) -> None:
    key = (_INDEX.sub(lambda at: "[*]" if at[0][0] == "[" else "*", field), note)
    counts[key] = counts.get(key, 0) + 1


def _lines(counts: dict[tuple[str, str], int]) -> tuple[ReportLine, ...]:
    return tuple(ReportLine(field, note, count) for (field, note), count in counts.items())
