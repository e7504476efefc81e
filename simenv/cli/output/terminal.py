"""Output to the terminal: the only module of the command line that writes.

Invariant: answers go to stdout, everything else to stderr. Without a terminal, or with NO_COLOR, no
escape code is written. Text of other origin (names, reasons, logs) cannot bring escape codes: every
line is cleaned here of all of them but the colours of `paint`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

import msgspec

from simenv.cli.output.layout import wrap

_COLOURS = {
    "ok": 32, "up": 32, "DONE": 32, "IDLE": 32,
    "RUNNING": 36, "BUSY": 36, "starting": 36, "STARTING": 36,
    "warn": 33, "WARN": 33, "degraded": 33, "QUEUED": 33, "DRAINING": 33, "CANCELLED": 33,
    "fail": 31, "FAILED": 31, "EXPIRED": 31, "LOST": 31, "quarantined": 31, "error": 31,
}  # fmt: skip


_PAINTED = re.compile(r"(\x1b\[(?:3[1236]|0)m)")
# Characters that are valid in JSON and that terminals or editors interpret: C1 controls, marks of
# text direction, line separators.
_OBEYED = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


class ReaderGone(Exception):
    """The reader of stdout has closed it. Not an OSError, which typer would map to an exit code."""


def line(text: str = "") -> None:
    """Print one line of the answer."""
    try:
        sys.stdout.write(_escape_controls(text) + "\n")
    except BrokenPipeError as error:
        raise ReaderGone from error


def fitted(text: str, indent: int = 0) -> None:
    """Print one line of the answer; on a terminal it is wrapped at words, further lines
    indented."""
    columns = width()
    for part in [text] if not columns else wrap(text, columns, indent):
        line(part)


def width() -> int:
    """Return the columns of the terminal that shows the answer; 0 if stdout is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0


def flush() -> None:
    """Flush stdout."""
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error


def abandon() -> None:
    """Redirect stdout to /dev/null, because it cannot be written any more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Print one line on stderr: progress, warnings, errors."""
    flush()
    sys.stderr.write(_escape_controls(text) + "\n")
    sys.stderr.flush()


def json_line(value: object) -> None:
    """Print one object on a line of its own; Structs keep their field names."""
    text = msgspec.json.encode(value).decode()
    if not text.isascii():
        text = _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    line(text)


def paint(word: str, stream: TextIO | None = None, width: int = 0) -> str:
    """Return the word, padded to `width`, in its colour if the stream (default: stdout) shows
    colours."""
    colour = _COLOURS.get(word)
    padded = word.ljust(width)
    if colour is None or not _coloured(sys.stdout if stream is None else stream):
        return padded
    return f"\x1b[{colour}m{padded}\x1b[0m"


_LEVELS = (32, 36, 33, 31, 31)  # from good to bad


def shade(text: str, level: int) -> str:
    """Return the text in the colour of a level, 0 (good) to 4 (bad), if stdout shows colours.

    A level of -1 has no colour.
    """
    if level < 0 or not text.strip() or not _coloured(sys.stdout):
        return text
    return f"\x1b[{_LEVELS[level]}m{text}\x1b[0m"


def clear() -> None:
    """Clear the screen of the terminal."""
    sys.stdout.write("\x1b[H\x1b[2J")


def clean(text: str, keep: str = "") -> str:
    """Return `text` with control characters escaped, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def _escape_controls(text: str) -> str:
    """Return a line with its colours, line ends and tabs, and with all other controls escaped."""
    if text.isprintable():
        return text
    parts = _PAINTED.split(text)
    parts[::2] = [clean(part, keep="\n\t") for part in parts[::2]]
    return "".join(parts)


def cell(text: str) -> str:
    """Return a cell of a CSV file that a spreadsheet does not read as a formula.

    A text that begins like a formula and is no number gets an apostrophe.
    """
    # Spreadsheets pass over white space before a formula.
    if not text.lstrip().startswith(("=", "+", "-", "@")) or text == "-":
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def size(count: float) -> str:
    """Format a number of bytes: 512 B, 1.1 GiB."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def number(value: int) -> str:
    """Format a number with spaces: 10 231."""
    return f"{value:,}".replace(",", " ")


def counted(value: int, noun: str) -> str:
    """Format a count with its noun: 1 qubit, 2 qubits."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def bars(shares: Mapping[str, float], texts: Mapping[str, str], limit: int = 32) -> None:
    """Print a histogram of the `limit` largest shares in the order of their keys."""
    largest = sorted(shares, key=lambda key: -shares[key])[:limit]
    top = max((shares[key] for key in largest), default=0.0)
    column = max((len(texts[key]) for key in largest), default=0)
    for key in sorted(largest):
        bar = "#" * round(20 * shares[key] / top) if top else ""
        line(f"{key}  {texts[key].rjust(column)}  {bar}".rstrip())
    if len(shares) > limit:
        note(f"the {limit} largest of {len(shares)}; --json prints all")


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; the first row has the headers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        line("  ".join(cells).rstrip())


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")
