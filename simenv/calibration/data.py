"""Measured counts with their circuits: the file format, and readers of other sources.

A row of a file is one run of one circuit (`CountsRecord`). Runs of one circuit share a
`MeasuredCircuit`, also where texts differ by comments or names. `read` takes JSON
lines with a header, or one JSON object with a list of circuits:

  {"kind": "simenv-counts", "format": 1, "device": "lima"}
  {"qasm": "OPENQASM 2.0; ...", "counts": {"00": 510, "11": 490}, "date": "2024-03-01T10:00:00Z"}

Fields of a row: `qasm` and `counts`; and `shots`, `date`, `layout`, `name`, `body`, `job`, `split`
where they are known, `level`, at which Qiskit's transpiler compiled the circuit for the device,
`device`, the same in all rows, and `family`, such as the algorithm, which is by default the first
word of `name`. An object {"circuits": [row, ...]} is read as well. Other names are `datetime` for
`date`, `job_id` for `job` and `optimization_level` for `level`. Other fields are counted and
ignored.

`write` writes such files, from rows, from Qiskit and from an environment's own tasks.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from noise_models.calibration import FitScope
from noise_models.drift import moment_s
from simenv import files
from simenv.errors import DECODE_ERRORS, OptionError, SimenvError

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit
    from simenv.client.client import Client
    from simenv.model import Program

SUGGESTED = "suggested"  # family of the circuits that `simenv calibrate --suggest` writes
FORMAT = 1
KIND = "simenv-counts"


class DataError(SimenvError):
    """Measured counts cannot be read; the message names file, line and field."""

    code = "data"
    remedy = "correct the line and field of the file that the message names"
    exit_code = 2

    def __init__(self, message: str, *, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class MeasuredCircuit(msgspec.Struct, frozen=True, eq=False):
    """One circuit."""

    text: str  # OpenQASM, of the first row that has it
    loaded: PackedCircuit
    num_clbits: int
    body: str  # hash of the circuit without its last gates on single qubits
    written_clbits: int = -1  # bit k for clbit k; the others stay 0


class CountsRecord(msgspec.Struct, frozen=True, eq=False):
    """Counts of one run; bit k of an outcome is clbit k."""

    source: MeasuredCircuit
    counts: dict[int, int]
    shots: int
    name: str = ""
    time_s: float = math.nan  # since 1970; nan: not known
    layout: tuple[int, ...] = ()  # the device's qubit of each qubit of the circuit; (): not known
    body: str = ""  # circuits of one body are never on both sides of a split
    job: str = ""
    is_test: bool = False  # never used by a fit
    level: int = -1  # of Qiskit's transpiler that compiled it for the device; -1: not known
    place: str = ""  # file and line
    family: str = ""  # circuits of one kind, such as those of one algorithm

    @property
    def label(self) -> str:
        """Text that names the row in an error."""
        name = f"circuit {self.name or self.source.body}"
        return f"{self.place}: {name}" if self.place else name


class CountsData(msgspec.Struct, frozen=True, eq=False):
    """All runs of a file."""

    records: tuple[CountsRecord, ...]
    device: str = ""  # named in the file
    digest: str = ""  # SHA-256 of the file, hexadecimal
    warnings: tuple[tuple[str, int], ...] = ()  # text, number of rows

    def part(self, *, test: bool) -> CountsData:
        """Rows of one side of the split that the file states."""
        rows = tuple(each for each in self.records if each.is_test == test)
        return msgspec.structs.replace(self, records=rows)

    def warned(self, text: str, rows: int) -> CountsData:
        """Copy of the data with one more warning, if it concerns any row."""
        if not rows:
            return self
        return msgspec.structs.replace(self, warnings=(*self.warnings, (text, rows)))


def dates_before(data: CountsData, calibrated: str) -> int:
    """Number of rows that were measured before the calibration; 0 if its time is unknown."""
    if not calibrated:
        return 0
    try:
        limit_s = moment_s(calibrated)
    except ValueError:
        return 0
    return sum(each.time_s < limit_s for each in data.records)


def dates_after(data: CountsData, now_s: float) -> int:
    """Number of rows that are dated after a time."""
    return sum(each.time_s > now_s for each in data.records)


def written_clbits(loaded: PackedCircuit) -> int:
    """Clbits that a circuit may write, bit k for clbit k; -1: all."""
    program = loaded.program
    if "store" in program.names:
        return -1
    return sum(1 << clbit for clbit in set(np.frombuffer(program.clbits, np.uint16).tolist()))


_PAULIS = ("id", "x", "y", "z")


def body_of(loaded: PackedCircuit, *, paulis: bool = True) -> str:
    """Hash of a circuit without the gates on single qubits that end it. Circuits that differ in the
    basis of their measurements have the same body: a split that separated them would train a model
    on its own test circuits. Circuits without a gate on several qubits, such as preparations of
    states to measure readout errors, have all their gates in the body. `paulis`: False leaves out
    Pauli gates around gates on several qubits, by which twirled copies differ."""
    program = loaded.program
    arities = np.frombuffer(program.arities, np.uint16).reshape(-1, 3).astype(np.int64)
    ops = np.frombuffer(program.ops, np.uint16)
    rows = arities[ops]
    begins = np.cumsum(rows, axis=0) - rows
    qubits = np.frombuffer(program.qubits, np.uint16)
    params = np.frombuffer(program.params, np.float64)
    wide = [name != "barrier" for name in program.names]
    is_product = not bool((np.array(wide, bool)[ops] & (rows[:, 0] > 1)).any())
    open_ends = set() if is_product else set(range(program.num_qubits))
    kept: list[bytes] = []
    for k in range(len(ops) - 1, -1, -1):
        name, count = program.names[ops[k]], int(rows[k, 0])
        mine = qubits[begins[k, 0] : begins[k, 0] + count].tolist()
        if name in ("measure", "barrier") or (name in _PAULIS and not paulis and not is_product):
            continue
        if count == 1 and mine[0] in open_ends:
            continue
        open_ends.difference_update(mine)
        angles = np.round(params[begins[k, 2] : begins[k, 2] + int(rows[k, 2])], 9)
        kept.append(f"{name}{mine}{angles.tolist()}".encode())
    return hashlib.sha256(b"\n".join(kept)).hexdigest()[:16]


def merged(counts: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    """Sum of two counts."""
    return dict(Counter(counts) + Counter(more))


MAX_BYTES = 4 * 2**30
MAX_ROWS = 1_000_000
MAX_COUNT = 10**12
MAX_TEXT = 1_000  # characters of a name, body, job or family, and of the device's name
LEAST_COPIES = 4  # of a circuit, alike but for Pauli gates, that are named as twirled
MOST_IGNORED = 20  # unknown fields that warnings name
MAX_ERRORS = 20  # wrong rows that an error names
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_KNOWN = {"qasm", "counts", "shots", "date", "datetime", "layout", "name", "body", "job", "split"}
_KNOWN |= {"job_id", "level", "optimization_level", "family", "device"}


def read(path: Path | str) -> CountsData:
    """Read the counts of a file. Raises DataError, which names file, line and field of the first
    MAX_ERRORS wrong rows."""
    path = Path(path)
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
        self._devices: dict[str, str] = {}  # that rows name, with the place of the first of each
        self._sources: dict[str, MeasuredCircuit] = {}  # by text
        self._circuits: dict[Program, MeasuredCircuit] = {}  # without names of registers
        self._without_body: Counter[str] = Counter()  # rows by the text of their circuit
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
        if len(self._devices) > 1:
            names = ", ".join(f"{name!r} ({place})" for name, place in self._devices.items())
            self._where = str(self._path)
            raise self._wrong(
                "device", f"rows of several devices: {names}", "one file for each device"
            )
        ignored = sorted(self._ignored.items())
        for field, count in ignored[:MOST_IGNORED]:
            self._warnings[f"field {field!r:.60} is not used"] += count
        if more := ignored[MOST_IGNORED:]:
            rows = max(count for _, count in more)
            self._warnings[f"{len(more):,} more fields are not used"] += rows
        if rows := self._twirled_rows():
            self._warnings[
                "rows differ from others in Pauli gates alone: if they are twirled copies of a"
                " circuit, give all of them the same `body`"
            ] += rows
        return CountsData(tuple(records), self._device, "", tuple(sorted(self._warnings.items())))

    def _twirled_rows(self) -> int:
        """Number of rows without `body` whose circuits may be twirled copies."""
        groups: dict[str, dict[str, int]] = {}
        for text, rows in self._without_body.items():
            source = self._sources[text]
            bodies = groups.setdefault(body_of(source.loaded, paulis=False), {})
            bodies[source.body] = bodies.get(source.body, 0) + rows
        return sum(sum(each.values()) for each in groups.values() if len(each) >= LEAST_COPIES)

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
        except DECODE_ERRORS:
            return None
        if not isinstance(header, dict) or "kind" not in header:
            return None
        self._where = f"{self._path}:1"
        if header["kind"] != KIND:
            raise self._wrong("kind", f"{header['kind']!r}", f'counts have "kind": "{KIND}"')
        if header.get("format") != FORMAT or type(header["format"]) is not int:
            raise self._wrong("format", f"{header.get('format')!r}", f"this version reads {FORMAT}")
        self._name_device(header)
        return header

    def _name_device(self, values: dict[str, Any]) -> None:
        """Take the device's name of a header or of a row: all have the same one."""
        name = self._text(values, "device")
        if name and len(self._devices) < 4:
            self._devices.setdefault(name, self._where)
        self._device = self._device or name

    def _document(self) -> Iterator[Any]:
        try:
            text = self._path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
            result = msgspec.json.decode(text)
        except DECODE_ERRORS as error:
            problem = f"no JSON: {error}" if text.strip() else "is empty"
            hint = f'the first line is a header with "kind": "{KIND}"'
            raise self._wrong("", problem, hint) from error
        rows = result.get("circuits") if isinstance(result, dict) else None
        if not isinstance(rows, list):
            hint = f'a list of rows, or JSON lines with "kind": "{KIND}"'
            raise self._wrong("circuits", "is missing", hint)
        self._name_device(result)
        for number, row in enumerate(rows):
            self._where = f"{self._path}: circuits[{number}]"
            yield row

    def _parsed(self, row: Any) -> dict[str, Any]:
        """Row as an object; `row`: a line or a value."""
        try:
            if isinstance(row, bytes):
                row = msgspec.json.decode(row)
        except DECODE_ERRORS as error:
            raise self._wrong("", f"no JSON: {error}", "one object a line") from error
        if not isinstance(row, dict):
            raise self._wrong("", "is not an object", "a row has qasm and counts")
        return row

    def _record(self, row: dict[str, Any]) -> CountsRecord | None:
        self._ignored.update(row.keys() - _KNOWN)
        self._name_device(row)
        source = self._source(row)
        counts = self._counts(row, source)
        total = sum(counts.values())
        shots = row.get("shots", total)
        if type(shots) is bool or shots != total:
            raise self._wrong("shots", f"{shots!r}; the counts add up to {total}", "mend either")
        if not total:
            self._warnings["rows without shots are left out"] += 1
            return None
        if not row.get("body"):
            self._without_body[source.text] += 1
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
                problem = "the circuit measures nothing"
                raise self._wrong("qasm", problem, "counts need measurements")
            program = msgspec.structs.replace(loaded.program, registers=())
            if program not in self._circuits:
                self._circuits[program] = MeasuredCircuit(
                    text, loaded, program.num_clbits, body_of(loaded), written_clbits(loaded)
                )
            result = self._sources[text] = self._circuits[program]
        return result

    def _counts(self, row: dict[str, Any], source: MeasuredCircuit) -> dict[int, int]:
        values = row.get("counts")
        if not isinstance(values, dict):
            raise self._wrong("counts", "is missing" if values is None else "is no object", _COUNTS)
        entries: dict[int, int] = {}
        for key, count in values.items():
            if type(count) is not int or not 0 <= count <= MAX_COUNT:
                hint = f"a whole number from 0 to {MAX_COUNT:,}"
                raise self._wrong(f"counts[{key!r:.40}]", f"{count!r:.40}", hint)
            outcome = self._outcome(key, source.num_clbits)
            if count:
                if extra := outcome & ~source.written_clbits:
                    hint = "the last clbit comes first in a bit string"
                    clbit = extra.bit_length() - 1
                    problem = f"is 1 at clbit {clbit}, which the circuit never writes"
                    raise self._wrong(f"counts[{key!r:.40}]", problem, hint)
                entries[outcome] = entries.get(outcome, 0) + count
        return entries

    def _outcome(self, key: str, width: int) -> int:
        bits = key.replace(" ", "")
        is_hex = _HEX.fullmatch(bits) is not None
        if not is_hex and (not bits or bits.strip("01")):
            raise self._wrong(f"counts[{key!r:.40}]", "is no bit string", _COUNTS)
        value = int(bits, 16 if is_hex else 2)
        if value >> width or (len(bits) != width and not is_hex):
            problem = f"is not {width} bits wide"
            raise self._wrong(f"counts[{key!r:.40}]", problem, "one bit for each clbit")
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
            hint = f"the device's qubit of each of {size} qubits"
            raise self._wrong("layout", f"{values!r:.80}", hint)
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
        if field == "qasm":
            return value
        if len(value) > MAX_TEXT:
            problem = f"{len(value):,} characters"
            raise self._wrong(field, problem, f"at most {MAX_TEXT:,} characters")
        return _printable(value)

    def _wrong(self, field: str, message: str, hint: str) -> DataError:
        place = f"{self._where}: {field}" if field else self._where
        return DataError(f"{place}: {message}", hint=hint, field=field)


_COUNTS = 'counts by bit string, as {"00": 510, "11": 490}'
_HEX = re.compile("0[xX][0-9a-fA-F]+")


def _printable(text: str) -> str:
    """Text of a file with control characters escaped: names and bodies reach terminals."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _joined(errors: list[DataError]) -> DataError:
    """Error that names the first wrong rows, a line each."""
    first = errors[0]
    if len(errors) == 1:
        return first
    texts = [each.message for each in errors[:MAX_ERRORS]]
    if len(errors) > MAX_ERRORS:
        texts.append(f"more wrong rows follow: the first {MAX_ERRORS} are listed")
    return DataError("\n".join(texts), hint=f"first row: {first.hint}", field=first.field)


def row(
    qasm: str, counts: Mapping[str, int], *, layout: Sequence[int] = (), **texts: str
) -> dict[str, Any]:
    """Make one row of a file; `texts`: date, name, body, job, split, family.
    Empty fields are left out."""
    entries: dict[str, Any] = {"qasm": qasm, "counts": dict(counts)}
    if layout:
        entries["layout"] = list(layout)
    entries.update({field: text for field, text in texts.items() if text})
    return entries


def write(path: Path | str, rows: Iterable[Mapping[str, Any]], device: str = "") -> int:
    """Write rows by rename; return their number. No file is written after an error."""
    encoder = msgspec.json.Encoder()
    header: dict[str, Any] = {"kind": KIND, "format": FORMAT}
    if device:
        header["device"] = device
    total = 0
    with files.replacing(Path(path)) as out:
        out.write(encoder.encode(header) + b"\n")
        for each in rows:
            out.write(encoder.encode(each) + b"\n")
            total += 1
    return total


def rows_from_qiskit(
    circuits: Sequence[Any], result: Any, *, date: str = "", job: str = ""
) -> list[dict[str, Any]]:
    """Rows of QuantumCircuits and of their `qiskit.result.Result`, or of the PrimitiveResult of a
    SamplerV2 without parameters. A transpiled circuit has the device's qubits. Raises OptionError
    if their numbers differ."""
    if hasattr(result, "get_counts"):
        counts = [result.get_counts(k) for k in range(len(result.results))]
        job = job or str(result.job_id or "")
        date = date or str(getattr(result, "date", None) or "")
    else:
        counts = [each.join_data().get_counts() for each in result]
    if len(counts) != len(circuits):
        message = f"{len(circuits)} circuits and {len(counts)} results"
        raise OptionError(message, hint="one result for each")
    return [
        row(qasm_of(circuit), entry, date=date, name=circuit.name or "", job=job)
        for circuit, entry in zip(circuits, counts, strict=True)
    ]


def rows_from_history(client: Client, tasks: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Rows of finished tasks of an environment, by their ids. Circuits are as they ran: those of an
    emulated device have its qubits. Raises NotFoundError for a task that is no longer kept,
    OptionError for one without counts."""
    from simenv.client.circuits import to_qiskit
    from simenv.model import decode_program

    for task in tasks:
        settings = client.history.submitted(task)
        result = client.task(task).result()
        if not result.counts:
            raise OptionError(f"task {result.task} has no counts", hint="a task with shots")
        circuit = to_qiskit(decode_program(settings.spec.program))
        date = datetime.fromtimestamp(settings.at_s, UTC).isoformat()
        yield row(
            qasm_of(circuit), result.counts, date=date, name=settings.terms.name, job=result.task
        )


def qasm_of(circuit: Any) -> str:
    """OpenQASM 3 of a QuantumCircuit, without global phases: counts do not depend on them, and
    Qiskit writes an invalid definition of their gate."""
    from qiskit import qasm3

    plain = circuit.copy_empty_like()
    plain.data = [each for each in circuit.data if each.operation.name != "global_phase"]
    return str(qasm3.dumps(plain))
