"""Listings, options and completion of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import simenv
from simenv.cli.errors import errors_for_command_line, translate_to_options
from simenv.cli.listing import Column, Style, listing
from simenv.cli.options import Settings, hoist
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


def test_tab_in_cell_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    listing(COLUMNS, Style(False), lambda: ROWS)
    assert capsys.readouterr().out == "NAME\tSIZE\na\t1\nb\\tc\t20\n"


def test_selected_columns_are_printed_in_requested_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    listing(COLUMNS, Style(False, columns="size, name", no_header=True), lambda: ROWS[:1])
    assert capsys.readouterr().out == "1\ta\n"


def test_column_with_compound_header_is_selected_by_each_of_its_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns: tuple[Column[Row], ...] = (Column("WORKER(REASON)", lambda row: row.name),)
    for name in ("reason", "worker", "worker(reason)"):
        listing(columns, Style(False, columns=name, no_header=True), lambda: ROWS[:1])
    assert capsys.readouterr().out == "a\na\na\n"


def test_unknown_column_is_refused_with_known_ones() -> None:
    with pytest.raises(OptionError) as caught:
        listing(COLUMNS, Style(False, columns="colour"), lambda: ROWS)
    assert caught.value.hint == "columns: name, size"


def test_json_listing_has_all_fields(capsys: pytest.CaptureFixture[str]) -> None:
    listing(COLUMNS, Style(True), lambda: ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "a", "size": 1},
        {"name": "b\tc", "size": 20},
    ]


def test_empty_listing_prints_header_only(capsys: pytest.CaptureFixture[str]) -> None:
    listing(COLUMNS, Style(False), list)
    assert capsys.readouterr().out == "NAME\tSIZE\n"


def test_common_options_after_command_are_moved_before_it() -> None:
    line = ["status", "--json", "--name", "a", "--service=f"]
    assert hoist(line) == ["--json", "--name", "a", "--service=f", "status"]


def test_arguments_after_double_dash_are_not_moved() -> None:
    assert hoist(["submit", "--", "--json"]) == ["submit", "--", "--json"]


def test_name_after_devices_import_is_that_of_the_device() -> None:
    line = ["devices", "import", "a.json", "--name", "fez", "--json", "--service=f"]
    assert hoist(line) == ["--json", "--service=f", "devices", "import", "a.json", "--name", "fez"]
    both = ["--name", "e", "devices", "import", "a", "--name=fez"]
    assert hoist(both) == both
    assert hoist(["devices", "show", "fez", "--name", "e"]) == [
        *("--name", "e", "devices", "show", "fez")
    ]


@pytest.mark.parametrize(
    "line", [["status", "--name"], ["--service", "--json", "status"], ["--name", "--", "status"]]
)
def test_common_option_without_value_is_refused(line: list[str]) -> None:
    with pytest.raises(OptionError, match="has no value"):
        hoist(line)


def test_settings_are_named_by_name_service_file_or_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SIMENV_SERVICE", raising=False)
    assert not Settings().named
    assert Settings(name="a").named
    assert Settings(service=Path("connection.json")).named
    monkeypatch.setenv("SIMENV_SERVICE", "/tmp/connection.json")
    assert Settings().named


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("shots=None is exact: there are no counts", "--shots 0 is exact: there are no counts"),
        (
            "counts need shots; shots=None (exact) gives none",
            "counts need shots; --shots 0 gives none",
        ),
        (
            "give shots=N, or ask for outputs=('probabilities',)",
            "give --shots N, or ask for --output probabilities",
        ),
        (
            'or ask for outputs=("statevector",), or give observables',
            "or ask for --output statevector, or give --observable",
        ),
        ("give parameter_values= a value for every parameter", "give --param NAME=VALUE"),
        ("queue_timeout_s=-1.0", "--queue-timeout -1.0"),
        ("engine='mps'", "--engine mps"),
        ("text, as opposed to a path, has a newline or ';' in it", ""),
        ("name='No'", "--task-name 'No'"),
        ("the name=x inside stays", "the name=x inside stays"),
    ],
)
def test_python_arguments_in_messages_become_command_line_options(python: str, typed: str) -> None:
    assert translate_to_options(python) == typed


def test_translated_error_keeps_its_type_and_index() -> None:
    with pytest.raises(OptionError) as caught, errors_for_command_line():
        raise OptionError("shots=0", hint="shots=None is exact", index=3)
    assert (caught.value.message, caught.value.hint) == ("--shots 0", "--shots 0 is exact")
    assert caught.value.index == 3


def typed(*words: str, **environment: str) -> str:
    """What `python -m simenv` prints for a command line."""
    done = subprocess.run(
        [sys.executable, "-m", "simenv", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_runs_as_a_module() -> None:
    assert typed("--version").strip() == simenv.__version__


@pytest.mark.parametrize("line", [(), ("submit",), ("keys", "add")])
def test_short_help_option_equals_long_one(line: tuple[str, ...]) -> None:
    assert typed(*line, "-h") == typed(*line, "--help")


@pytest.mark.parametrize(
    ("line", "word"), [("simenv sub", "submit"), ("simenv submit --sh", "--shots")]
)
def test_bash_completes_commands_and_options(line: str, word: str) -> None:
    index = str(len(line.split()) - 1)
    result = typed(_SIMENV_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=index)
    assert result.split() == [word]


def test_the_completion_script_can_be_shown() -> None:
    assert "complete_bash" in typed("--show-completion", "bash")
