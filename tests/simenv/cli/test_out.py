"""What is written for people: control characters, sizes, histograms, colours."""

from __future__ import annotations

import io

import pytest

from simenv.cli import out


def test_a_name_moves_the_cursor() -> None:
    assert out.clean("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert out.clean("a\nb", keep="\n") == "a\nb"


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
def test_a_size_is_told_in_the_wrong_unit(count: int, text: str) -> None:
    assert out.size(count) == text


def test_the_largest_outcomes_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {format(k, "03b"): k + 1 for k in range(8)}
    out.bars(counts, {key: str(n) for key, n in counts.items()}, limit=2)
    shown = capsys.readouterr()
    assert shown.out == "110  7  ##################\n111  8  ####################\n"
    assert shown.err == "the 2 largest of 8; --json prints all\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_color_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert out.paint("ok", Terminal(), width=4) == "\x1b[32mok  \x1b[0m"
    assert out.paint("ok", io.StringIO()) == "ok"
    monkeypatch.setenv("NO_COLOR", "1")
    assert out.paint("ok", Terminal()) == "ok"


def test_one_thing_is_told_as_several() -> None:
    assert [out.counted(k, "task") for k in (0, 1, 2, 1234)] == [
        "0 tasks", "1 task", "2 tasks", "1 234 tasks",
    ]  # fmt: skip
