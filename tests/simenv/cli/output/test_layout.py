"""Layout, terminal, times, formats and listings of output."""

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from datetime import datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
import typer
from failing import fails
from live import Live

from noise_models import library, snapshot
from simenv.cli import terminal
from simenv.cli.devices import overview
from simenv.cli.listing import Column, Style, listing
from simenv.cli.terminal import LEAST_TEXT, fitting, folded, format_time, since, until, wrap
from simenv.errors import OptionError

ROOT = Path(__file__).parents[4]
POOLS = [{"name": "amplitudes", "min": 1, "max": 1}]


@pytest.mark.parametrize(
    ("text", "width", "indent", "lines"),
    [
        ("", 80, 2, [""]),
        ("one two", 80, 2, ["one two"]),
        ("ENGINE   one two three four", 24, 9, ["ENGINE   one two three", "         four"]),
        ("one " + 40 * "x", 30, 0, ["one", 30 * "x", 10 * "x"]),
        ("a b  c   d" + 6 * " e", LEAST_TEXT, 0, ["a b  c   d e", "e e e e e"]),
    ],
)
def test_lines_are_wrapped_at_words(text: str, width: int, indent: int, lines: list[str]) -> None:
    result = wrap(text, width, indent)
    assert result == lines
    assert max(map(len, result)) <= width


def test_optional_columns_are_omitted_by_rank_on_narrow_terminals() -> None:
    widths, optional = [10, 10, 10, 40], [0, 2, 1, 0]
    assert fitting(widths, optional, 80, 2) == [0, 1, 2, 3]
    assert fitting(widths, optional, 52, 2) == [0, 1, 2, 3]  # the last one is wrapped
    assert fitting(widths, optional, 46, 2) == [0, 2, 3]
    assert fitting(widths, optional, 30, 2) == [0, 3]
    assert fitting(widths, optional, 5, 2) == [0, 3]  # what is not optional stays


def on_terminal(columns: int, *words: str) -> list[str]:
    """What `simenv WORDS` writes to a terminal of that width, line by line."""
    value, result = pty.openpty()
    fcntl.ioctl(result, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "simenv", *words], stdin=result, stdout=result, stderr=result,
        env={**environ, "NO_COLOR": "1"}, cwd=ROOT,
    )  # fmt: skip
    os.close(result)
    data = b""
    while True:
        try:
            data += os.read(value, 65_536)
        except OSError:  # EIO: the other end was closed
            break
    os.close(value)
    assert process.wait() == 0, data
    return data.decode().replace("\r", "").splitlines()


@pytest.mark.parametrize("command", ["status", "pools", "devices", "history", "events"])
def test_listings_fit_a_terminal_of_80_columns(environment: Live, command: str) -> None:
    with environment.client() as env:
        env.run(ROOT / "examples" / "bell.qasm")
    imported, _ = overview.save(
        "neutral-atoms-of-may", snapshot.dump(library.load("neutral-atoms"))
    )
    try:
        check_listing(environment, command)
    finally:
        imported.unlink()


def check_listing(environment: Live, command: str) -> None:
    wide = on_terminal(400, command, "--name", environment.name)
    narrow = on_terminal(80, command, "--name", environment.name)
    assert max(map(len, wide)) > 80
    assert max(map(len, narrow)) <= 80
    if command == "status":  # its figures change from one look to the next
        return
    noted = [place for place, line in enumerate(narrow) if line.startswith("not shown: ")]
    assert bool(noted) == (command in ("pools", "devices", "history"))
    table = narrow[: noted[0]] if noted else narrow
    names = {word.strip(",;") for word in " ".join(wide).split()}
    assert {word.strip(",;") for word in " ".join(table).split()} <= names, "a word is cut"


def test_control_characters_are_escaped() -> None:
    assert terminal.clean("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert terminal.clean("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**30, "3.0 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)  # fmt: skip
def test_size_is_shown_in_binary_units(count: int, text: str) -> None:
    assert terminal.size(count) == text


def test_histogram_shows_largest_outcomes_up_to_limit(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {format(k, "03b"): k + 1 for k in range(8)}
    terminal.bars(counts, {key: str(n) for key, n in counts.items()}, limit=2)
    output = capsys.readouterr()
    assert output.out == "110  7  ##################\n111  8  ####################\n"
    assert output.err == "the 2 largest of 8; --json prints all\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_are_written_to_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.paint("ok", Terminal(), width=4) == "\x1b[32mok  \x1b[0m"
    assert terminal.paint("ok", io.StringIO()) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("ok", Terminal()) == "ok"


def test_counted_noun_is_singular_for_one() -> None:
    assert [terminal.counted(k, "task") for k in (0, 1, 2, 1234)] == [
        "0 tasks", "1 task", "2 tasks", "1 234 tasks",
    ]  # fmt: skip


def test_controls_are_escaped_in_lines_notes_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    # Whatever a command forgot to clean: names, runs of applications, engines' words.
    terminal.line("\x1b[32mok\x1b[0m\tana\x1b]0;title\x07\x9b2J\rgone\nnext")
    terminal.note("\x1b[8mhidden\x1b[0m \u202egnp.exe")
    output = capsys.readouterr()
    assert output.out == "\x1b[32mok\x1b[0m\tana\\x1b]0;title\\x07\\x9b2J\\rgone\nnext\n"
    assert output.err == "\\x1b[8mhidden\x1b[0m \\u202egnp.exe\n"
    value = {"name": "a\x9b2J\u202eb\u2028c\x1b[2J", "good": "Zürich ψ 量子"}
    terminal.json_line(value)
    text = capsys.readouterr().out
    assert msgspec.json.decode(text) == value
    assert not {"\x9b", "\u202e", "\u2028", "\x1b"} & set(text)
    assert "Zürich ψ 量子" in text


@pytest.mark.parametrize(
    "text", ["=1+1", "\t=1+1", "\r=1+1", " \n@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)"]
)
def test_csv_cell_that_begins_like_formula_is_quoted(text: str) -> None:
    assert terminal.cell(text) == "'" + text


@pytest.mark.parametrize("text", ["-", "-1.5", "+3e8", "t-1", "", "main-0"])
def test_csv_cell_that_is_no_formula_is_unchanged(text: str) -> None:
    assert terminal.cell(text) == text


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1.5h", 5400), ("1w", 604_800)],
)
def test_duration_is_read_as_time_before_now(text: str, ago_s: float) -> None:
    assert since(text) == pytest.approx(time.time() - ago_s, abs=5)


def test_time_of_day_and_iso_time_are_read_as_timestamps() -> None:
    assert since("") == 0.0
    today = datetime.now().astimezone().replace(hour=7, minute=5, second=0, microsecond=0)
    assert since("7:05") == since("07:05:00") == today.timestamp()
    local = datetime(2026, 1, 31, 12, 0).astimezone().timestamp()
    assert (since("2026-01-31T12:00"), since("2026-01-31T12:00:00+00:00")) == (local, 1_769_860_800)
    assert since(format_time(local)) == local
    assert format_time(0.0) == "-"


def test_times_without_an_offset_are_by_the_clocks_of_a_named_zone() -> None:
    assert since("2026-01-31T12:00", "Europe/Rome") == 1_769_857_200  # 11:00 in UTC
    assert since("2026-01-31T12:00:00+00:00", "Europe/Rome") == 1_769_860_800
    begin = datetime.fromtimestamp(until("03:00", "Asia/Tokyo"), ZoneInfo("Asia/Tokyo"))
    assert (begin.hour, begin.minute) == (3, 0)
    assert 0 < begin.timestamp() - time.time() <= 86_400
    for wrong in ("Mars/Base", "../UTC"):
        fails(typer.BadParameter, "is no time zone here", until, "03:00", wrong)


@pytest.mark.parametrize("evening", ["2026-03-28T22:00", "2026-10-24T22:00"])  # clocks change then
def test_time_of_tomorrow_is_by_the_clocks_of_tomorrow(
    evening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = ZoneInfo("Europe/Rome")
    now = datetime.fromisoformat(evening).replace(tzinfo=zone)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    monkeypatch.setattr(terminal, "datetime", Clock)
    monkeypatch.setattr(terminal.time, "time", now.timestamp)
    begin = datetime.fromtimestamp(until("06:00", "Europe/Rome"), zone)
    assert (begin.hour, begin.day - now.day) == (6, 1)


@pytest.mark.parametrize("text", ["h", "1x", "-1h", "25:00", "12:61", "soon", "1h 30m", "\uff19h"])
def test_invalid_time_is_refused(text: str) -> None:
    fails(typer.BadParameter, "is no time", since, text)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ("", ""), ("login", "login"), ("gpu07", "gpu07"), ("gpu07 gpu08", "gpu[07-08]"),
        ("n3 n1 n2 n7 n2", "n[1-3,7]"), ("n9 n10", "n[9-10]"), ("n09 n10 n11", "n[09-11]"),
        ("n1 n01", "n1,n01"), ("a1.site a2.site b1", "a[1-2].site,b1"),
        ("r1n1 r1n2 r2n1", "r1n[1-2],r2n1"), ("login n1 n2", "login,n[1-2]"), ("0 1 2", "[0-2]"),
    ],
)  # fmt: skip
def test_node_names_are_folded_into_host_list(names: str, word: str) -> None:
    assert folded(names.split()) == word


class Row(msgspec.Struct):
    """Something to list."""

    name: str
    size: int


COLUMNS: tuple[Column[Row], ...] = (
    Column("NAME", lambda row: row.name),
    Column("SIZE", lambda row: str(row.size), right=True),
)
ROWS = [Row("a", 1), Row("b\tc", 20)]


def test_word_wider_than_its_column_is_whole_below_the_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "width", lambda: 30)
    engine: Column[str] = Column("ENGINE", lambda _: "statevector", width=14)
    columns = (engine, Column("TOP", str))
    listing(columns, Style(False, aligned=True), lambda: ["01:5  10:3  11:2", "0101010101:5  1:3"])
    assert capsys.readouterr().out.splitlines() == [
        "ENGINE          TOP",
        "statevector     01:5  10:3",
        "                11:2",
        "statevector     0101010101:5",
        "                1:3",
    ]
    listing(columns, Style(False, aligned=True), lambda: ["010101010101010:5  111:3"])
    assert capsys.readouterr().out.splitlines() == [
        "ENGINE          TOP", "statevector", "  010101010101010:5  111:3",
    ]  # fmt: skip


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


def test_json_has_all_fields_and_empty_list_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    listing(COLUMNS, Style(True), lambda: ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "a", "size": 1},
        {"name": "b\tc", "size": 20},
    ]
    listing(COLUMNS, Style(False), list)
    assert capsys.readouterr().out == "NAME\tSIZE\n"
