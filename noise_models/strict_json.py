"""Strict JSON of noise documents, checks of their values, and the errors of noise models."""

from __future__ import annotations

import difflib
import json
import math
import re
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec

# Errors of noise models and calibration data.


class NoiseError(ValueError):
    """Invalid channel, noise model or calibration; `hint` says what is valid."""

    code = "noise"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SnapshotError(NoiseError):
    """Invalid calibration data; `field` names the place, such as `qubits[3].T1`."""

    code = "calibration"

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message, hint=hint)
        self.field = field


_Document = TypeVar("_Document", bound=msgspec.Struct)

# Strict parser for JSON of calibration data: sizes are limited, and no value is lost silently.

MAX_BYTES = 64 << 20  # size of one file; a device of 156 qubits takes 0.6 MiB
_SHOWN_CHARS = 60
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$", re.DOTALL)
_UNNAMED = re.compile(r"field `(.*)`", re.DOTALL)


def parse(data: bytes, name: str = "document") -> Any:
    """Parse a JSON document in UTF-8. NaN and infinite numbers are accepted, so that a later check
    can name their field. Raises SnapshotError for anything else that JSON forbids, for a key that
    an object has twice, for nesting beyond the parser's limit and for more than 64 MiB. `name` is
    the field that the error names."""
    text = decoded(data, name)
    try:
        result = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, name))
    except json.JSONDecodeError as error:
        raise SnapshotError(
            name,
            f"not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}",
            hint="is the file complete?",
        ) from None
    except RecursionError:
        raise SnapshotError(name, "nested too deeply", hint="calibration data is flat") from None
    except ValueError as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(  # an integer of more digits than Python converts
            name, f"a number that is too long: {error}"[:200], hint="give numbers of usual size"
        ) from None
    if _SURROGATE.search(text):
        _check_texts(result, name)
    return result


def decoded(data: bytes, name: str) -> str:
    """Return the text of a file in UTF-8. Raises SnapshotError for another encoding, or more than
    64 MiB."""
    if len(data) > MAX_BYTES:
        hint = f"calibration data has at most {MAX_BYTES} bytes"
        raise SnapshotError(name, f"{len(data)} bytes", hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = "save the file as UTF-8"
        raise SnapshotError(name, f"byte {error.start} is not UTF-8", hint=hint) from None


def _check_texts(tree: Any, name: str) -> None:
    """Raise SnapshotError for a text with an unpaired surrogate, which is no character."""
    stack = [("", tree)]
    while stack:
        field, value = stack.pop()
        if isinstance(value, dict):
            stack += [(field, key) for key in value]
            stack += [(f"{field}.{short_repr(key)[1:-1]}", each) for key, each in value.items()]
        elif isinstance(value, list):
            stack += [(f"{field}[{index}]", each) for index, each in enumerate(value)]
        elif isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise SnapshotError(
                field.removeprefix(".") or name, f"{short_repr(value)} is not a text of Unicode"
            )


def _object(pairs: list[tuple[str, Any]], name: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        hint = "remove one of the two"
        raise SnapshotError(name, f"an object has the key {short_repr(twice)} twice", hint=hint)
    return result


def short_repr(value: object) -> str:
    """Return a value from outside for an error message: printable ASCII, cut to 60 characters."""
    if isinstance(value, list | tuple | dict):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 63:
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 3] + "..."


def _type_error(error: msgspec.ValidationError, document: type[msgspec.Struct]) -> SnapshotError:
    """Convert an error of msgspec to a SnapshotError with the path of its field. `document`: the
    type that was expected; its fields are in the hint on an unknown one."""
    text = str(error)
    at = _AT.search(text)
    field = at.group(1) if at else ""
    message = text[: at.start()] if at else text
    unnamed = _UNNAMED.search(message)
    hint = ""
    if unnamed:
        if "unknown field" in message:
            fields = _type_at(document, field).__struct_encode_fields__
            hint = known_names(unnamed.group(1), fields)
        field = f"{field}.{unnamed.group(1)}" if field else unnamed.group(1)
    place = ascii(field)[1:-1][:120] or "document"
    return SnapshotError(place, ascii(message)[1:-1][:200], hint=hint)


def _type_at(document: type[msgspec.Struct], path: str) -> type[msgspec.Struct]:
    """Return the type of the object at a path such as `gates[3].rotations[0]`; the document's where
    it is in a table of free keys."""
    result = document
    for name in re.findall(r"[^\W\d]\w*", path):
        open_types: list[Any] = [typing.get_type_hints(result).get(name)]
        while open_types:
            each = open_types.pop()
            if isinstance(each, type) and issubclass(each, msgspec.Struct):
                result = each
                break
            open_types += typing.get_args(each)
    return result


def known_names(name: str, names: Sequence[str]) -> str:
    """Return a hint for a name that is none of these."""
    near = difflib.get_close_matches(name, names, 1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}known: {', '.join(names)}"


# Checks of the values of a document. Each raises SnapshotError with the place of the value.

MAX_QUBITS = 10_000
MAX_READ_TOGETHER = 8  # a confusion matrix of 256 x 256
Range = tuple[float, float]
UNIT: Range = (0.0, 1.0)  # probabilities
NS: Range = (0.0, 1e12)  # 17 minutes
US: Range = (math.ulp(0.0), 1e15)  # 32 years; 0 is no measured time
STAR_US: Range = (1e-3, US[1])  # T2*, not shorter than any gate
KHZ: Range = (-1e6, 1e6)
_GATE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def check_range(field: str, value: float, limits: Range) -> None:
    """Check a number; NaN is in no range."""
    low, high = limits
    if not low <= value <= high:
        hint = f"{low:g} to {high:g}" if limits is not US else "above 0, or leave it out"
        raise SnapshotError(field, f"{short_repr(value)} is out of range", hint=hint)


def check_ranges(place: str, entry: msgspec.Struct, ranges: Mapping[str, Range]) -> None:
    """Check the fields of an object that are not None. `place`: prefix of their names."""
    for name, limits in ranges.items():
        value = getattr(entry, name)
        if value is not None and not limits[0] <= value <= limits[1]:
            check_range(place + name, value, limits)


def check_text(field: str, value: str, max_chars: int = 100) -> None:
    """Check a text that is shown."""
    if len(value) > max_chars or not value.isprintable():
        hint = f"printable text of at most {max_chars} characters"
        raise SnapshotError(field, short_repr(value), hint=hint)


def check_date(field: str, value: str) -> None:
    """Check a date."""
    try:
        datetime.fromisoformat(value)
    except ValueError:
        hint = "ISO 8601, as 2025-02-26T06:56:41Z"
        raise SnapshotError(field, f"{short_repr(value)} is not a date", hint=hint) from None


def check_gate_name(field: str, name: str) -> None:
    """Check the name of a gate."""
    if not _GATE_NAME.fullmatch(name):
        hint = "letters, digits and underscores"
        raise SnapshotError(field, f"the gate name {short_repr(name)}", hint=hint)


def check_qubits(field: str, qubits: Iterable[int], num_qubits: int) -> None:
    """Check numbers of different qubits of a device. `num_qubits` 0: of any size."""
    inputs, limit = tuple(qubits), num_qubits or MAX_QUBITS
    for qubit in inputs:
        if not 0 <= qubit < limit:
            text = f"qubit {short_repr(qubit)} is out of range"
            raise SnapshotError(field, text, hint=f"0 to {limit - 1}")
    if len(set(inputs)) < len(inputs):
        raise SnapshotError(field, f"a qubit twice in {list(inputs)}", hint="name each qubit once")


def check_once(field: str, key: object, seen: set[Any], text: str = "") -> None:
    """Add a key to those of earlier entries. `text`: of the key in the error."""
    if key in seen:
        text = text or str(list(key) if isinstance(key, tuple) else key)
        raise SnapshotError(field, f"{text[:60]} twice", hint="remove one of the two")
    seen.add(key)


def check_entries(field: str, entries: Any, most: int) -> None:
    """Check the number of entries of a field."""
    if len(entries) > most:
        raise SnapshotError(field, f"{len(entries)} entries", hint=f"at most {most}")


def check_confusion(
    place: str, confusion: tuple[tuple[float, ...], ...], num_qubits: int, tolerance: float
) -> None:
    """Check a confusion matrix: row read, column true, each column a distribution."""
    check_range(f"{place}.qubits", num_qubits, (1, MAX_READ_TOGETHER))
    field, side = f"{place}.confusion", 1 << num_qubits
    if len(confusion) != side or any(len(row) != side for row in confusion):
        hint = "one row for each outcome that is read, one column for each true one"
        raise SnapshotError(field, f"not {side} rows of {side} numbers", hint=hint)
    for row, values in enumerate(confusion):
        for column, value in enumerate(values):
            check_range(f"{field}[{row}][{column}]", value, UNIT)
    for column, total in enumerate(math.fsum(each) for each in zip(*confusion, strict=True)):
        if abs(total - 1.0) > tolerance:
            hint = "the outcomes of one true state have a total probability of 1"
            raise SnapshotError(field, f"column {column} sums to {total:.6g}", hint=hint)


def converted(values: Any, document: type[_Document]) -> _Document:
    """Convert parsed JSON to a document, with the types checked."""
    try:
        return msgspec.convert(values, document)
    except msgspec.ValidationError as error:
        raise _type_error(error, document) from None
