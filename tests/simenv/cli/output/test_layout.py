"""Tables and lines on narrow terminals: no word is cut, and what is left out is named."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from live import Live

from noise_models import library, snapshot
from simenv.cli.devices import stored
from simenv.cli.output.layout import LEAST_TEXT, fitting, wrap

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
    imported, _ = stored.save("neutral-atoms-of-may", snapshot.dump(library.load("neutral-atoms")))
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
