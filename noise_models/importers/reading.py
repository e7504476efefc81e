"""Shared parts of the importers: files, strict values, the builder of the snapshot, the report."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import msgspec

from noise_models import strict_json
from noise_models.strict_json import SnapshotError, short_repr

# Files of one import, parsed as JSON or as a table.

MAX_FILES = 16
MAX_COLUMNS = 1_000
MAX_ROWS = 100_000
MAX_NAME_CHARS = 64  # of a device
_NO_NAME = re.compile(r"[^a-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Rows of a CSV file; column names have no spaces at their ends."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Parsed files of one import, by name."""

    documents: dict[str, Any]  # JSON
    tables: dict[str, CsvTable]  # CSV
    digest: str  # SHA-256 of names and contents, hexadecimal

    @property
    def file_name(self) -> str:
        """Name of the first file as one of a device: without its folder and ending, in letters,
        digits, `_`, `.` and `-`; "" if nothing is left of it."""
        stem = PurePath(min((*self.documents, *self.tables))).stem.lower()
        return _NO_NAME.sub("-", stem).lstrip("-._0123456789").rstrip("-._")[:MAX_NAME_CHARS]

    def objects(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (file name, value) of each document that is a JSON object."""
        return [(name, value) for name, value in self.documents.items() if isinstance(value, dict)]

    def only_object(self, message: str, hint: str = "") -> dict[str, Any]:
        """Return the JSON object of an import of one file. Raises SnapshotError with the message if
        there are other files."""
        documents = self.objects()
        if len(documents) != 1 or self.tables:
            raise SnapshotError("files", message, hint=hint)
        return documents[0][1]


def parse(files: Mapping[str, bytes]) -> Source:
    """Parse files. Raises SnapshotError, whose field is the name of the file."""
    if not files:
        raise SnapshotError("files", "no file", hint="give at least one file")
    if len(files) > MAX_FILES:
        raise SnapshotError("files", f"{len(files)} files", hint=f"at most {MAX_FILES}")
    documents: dict[str, Any] = {}
    tables: dict[str, CsvTable] = {}
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(hashlib.sha256(data).digest())
        start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:2]
        if start in (b'"{', b'"['):
            inner = strict_json.parse(data, name)  # a JSON text as a JSON string
            documents[name] = strict_json.parse(inner.encode(), name)
        elif start[:1] in (b"{", b"["):
            documents[name] = strict_json.parse(data, name)
        else:
            tables[name] = _table(data, name)
    return Source(documents, tables, digest.hexdigest())


def _table(data: bytes, name: str) -> CsvTable:
    try:
        rows = list(csv.reader(io.StringIO(strict_json.decoded(data, name)), strict=True))
    except csv.Error as error:
        raise SnapshotError(name, f"neither JSON nor CSV: {error}"[:200]) from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise SnapshotError(name, "empty", hint="give a JSON or CSV file")
    if len(rows) > MAX_ROWS or len(rows[0]) > MAX_COLUMNS:
        hint = f"at most {MAX_ROWS} and {MAX_COLUMNS}"
        raise SnapshotError(name, f"{len(rows)} rows of {len(rows[0])} columns", hint=hint)
    columns = tuple(" ".join(cell.split()) for cell in rows[0])
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        raise SnapshotError(f"{name}: header", "a column has the same name as another one")
    results = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > len(columns):
            text = f"{len(row)} cells in {len(columns)} columns"
            raise SnapshotError(f"{name}: row {number}", text)
        results.append(dict(zip(columns, (cell.strip() for cell in row), strict=False)))
    return CsvTable(columns, tuple(results))


# Strict conversion of values in calibration files: each error names its place in the source.

NS_PER_UNIT = {  # "\u00b5" is the micro sign, "\u03bc" the Greek letter
    "s": 1e9, "ms": 1e6, "us": 1e3, "\u00b5s": 1e3, "\u03bcs": 1e3, "ns": 1.0, "ps": 1e-3,
}  # fmt: skip
GHZ_PER_UNIT = {"hz": 1e-9, "khz": 1e-6, "mhz": 1e-3, "ghz": 1.0}
_MAX_TEXT = 10_000


def key_text(key: str) -> str:
    """Return a key from outside as part of the name of a place: printable ASCII, cut to 40
    characters."""
    return ascii(key)[1:-1][:40]


def mapping(value: object, field: str) -> dict[str, Any]:
    """Return a JSON object. Raises SnapshotError."""
    if not isinstance(value, dict):
        raise SnapshotError(field, f"{short_repr(value)} is not an object")
    return value


def items(value: object, field: str) -> Iterator[tuple[str, Any]]:
    """Return the entries of a JSON array with the place of each. Raises SnapshotError."""
    if not isinstance(value, list):
        raise SnapshotError(field, f"{short_repr(value)} is not a list")
    return ((f"{field}[{index}]", each) for index, each in enumerate(value))


def text(value: object, field: str) -> str:
    """Return a string. Raises SnapshotError."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise SnapshotError(field, f"{short_repr(value)} is not a text")
    return value


def number(value: object, field: str) -> float:
    """Return a finite number. Raises SnapshotError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SnapshotError(field, f"{short_repr(value)} is not a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise SnapshotError(field, f"{short_repr(value)} is not a finite number")
    return result


def integer(value: object, field: str) -> int:
    """Return a whole number of at most 64 bits. Raises SnapshotError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise SnapshotError(field, f"{short_repr(value)} is not a whole number")
    return value


def parsed_number(value: str, field: str) -> float:
    """Parse a finite number from text. Raises SnapshotError."""
    try:
        result = float(value)
    except ValueError:
        raise SnapshotError(field, f"{short_repr(value)} is not a number") from None
    return number(result, field)


def qubit_index(value: object, field: str) -> int:
    """Return the number of a qubit from a number or from digits. Raises SnapshotError."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        value = int(value)
    result = integer(value, field)
    if result < 0:
        raise SnapshotError(field, f"{short_repr(value)} is not the number of a qubit")
    return result


def probability(value: object, field: str) -> float:
    """Return a number from 0 to 1. Raises SnapshotError."""
    result = number(value, field)
    if not 0.0 <= result <= 1.0:
        raise SnapshotError(field, f"{short_repr(value)} is not a probability", hint="0 to 1")
    return result


def infidelity(value: object, field: str) -> float:
    """Return 1 - F for a fidelity F, rounded to 15 digits. Raises SnapshotError."""
    return round(1.0 - probability(value, field), 15)


Convert = Callable[[object, str], float]  # (value of the source, its place) -> number
FieldTable = Mapping[str, tuple[str, Convert]]  # key of the source -> field of the snapshot


def times(factor: float) -> Convert:
    """Return the conversion that multiplies a number by a factor, which is rounded once."""
    return lambda value, field: number(value, field) * factor


def units(factor: float) -> Convert:
    """Return the conversion of a number by a factor between units; see `scaled`."""
    return lambda value, field: scaled(number(value, field), factor)


def qubit_tuple(value: object, field: str) -> tuple[int, ...]:
    """Return the numbers of the qubits in a JSON array. Raises SnapshotError."""
    return tuple(qubit_index(each, place) for place, each in items(value, field))


def time_factor(unit: object, field: str, factors: Mapping[str, float] = NS_PER_UNIT) -> float:
    """Return the nanoseconds of a unit of time, or its entry in another table. Raises
    SnapshotError."""
    result = factors.get(unit.lower()) if isinstance(unit, str) else None
    if result is None:
        hint = f"known: {', '.join(factors)}"
        raise SnapshotError(field, f"the unit {short_repr(unit)} is unknown", hint=hint)
    return result


def frequency_factor(unit: object, field: str) -> float:
    """Return the gigahertz of a unit of frequency. Raises SnapshotError."""
    return time_factor(unit, field, GHZ_PER_UNIT)


def scaled(value: float, factor: float) -> float:
    """Return value * factor; a factor such as 1e-3 divides by 1e3, which rounds once only."""
    return value * factor if factor >= 1.0 else value / round(1.0 / factor)


# Report of an import: the fields of the source that were used, ignored, defaulted or clamped.

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


# Names and shapes of gates: Qiskit's names, and their aliases in files of other vendors.

# Qiskit's name -> (qubits, parameters).
SHAPES: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg"), (1, 0)),
    **dict.fromkeys(("p", "u1", "rx", "ry", "rz"), (1, 1)),
    **dict.fromkeys(("r", "u2"), (1, 2)),
    **dict.fromkeys(("u", "u3"), (1, 3)),
    **dict.fromkeys(
        ("cx", "cy", "cz", "ch", "cs", "csdg", "csx", "swap", "iswap", "dcx", "ecr"), (2, 0)
    ),
    **dict.fromkeys(("cp", "cu1", "crx", "cry", "crz", "rxx", "ryy", "rzz", "rzx"), (2, 1)),
    **dict.fromkeys(("xx_plus_yy", "xx_minus_yy"), (2, 2)),
    "cu3": (2, 3),
    "cu": (2, 4),
    **dict.fromkeys(("ccx", "ccz", "cswap"), (3, 0)),
}

# Two-qubit gates that do not change when their qubits are exchanged.
SYMMETRIC = frozenset(("cz", "cp", "cu1", "cs", "csdg", "swap", "iswap", "rxx", "ryy", "rzz"))

# Lower-case names of Amazon Braket, IQM, Quantinuum, IonQ, AQT and CUNQA.
_ALIASES = {
    "i": "id", "identity": "id", "pauli-x": "x", "v": "sx", "vi": "sxdg", "si": "sdg",
    "ti": "tdg", "phaseshift": "p", "prx": "r", "phased_rx": "r", "u1q": "r", "cnot": "cx",
    "cphaseshift": "cp", "cphase": "cp", "ccnot": "ccx", "xx": "rxx", "yy": "ryy",
    "zz": "rzz", "zzphase": "rzz", "xy": "xx_plus_yy",
}  # fmt: skip


def qiskit_name(name: str) -> str:
    """Return Qiskit's name of a gate, or the name in lower case if no table has it."""
    lower = name.strip().lower()
    return lower if lower in SHAPES else _ALIASES.get(lower, lower)
