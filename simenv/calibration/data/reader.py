"""Files of measured counts: JSON lines with a header, or one JSON object with a list of circuits.

    {"kind": "simenv-counts", "format": 1, "device": "lima"}
    {"qasm": "OPENQASM 2.0; ...", "counts": {"00": 510, "11": 490}, "date": "2024-03-01T10:00:00Z"}

Fields of a row: `qasm` and `counts`; and `shots`, `date`, `layout`, `name`, `body`, `job`, `split`
where they are known, `level`, at which Qiskit's transpiler compiled the circuit for the device, and
`family`, such as the algorithm, which is by default the first word of `name`.
An object {"circuits": [row, ...]} is read as well. Other names are `datetime` for `date`, `job_id`
for `job` and `optimization_level` for `level`. Other fields are counted and ignored.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from noise_models.calibration import FitScope
from noise_models.drift import moment_s
from simenv.calibration.data.records import (
    FORMAT,
    KIND,
    CountsData,
    CountsRecord,
    DataError,
    MeasuredCircuit,
    body_of,
    written_clbits,
)
from simenv.errors import SimenvError

MAX_BYTES = 4 * 2**30
MAX_ROWS = 1_000_000
MAX_COUNT = 10**12
MAX_ERRORS = 20  # wrong rows that an error names
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_KNOWN = {"qasm", "counts", "shots", "date", "datetime", "layout", "name", "body", "job", "split"}
_KNOWN |= {"job_id", "level", "optimization_level", "family"}


def read(path: Path) -> CountsData:
    """Read the counts of a file. Raises DataError, which names file, line and field of the first
    MAX_ERRORS wrong rows."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{path}: {size} bytes", hint=f"split it: at most {MAX_BYTES} bytes")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        reader = _Reader(path)
        return msgspec.structs.replace(reader.data(), digest=digest)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", hint="name a file") from error


class _Reader:
    """Reader of one file. `_where`: place of the current row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._where = str(path)
        self._device = ""
        self._sources: dict[str, MeasuredCircuit] = {}
        self._ignored: Counter[str] = Counter()
        self._warnings: Counter[str] = Counter()

    def data(self) -> CountsData:
        """All counts of the file; see `read`."""
        records = []
        errors: list[DataError] = []
        for number, row in enumerate(self._rows()):
            if number >= MAX_ROWS:
                raise self._wrong("", f"more than {MAX_ROWS:,} rows", "split the file")
            try:
                result = self._record(self._parsed(row))
            except DataError as error:
                errors.append(error)
                if len(errors) > MAX_ERRORS:
                    break
                continue
            if result is not None:
                records.append(result)
        if errors:
            raise _joined(errors)
        if not records:
            self._where = str(self._path)
            raise self._wrong("", "no row with shots", "give at least one circuit with its counts")
        for field, count in sorted(self._ignored.items()):
            self._warnings[f"field {field!r} is not used"] += count
        return CountsData(tuple(records), self._device, "", tuple(sorted(self._warnings.items())))

    def _rows(self) -> Iterator[Any]:
        """Rows of the file, as lines or as values; `_where` is set to each before it is yielded."""
        with self._path.open("rb") as file:
            lines = enumerate(file, 1)
            first = b""
            for _, line in lines:
                first = line.removeprefix(_BYTE_ORDER_MARK).strip()
                if first:
                    break
            if first.startswith(_GZIP):
                raise self._wrong("", "is compressed", f"type: gunzip {self._path.name}")
            header = self._header(first)
            if header is None:
                yield from self._document()
                return
            for number, line in lines:
                self._where = f"{self._path}:{number}"
                if line.strip():
                    yield line

    def _header(self, line: bytes) -> dict[str, Any] | None:
        """Header of JSON lines; None if the file has none."""
        try:
            header = msgspec.json.decode(line)
        except msgspec.DecodeError:
            return None
        if not isinstance(header, dict) or "kind" not in header:
            return None
        self._where = f"{self._path}:1"
        if header["kind"] != KIND:
            raise self._wrong("kind", f"{header['kind']!r}", f'counts have "kind": "{KIND}"')
        if header.get("format") != FORMAT:
            raise self._wrong("format", f"{header.get('format')!r}", f"this version reads {FORMAT}")
        self._device = str(header.get("device", ""))
        return header

    def _document(self) -> Iterator[Any]:
        try:
            text = self._path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
            result = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            problem = f"no JSON: {error}" if text.strip() else "is empty"
            raise self._wrong(
                "", problem, f'the first line is a header with "kind": "{KIND}"'
            ) from error
        rows = result.get("circuits") if isinstance(result, dict) else None
        if not isinstance(rows, list):
            raise self._wrong(
                "circuits", "is missing", f'a list of rows, or JSON lines with "kind": "{KIND}"'
            )
        self._device = str(result.get("device", ""))
        for number, row in enumerate(rows):
            self._where = f"{self._path}: circuits[{number}]"
            yield row

    def _parsed(self, row: Any) -> dict[str, Any]:
        """Row as an object; `row`: a line or a value."""
        try:
            if isinstance(row, bytes):
                row = msgspec.json.decode(row)
        except msgspec.DecodeError as error:
            raise self._wrong("", f"no JSON: {error}", "one object a line") from error
        if not isinstance(row, dict):
            raise self._wrong("", "is not an object", "a row has qasm and counts")
        return row

    def _record(self, row: dict[str, Any]) -> CountsRecord | None:
        self._ignored.update(row.keys() - _KNOWN)
        source = self._source(row)
        counts = self._counts(row, source)
        total = sum(counts.values())
        shots = row.get("shots", total)
        if shots != total:
            raise self._wrong("shots", f"{shots!r}; the counts add up to {total}", "mend either")
        if not total:
            self._warnings["rows without shots are left out"] += 1
            return None
        split = row.get("split", "train")
        if split not in ("train", "test"):
            raise self._wrong("split", f"{split!r}", "train or test")
        return CountsRecord(
            source,
            counts,
            total,
            self._text(row, "name"),
            self._time_s(row),
            self._layout(row, source),
            self._text(row, "body") or source.body,
            self._text(row, "job") or self._text(row, "job_id"),
            split == "test",
            self._level(row),
            self._where,
            self._text(row, "family") or FitScope.family(self._text(row, "name")),
        )

    def _source(self, row: dict[str, Any]) -> MeasuredCircuit:
        text = self._text(row, "qasm")
        if not text:
            raise self._wrong("qasm", "is missing", "OpenQASM 2 or 3")
        result = self._sources.get(text)
        if result is None:
            from simenv.client.circuits import load

            try:
                loaded = load(text + "\n")
            except SimenvError as error:
                raise self._wrong("qasm", error.message, error.hint) from error
            if not loaded.measures:
                raise self._wrong(
                    "qasm", "the circuit measures nothing", "counts need measurements"
                )
            clbits = loaded.program.num_clbits
            result = self._sources[text] = MeasuredCircuit(
                text, loaded, clbits, body_of(loaded), written_clbits(loaded)
            )
        return result

    def _counts(self, row: dict[str, Any], source: MeasuredCircuit) -> dict[int, int]:
        values = row.get("counts")
        if not isinstance(values, dict):
            raise self._wrong("counts", "is missing" if values is None else "is no object", _COUNTS)
        entries: dict[int, int] = {}
        for key, count in values.items():
            if type(count) is not int or not 0 <= count <= MAX_COUNT:
                raise self._wrong(f"counts[{key!r:.40}]", f"{count!r:.40}", "a whole number >= 0")
            outcome = self._outcome(key, source.num_clbits)
            if count:
                if extra := outcome & ~source.written_clbits:
                    raise self._wrong(
                        f"counts[{key!r:.40}]",
                        f"is 1 at clbit {extra.bit_length() - 1}, which the circuit never writes",
                        "the last clbit comes first in a bit string",
                    )
                entries[outcome] = entries.get(outcome, 0) + count
        return entries

    def _outcome(self, key: str, width: int) -> int:
        bits = key.replace(" ", "")
        is_hex = _HEX.fullmatch(bits) is not None
        if not is_hex and (not bits or bits.strip("01")):
            raise self._wrong(f"counts[{key!r:.40}]", "is no bit string", _COUNTS)
        value = int(bits, 16 if is_hex else 2)
        if value >> width or (len(bits) != width and not is_hex):
            raise self._wrong(
                f"counts[{key!r:.40}]", f"is not {width} bits wide", "one bit for each clbit"
            )
        return value

    def _layout(self, row: dict[str, Any], source: MeasuredCircuit) -> tuple[int, ...]:
        values = row.get("layout")
        if values is None:
            return ()
        size = source.loaded.num_qubits
        right = (
            isinstance(values, list)
            and len(values) == size == len(set(map(str, values)))
            and all(type(qubit) is int and 0 <= qubit < 65_535 for qubit in values)
        )
        if not right:
            raise self._wrong(
                "layout", f"{values!r:.80}", f"the device's qubit of each of {size} qubits"
            )
        return tuple(values)

    def _level(self, row: dict[str, Any]) -> int:
        for field in ("level", "optimization_level"):
            value = row.get(field)
            if value is not None:
                if type(value) is not int or not 0 <= value <= 3:
                    raise self._wrong(field, f"{value!r:.40}", "0, 1, 2 or 3")
                return value
        return -1

    def _time_s(self, row: dict[str, Any]) -> float:
        for field in ("date", "datetime"):
            text = self._text(row, field)
            if text:
                try:
                    return moment_s(text)
                except ValueError as error:
                    raise self._wrong(field, f"{text!r:.60}", "an ISO 8601 date") from error
        return math.nan

    def _text(self, row: dict[str, Any], field: str) -> str:
        value = row.get(field, "")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(field, f"{value!r:.60}", "a text")
        return value

    def _wrong(self, field: str, message: str, hint: str) -> DataError:
        place = f"{self._where}: {field}" if field else self._where
        return DataError(f"{place}: {message}", hint=hint, field=field)


_COUNTS = 'counts by bit string, as {"00": 510, "11": 490}'
_HEX = re.compile("0[xX][0-9a-fA-F]+")


def _joined(errors: list[DataError]) -> DataError:
    """Error that names the first wrong rows, a line each."""
    first = errors[0]
    if len(errors) == 1:
        return first
    texts = [each.message for each in errors[:MAX_ERRORS]]
    if len(errors) > MAX_ERRORS:
        texts.append(f"more wrong rows follow: the first {MAX_ERRORS} are listed")
    return DataError("\n".join(texts), hint=f"first row: {first.hint}", field=first.field)
