"""Files of one import, parsed as JSON or as a table; limits of their number and size."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from noise_models import strict_json
from noise_models.strict_json import SnapshotError

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
        there are other files, of whatever kind."""
        found = self.objects()
        if len(found) != 1 or len(self.documents) > 1 or self.tables:
            raise SnapshotError("files", message, hint=hint)
        return found[0][1]


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


_SEPARATOR = re.compile(r"[;\t|]")


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
    if len(rows[0]) == 1 and (other := _SEPARATOR.search(rows[0][0])):
        text = f"cells are separated by {'tabs' if other[0] == chr(9) else repr(other[0])}"
        hint = "save it with commas between cells, and points in numbers"
        raise SnapshotError(f"{name}: header", text, hint=hint)
    columns = tuple(" ".join(cell.split()) for cell in rows[0])
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        raise SnapshotError(f"{name}: header", "a column has the same name as another one")
    results = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > len(columns):
            text = f"{len(row)} cells in {len(columns)} columns"
            raise SnapshotError(f"{name}: row {number}", text, hint="quote a cell that has commas")
        results.append(dict(zip(columns, (cell.strip() for cell in row), strict=False)))
    return CsvTable(columns, tuple(results))
