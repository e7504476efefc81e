"""What is sent and stored has the bytes, fields and names of before.

One example of each message and struct lies in tests/golden/serialized with all its fields set:
`bytes` in hexadecimal (of JSON: the text), `value`, the same for a reader, and of what is encoded
as an array the names of its `fields`. Classes, modules and the fields of arrays may get other
names; nothing else may change without another format number. After such a change:

    PYTHONPATH=tests/support .venv/bin/python tests/compatibility/test_serialized.py --write
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from examples_of_types import enumerations, example, structs
from serialized_types import FILES, JOURNAL, MESSAGES, NESTED, PRINTED, QPM

from simenv import errors
from simenv.qpm import contract
from simenv.service.journal.writer import Journal

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "golden" / "serialized"

PACKED = {  # file of golden entries -> types by name
    "messages": {
        f"{family}: {kind.__struct_config__.tag}": kind
        for family, union in MESSAGES.items()
        for kind in get_args(union)
    },
    "journal": JOURNAL,
    "nested": NESTED,
}
TEXTS = {"files": FILES, "printed": PRINTED, "qpm": QPM}
TYPES = {**PACKED, **TEXTS}
CASES = [(group, name) for group, kinds in TYPES.items() for name in kinds]
ARRAYS = [(group, name) for group, name in CASES if group in PACKED]


def stored(group: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((FOLDER / f"{group}.json").read_text())
    return table


def field_names(kind: Any) -> list[str]:
    """Of a struct that is encoded as an array; else none."""
    config = getattr(kind, "__struct_config__", None)
    return list(kind.__struct_fields__) if config is not None and config.array_like else []


def entry(group: str, name: str) -> dict[str, Any]:
    kind = TYPES[group][name]
    value = example(kind)
    if group in TEXTS:
        return {"bytes": msgspec.json.encode(value).decode()}
    packed = msgspec.msgpack.encode(value)
    table: dict[str, Any] = {
        "bytes": packed.hex(),
        "value": readable(msgspec.msgpack.decode(packed)),
    }
    return {**table, "fields": fields} if (fields := field_names(kind)) else table


def readable(value: Any) -> Any:
    """The same with bytes as text."""
    if isinstance(value, bytes):
        return f"<{value.decode()}>"
    if isinstance(value, list):
        return [readable(each) for each in value]
    return {key: readable(each) for key, each in value.items()} if type(value) is dict else value


@pytest.mark.parametrize(("group", "name"), CASES)
def test_example_is_encoded_to_stored_bytes(group: str, name: str) -> None:
    result, expected = entry(group, name), stored(group)[name]
    if group in PACKED:
        assert result["value"] == expected["value"]
    assert result["bytes"] == expected["bytes"]


@pytest.mark.parametrize(("group", "name"), CASES)
def test_stored_bytes_are_decoded_to_example(group: str, name: str) -> None:
    kind, body = TYPES[group][name], stored(group)[name]["bytes"]
    if group in TEXTS:
        assert msgspec.json.decode(body, type=kind) == example(kind)
    else:
        assert msgspec.msgpack.decode(bytes.fromhex(body), type=kind) == example(kind)


@pytest.mark.parametrize(("group", "name"), ARRAYS)
def test_fields_of_array_like_structs_keep_their_positions(group: str, name: str) -> None:
    """A field may get another name; one that has the name of another's place was moved."""
    result, expected = field_names(TYPES[group][name]), stored(group)[name].get("fields", [])
    assert len(result) == len(expected)
    for place, word in enumerate(expected):
        assert word not in result or result.index(word) == place


@pytest.mark.parametrize("group", TYPES)
def test_each_stored_example_has_its_type(group: str) -> None:
    assert set(stored(group)) == set(TYPES[group])


def test_each_struct_nested_in_message_has_stored_example() -> None:
    named = set(NESTED.values()) | set(PACKED["messages"].values())
    inside = {each for union in MESSAGES.values() for each in structs(union)}
    assert inside <= named


def constants() -> dict[str, Any]:
    """Values and names that others have written down, but for fields."""
    kinds = [*MESSAGES.values(), *(kind for group in TYPES.values() for kind in group.values())]
    table = {json.dumps(values): values for kind in kinds for values in enumerations(kind)}
    classes = {errors.SimenvError, *_below(errors.SimenvError)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        Journal(path, "process").close()
        db = sqlite3.connect(path)
        query = "select name from sqlite_master where type = 'table'"
        tables = [row[0] for row in db.execute(query)]
        columns = {
            name: [
                " ".join(map(str, row[1:]))
                for row in db.execute(f"select * from pragma_table_xinfo('{name}')")
            ]
            for name in sorted(tables)
        }
        db.close()
    return {
        "values of enumerations": [table[key] for key in sorted(table)],
        "codes of errors": sorted(
            {
                f"{each.code}: exit {each.exit_code}" + (", retryable" if each.retryable else "")
                for each in classes
                if each.__module__ in (errors.__name__, contract.__name__)
            }
        ),
        "columns of the journal": columns,
        "environment variables": sorted(_variables()),
    }


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def _variables() -> set[str]:
    return {
        name
        for package in ("simenv", "simulators", "launcher", "noise_models")
        for path in (ROOT / package).rglob("*.py")
        for name in re.findall(r"\bSIMENV_[A-Z0-9_]*[A-Z0-9]\b", path.read_text())
    }


@pytest.mark.parametrize("what", stored("constants"))
def test_public_names_and_constants_equal_stored_values(what: str) -> None:
    assert constants()[what] == stored("constants")[what]


def write() -> None:
    content = {group: {name: entry(group, name) for name in TYPES[group]} for group in TYPES}
    for name, value in {**content, "constants": constants()}.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()
