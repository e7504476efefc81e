"""Listings: columns chosen, tabs without a terminal, objects with --json."""

from __future__ import annotations

import json

import msgspec
import pytest
from failing import fails

from simenv.cli.listing import Column, Style, listing
from simenv.errors import OptionError


class Row(msgspec.Struct):
    """Something to list."""

    name: str
    size: int


COLUMNS: tuple[Column[Row], ...] = (
    Column("NAME", lambda row: row.name),
    Column("SIZE", lambda row: str(row.size), right=True),
)
ROWS = [Row("a", 1), Row("b\tc", 20)]


def test_columns_are_printed_in_order_with_tabs_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    listing(COLUMNS, Style(False, columns="size, name", no_header=True), lambda: ROWS[:1])
    assert capsys.readouterr().out == "1\ta\n"
    listing(COLUMNS, Style(False), lambda: ROWS)
    assert capsys.readouterr().out == "NAME\tSIZE\na\t1\nb\\tc\t20\n"


def test_compound_header_is_selected_by_each_name(capsys: pytest.CaptureFixture[str]) -> None:
    columns: tuple[Column[Row], ...] = (Column("WORKER(REASON)", lambda row: row.name),)
    for name in ("reason", "worker", "worker(reason)"):
        listing(columns, Style(False, columns=name, no_header=True), lambda: ROWS[:1])
    assert capsys.readouterr().out == "a\na\na\n"


def test_unknown_column_is_refused_with_known_ones() -> None:
    error = fails(OptionError, "", listing, COLUMNS, Style(False, columns="colour"), lambda: ROWS)
    assert error.hint == "columns: name, size"


def test_json_has_all_fields_and_empty_list_its_header(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing(COLUMNS, Style(True), lambda: ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "a", "size": 1},
        {"name": "b\tc", "size": 20},
    ]
    listing(COLUMNS, Style(False), list)
    assert capsys.readouterr().out == "NAME\tSIZE\n"
