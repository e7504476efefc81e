"""Importer of the calibration tables (CSV) that IBM Quantum offers for download.

A row holds one qubit. Cells of two-qubit columns hold several entries: `1_0:0.0137;1_2:0.0099` with
both qubits, or `0:0.0137;2:0.0099` with the partner of the row's qubit.

A column with numbers that is none of IBM's is unread, not ignored: it may be a renamed one.
"""

import difflib
import re
from collections.abc import Iterator

from noise_models.importers import convert, gate_names, report
from noise_models.importers.builder import ImportedSnapshot, SnapshotBuilder
from noise_models.importers.source import CsvTable, Source
from noise_models.strict_json import SnapshotError

NAME = "ibm-csv"

_GATES = {  # the part of a header before " error"
    **{name: name for name in ("id", "rz", "sx", "x", "rx", "cx", "ecr", "cz", "rzz")},
    "z-axis rotation (rz)": "rz", "\u221ax (sx)": "sx", "pauli-x": "x", "cnot": "cx",
}  # fmt: skip
_PROBABILITIES = {
    "readout assignment error": "readout_error",
    "prob meas0 prep1": "p10",
    "prob meas1 prep0": "p01",
    "reset error": "reset_error",
}
_MEASURE = re.compile(r"(measure(?:_[a-z0-9_]{1,56})?) error", re.ASCII)
_IGNORED = ("anharmonicity",)  # stems of columns that no noise model uses
_UNIT = re.compile(r"(.*\S)\s*\((\S+)\)")
_ENTRY = re.compile(r"(?:(\d{1,6})_)?(\d{1,6})\s*:\s*(\S+)", re.ASCII)
_FILE = re.compile(
    r"(?:.*[/\\])?([A-Za-z0-9_-]+?)_calibrations?_(\d{4}-\d\d-\d\d)T(\d\d)_(\d\d)_(\d\d)Z?\b",
    re.ASCII,
)
# Numbers in any notation, entries, and truth values: cells of a column of measured values.
_SIGN = r"[-+0-9.,eE_:;%()<>/\u00b1 ]*"
_VALUES = re.compile(rf"{_SIGN}[0-9]{_SIGN}|yes|no|true|false", re.IGNORECASE)
_YES = ("yes", "true", "1", "")
_TWO_QUBIT_TIME = ("gate time", "gate length")
_ONE_QUBIT_TIME = "single-qubit gate length"


# Columns of IBM's tables as these write them; none of them is in another table by accident.
_HEADERS = (
    *("T1 (us)", "T2 (us)", "Frequency (GHz)", "Anharmonicity (GHz)", "Readout length (ns)"),
    *("Readout assignment error", "Prob meas0 prep1", "Prob meas1 prep0", "MEASURE error"),
    *("ID error", "RX error", "Z-axis rotation (rz) error", "\u221ax (sx) error"),
    *("Pauli-X error", "CNOT error", "CX error", "CZ error", "ECR error", "RZZ error"),
    *("Gate time (ns)", "Gate length (ns)", "Single-qubit gate length (ns)", "Operational"),
)


def recognizes(source: Source) -> bool:
    """Return whether a table has a column Qubit and another one of IBM's."""
    theirs = {header.lower() for header in _HEADERS}
    columns = ({each.lower() for each in table.columns} for table in source.tables.values())
    return any("qubit" in each and each & theirs for each in columns)


def read(source: Source, name: str) -> ImportedSnapshot:
    """Convert the table to a snapshot. Raises SnapshotError with a place such as `row 7: T1
    (us)`."""
    if len(source.tables) != 1 or source.documents:
        raise SnapshotError("files", "a calibration table is one CSV file")
    file, table = next(iter(source.tables.items()))
    columns = {column.lower(): column for column in table.columns if column}
    if "qubit" not in columns or not table.rows:
        raise SnapshotError(f"{file}: header", "no column Qubit, or no row below it")
    row_qubits = [_number_of(row.get(columns["qubit"], ""), k) for k, row in enumerate(table.rows)]
    builder = SnapshotBuilder(NAME, max(row_qubits) + 1, "Qubit")
    if len(set(row_qubits)) < len(row_qubits):
        raise SnapshotError("Qubit", "a qubit has two rows", hint="remove one of the two")
    for qubit in set(range(builder.num_qubits)) - set(row_qubits):
        builder.disable_qubit(qubit, "it has no row")
    builder.values.update(provider="IBM", technology="superconducting")
    named = _FILE.match(file)
    if named:
        builder.values["calibrated"] = f"{named[2]}T{named[3]}:{named[4]}:{named[5]}+00:00"
        builder.recorder.used("(file name)", "calibrated")
    # Durations come after all errors: they apply to the gates that the error columns name.
    times = (_ONE_QUBIT_TIME, *_TWO_QUBIT_TIME, "measure")  # errors of `measure` come late too
    for column in sorted(columns.values(), key=lambda each: each.lower().startswith(times)):
        _column(builder, table, column, row_qubits)
    _broken(builder, table, columns, row_qubits)
    _natives(builder)
    return builder.finish(name or (named[1] if named else ""), source)


def _number_of(cell: str, row: int) -> int:
    return convert.qubit_index(cell.removeprefix("Q").removeprefix("q"), f"row {row + 2}: Qubit")


def _cells(table: CsvTable, column: str, row_qubits: list[int]) -> Iterator[tuple[int, str, str]]:
    """Iterate over (qubit, place, text) of the cells that are not empty."""
    for index, (qubit, row) in enumerate(zip(row_qubits, table.rows, strict=True)):
        cell = row.get(column, "")
        if cell and cell.lower() not in ("n/a", "null", "none", "-"):
            yield qubit, f"row {index + 2}: {column}", cell


def _column(builder: SnapshotBuilder, table: CsvTable, column: str, row_qubits: list[int]) -> None:
    lower = column.lower()
    result = _UNIT.fullmatch(lower)
    stem, unit = (result[1], result[2]) if result else (lower, "")
    cells = _cells(table, column, row_qubits)
    if stem in ("t1", "t2"):
        factor = convert.time_factor(unit, f"header: {column}")
        _each(builder, cells, f"{stem}_us", factor / 1e3)
    elif stem == "frequency":
        factor = convert.frequency_factor(unit, f"header: {column}")
        _each(builder, cells, "frequency_ghz", factor)
    elif stem == "readout length":
        _each(builder, cells, "readout_ns", convert.time_factor(unit, f"header: {column}"))
    elif lower in _PROBABILITIES:
        _each(builder, cells, _PROBABILITIES[lower], 1.0)
    elif lower.endswith(" error") and lower.removesuffix(" error") in _GATES:
        gate = _GATES[lower.removesuffix(" error")]
        for qubit, place, cell in cells:
            for qubits, value in _entries(qubit, place, cell):
                _gate(builder, gate, qubits, "error", value, place)
    elif stem == _ONE_QUBIT_TIME or stem in _TWO_QUBIT_TIME:
        factor = convert.time_factor(unit, f"header: {column}")
        for qubit, place, cell in cells:
            for qubits, value in _entries(qubit, place, cell):
                _duration(builder, qubits, value * factor, place)
    elif measured := _MEASURE.fullmatch(lower):
        _measurement(builder, cells, measured[1], column)
    elif lower not in ("qubit", "operational"):
        _other(builder, cells, column, stem)


def _measurement(
    builder: SnapshotBuilder, cells: Iterator[tuple[int, str, str]], name: str, column: str
) -> None:
    """Read the errors of a measurement instruction; those of `measure` for qubits without a readout
    assignment error, which is the same figure."""
    for qubit, place, cell in cells:
        value = convert.probability(convert.parsed_number(cell, place), place)
        if name != "measure" or not builder.has_qubit(qubit, "readout_error"):
            builder.set_operation(name, (qubit,), "error", value, place)
        else:
            builder.recorder.ignored(f"column {column}", "the readout assignment error is used")


def _other(
    builder: SnapshotBuilder, cells: Iterator[tuple[int, str, str]], column: str, stem: str
) -> None:
    """Report a column that is not read. It may be one of IBM's under another name by its name or by
    its numbers; one without cells is none."""
    texts = [cell for _, _, cell in cells]
    is_noise = bool(texts and stem not in _IGNORED) and (
        report.looks_like_noise(column)
        or bool(difflib.get_close_matches(column, _HEADERS, 1, 0.8))
        or any(map(_VALUES.fullmatch, texts))
    )
    near = difflib.get_close_matches(column, _HEADERS, 1, 0.6) if is_noise else ()
    note = f"{near[0]!r} is a column of IBM's" if near else ""
    builder.recorder.unknown(f"column {convert.key_text(column)}", is_noise=is_noise, note=note)


def _each(
    builder: SnapshotBuilder, cells: Iterator[tuple[int, str, str]], name: str, factor: float
) -> None:
    for qubit, place, cell in cells:
        value = convert.scaled(convert.parsed_number(cell, place), factor)
        builder.set_qubit(qubit, name, value, place)


def _entries(qubit: int, place: str, cell: str) -> Iterator[tuple[tuple[int, ...], float]]:
    """Iterate over (qubits, value) of a cell: one number of the row's qubit, `a_b:value` or
    `b:value`."""
    if ":" not in cell:
        yield (qubit,), convert.parsed_number(cell, place)
        return
    for part in filter(None, (part.strip() for part in cell.split(";"))):
        result = _ENTRY.fullmatch(part)
        if result is None:
            raise SnapshotError(place, f"{part[:60]!r} is not an entry", hint="as 1_0:0.0137")
        first = qubit if result[1] is None else int(result[1])
        yield (first, int(result[2])), convert.parsed_number(result[3], place)


def _gate(
    builder: SnapshotBuilder, gate: str, qubits: tuple[int, ...], key: str, value: float, place: str
) -> None:
    existing = builder.gate_value(gate, qubits, key)
    if existing is not None and existing == value:
        builder.recorder.ignored(place, "the same value a second time")
        return
    builder.set_gate(gate, qubits, key, value, place)


def _duration(
    builder: SnapshotBuilder, qubits: tuple[int, ...], value_ns: float, place: str
) -> None:
    """Set the duration of all gates on these qubits; rz is a change of frame and takes no time."""
    gates = [gate for gate, others in builder.gate_keys if others == qubits]
    for gate in gates:
        _gate(builder, gate, qubits, "duration_ns", 0.0 if gate == "rz" else value_ns, place)
    if not gates:
        builder.recorder.ignored(place, "no gate on these qubits has an error")


def _broken(
    builder: SnapshotBuilder, table: CsvTable, columns: dict[str, str], row_qubits: list[int]
) -> None:
    """Take out the qubits that are not operational."""
    if "operational" not in columns:
        return
    for qubit, row in zip(row_qubits, table.rows, strict=True):
        if row.get(columns["operational"], "").lower() not in _YES:
            builder.disable_qubit(qubit, "not operational")
        builder.recorder.used("column Operational", "unusable")


def _natives(builder: SnapshotBuilder) -> None:
    for gate in dict.fromkeys(gate for gate, _ in builder.gate_keys):
        builder.add_native(gate, gate_names.SHAPES[gate][0], None, gate)
    builder.add_frame_change()  # some tables have no column for rz
    builder.set_fractional(gate_names.FRACTIONAL)
    for gate, qubits in builder.gate_keys:
        if gate in builder.natives and len(qubits) == 2:
            builder.couple((qubits[0], qubits[1]), gate)
