"""What is written for people: control characters, sizes, histograms, colours."""

from __future__ import annotations

import io

import msgspec
import pytest

from simenv.cli.output import terminal


def test_control_characters_are_escaped() -> None:
    assert terminal.clean("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert terminal.clean("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 * 2**30, "3.0 GiB"),
        (2**50, "1024.0 TiB"),
    ],
)
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


def test_colours_are_written_only_to_terminal_without_no_color(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.paint("ok", Terminal(), width=4) == "\x1b[32mok  \x1b[0m"
    assert terminal.paint("ok", io.StringIO()) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.paint("ok", Terminal()) == "ok"


def test_counted_noun_is_singular_for_one() -> None:
    assert [terminal.counted(k, "task") for k in (0, 1, 2, 1234)] == [
        "0 tasks", "1 task", "2 tasks", "1 234 tasks",
    ]  # fmt: skip


def test_line_and_note_escape_all_controls_except_colours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever a command forgot to clean: names, runs of applications, engines' words."""
    terminal.line("\x1b[32mok\x1b[0m\tana\x1b]0;title\x07\x9b2J\rgone\nnext")
    terminal.note("\x1b[8mhidden\x1b[0m \u202egnp.exe")
    output = capsys.readouterr()
    assert output.out == "\x1b[32mok\x1b[0m\tana\\x1b]0;title\\x07\\x9b2J\\rgone\nnext\n"
    assert output.err == "\\x1b[8mhidden\x1b[0m \\u202egnp.exe\n"


def test_json_line_escapes_terminal_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
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
