"""Files of one import, parsed as JSON or as a table."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noise_models import strict_json
from noise_models.errors import SnapshotError

MAX_FILES = 16
MAX_COLUMNS = 1_000
MAX_ROWS = 100_000


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

    def objects(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (file name, value) of each document that is a JSON object."""
        return [(name, value) for name, value in self.documents.items() if isinstance(value, dict)]

    def only_object(self, message: str, hint: str = "") -> dict[str, Any]:
        """Return the JSON object of an import of one file. Raises SnapshotError with the message
        if there are other files."""
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
        start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if start in (b"{", b"["):
            documents[name] = strict_json.parse(data, name)
        else:
            tables[name] = _table(data, name)
    return Source(documents, tables, digest.hexdigest())


def _table(data: bytes, name: str) -> CsvTable:
    if len(data) > strict_json.MAX_BYTES:
        raise SnapshotError(name, f"{len(data)} bytes", hint=f"at most {strict_json.MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SnapshotError(name, f"byte {error.start} is not UTF-8") from None
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise SnapshotError(name, f"neither JSON nor CSV: {error}"[:200]) from None
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise SnapshotError(name, "empty", hint="give a JSON or CSV file")
    if len(rows) > MAX_ROWS or len(rows[0]) > MAX_COLUMNS:
        raise SnapshotError(
            name,
            f"{len(rows)} rows of {len(rows[0])} columns",
            hint=f"at most {MAX_ROWS} and {MAX_COLUMNS}",
        )
    columns = tuple(" ".join(cell.split()) for cell in rows[0])
    named = [column for column in columns if column]
    if len(set(named)) < len(named):
        raise SnapshotError(f"{name}: header", "a column has the same name as another one")
    results = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) > len(columns):
            raise SnapshotError(
                f"{name}: row {number}", f"{len(row)} cells in {len(columns)} columns"
            )
        results.append(dict(zip(columns, (cell.strip() for cell in row), strict=False)))
    return CsvTable(columns, tuple(results))
