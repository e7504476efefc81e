"""Layout of text, output to the terminal, text forms of nodes and times, and pictures.

The layout wraps lines at words, and leaves out columns of tables that do not fit. It is pure:
widths in, lines out. Escape codes in a text count as columns.

This is the only module of the command line that writes. Invariant: answers go to stdout, everything
else to stderr. Without a terminal, or with NO_COLOR, no escape code is written. Text of other
origin (names, reasons, logs) cannot bring escape codes: every line is cleaned here of all of them
but the colours of `paint`.

Text forms are those of node lists, such as gpu[07-08,11], and of times, such as `--since 1h30m`.
Pictures are written with matplotlib, an optional dependency.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TextIO

import msgspec
import typer

from simenv.errors import ConfigError, OptionError

OWN_USER = "(own user)"  # of the environment, in columns of users
LEAST_TEXT = 12  # least number of columns for wrapped text
_PIECES = re.compile(r"\S+|\s+")


def wrap(text: str, width: int, indent: int = 0) -> list[str]:
    """Return `text` in lines of at most `width` columns, the second and later ones indented. Lines
    break at spaces, and inside a word only if the word alone is too wide. If the indent leaves less
    than LEAST_TEXT columns, lines are wider than `width`."""
    lines: list[str] = []
    line, gap = "", ""
    for piece in _PIECES.findall(text):
        limit = max(width - (indent if lines else 0), LEAST_TEXT)
        if piece.isspace():
            gap = piece
            continue
        if line and len(line) + len(gap) + len(piece) > limit:
            lines.append(line)
            line, gap = "", ""
            limit = max(width - indent, LEAST_TEXT)
        line += gap + piece
        gap = ""
        while len(line) > limit:
            lines.append(line[:limit])
            line = line[limit:]
            limit = max(width - indent, LEAST_TEXT)
    lines.append(line)
    return [lines[0], *(" " * indent + each for each in lines[1:])]


def fitting(widths: Sequence[int], optional: Sequence[int], width: int, gap: int) -> list[int]:
    """Return the columns of a table to show in `width`, by their indices. `optional`: 0 for a
    column that is always shown; of the others the highest is left out first. The last column shown
    may be wrapped down to LEAST_TEXT, so it counts as no wider than that."""
    shown = list(range(len(widths)))
    while True:
        *fixed, last = [widths[k] for k in shown]
        if sum(fixed) + gap * len(fixed) + min(last, LEAST_TEXT) <= width:
            return shown
        droppable = [k for k in shown if optional[k]]
        if not droppable or len(shown) == 1:
            return shown
        shown.remove(max(droppable, key=lambda k: optional[k]))


_COLOURS = {
    "ok": 32, "up": 32, "DONE": 32, "IDLE": 32,
    "RUNNING": 36, "BUSY": 36, "starting": 36, "STARTING": 36,
    "warn": 33, "WARN": 33, "degraded": 33, "paused": 33, "draining": 33,
    "QUEUED": 33, "DRAINING": 33, "CANCELLED": 33,
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
    with suppress(OSError, ValueError):
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
    """Return the text in the colour of a level, 0 (good) to 4 (bad), if stdout shows colours. A
    level of -1 has no colour."""
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
    """Return a cell of a CSV file that a spreadsheet does not read as a formula. A text that begins
    like a formula and is no number gets an apostrophe."""
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


def amount(value: float) -> str:
    """Format an amount with three significant digits or more: 1234.5, 1.23, 0.0123."""
    if value < 1e-6:
        return f"{value:.3g}"
    return f"{value:.{min(6, max(1, 2 - math.floor(math.log10(value))))}f}"


def counted(value: int, noun: str) -> str:
    """Format a count with its noun: 1 qubit, 2 qubits, 2 passes."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number(value)} {noun}{'' if value == 1 else plural}"


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


def table(rows: Sequence[Sequence[str]], left: int | None = None) -> None:
    """Print rows in aligned columns; the first row has the headers. `left`: number of columns of
    text, before columns of numbers; None: all are text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=True)][:left]
        if left is not None:
            cells += map(str.rjust, row[left:], widths[left:])
        line("  ".join(cells).rstrip())


_COLUMNS = 80  # of output that is no terminal


def table_in_parts(rows: Sequence[Sequence[str]], first: int) -> None:
    """Print a table that may be wider than the terminal: as many columns at a time as fit, at
    least one, each time beside the `first` ones."""
    widths = [2 + max(map(len, column)) for column in zip(*rows, strict=True)]
    most, begin, count = width() or _COLUMNS, first, len(widths)
    while begin < count:
        room = most + 2 - sum(widths[:first])
        end = begin + 1
        while end < count and sum(widths[begin : end + 1]) <= room:
            end += 1
        if begin > first:
            line("")
        table([(*row[:first], *row[begin:end]) for row in rows])
        begin = end


def _coloured(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


_NUMBERED = re.compile(r"(.*?)(\d{1,18})(\D*)\Z")


def folded(names: Iterable[str]) -> str:
    """Fold names of nodes: gpu07 gpu08 gpu11 login to gpu[07-08,11],login; order of first
    appearance."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for name in dict.fromkeys(names):
        result = _NUMBERED.match(name)
        if result is None:
            groups[(name, "", -1)] = []
            continue
        before, digits, after = result.groups()
        width = len(digits) if digits.startswith("0") and len(digits) > 1 else 0
        kind = (before, after, width)
        # 099 and 100 belong to one series of three digits.
        padded = (before, after, len(digits))
        groups.setdefault(padded if padded in groups else kind, []).append(int(digits))
    return ",".join(_word(*kind, indices) for kind, indices in groups.items())


def _word(before: str, after: str, width: int, indices: list[int]) -> str:
    if width < 0:
        return before
    if len(indices) == 1:
        return f"{before}{indices[0]:0{width}d}{after}"
    return f"{before}[{','.join(ranges(sorted(indices), width))}]{after}"


def ranges(indices: Sequence[int], width: int = 0) -> Iterable[str]:
    """Fold numbers, one or more: 0-4, 7, 9-12. `width`: least number of digits."""
    start = last = indices[0]
    for number in [*indices[1:], -2]:
        if number == last + 1:
            last = number
            continue
        first = f"{start:0{width}d}"
        yield first if start == last else f"{first}-{last:0{width}d}"
        start = last = number


_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+\Z")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?\Z")


def span_s(text: str) -> float | None:
    """Parse a time span such as `90s`, `1h30m` or `2d` into seconds; None for other texts."""
    if not _SPAN.match(text):
        return None
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def since(text: str, zone: str = "", *, days: int = 0) -> float:
    """Parse a time into seconds since 1970; 0.0 for "". `days`: from today to a time of day.

    Forms: an age (`90s`, `1h30m`, `2d`), a time of today (`12:00`), or ISO 8601, by the clocks of
    `zone` or else in local time. Raises typer.BadParameter for other texts.
    """
    if not text:
        return 0.0
    if (age_s := span_s(text)) is not None:
        return max(0.0, time.time() - age_s)
    clocks = _clocks(zone) if zone else None
    try:
        if _CLOCK.match(text):
            day = datetime.now(clocks).astimezone(clocks).date() + timedelta(days)
            text = f"{day}T{text.zfill(5)}"
        moment = datetime.fromisoformat(text)
        return (moment.replace(tzinfo=clocks) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        hint = "try 90s, 1h30m, 2d, 12:00 or 2026-01-31T12:00"
        raise typer.BadParameter(f"{text!r} is no time: {hint}") from error


def _clocks(zone: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(zone)
    except (LookupError, ValueError, OSError) as error:
        hint = "a name such as Europe/Rome, if this machine has the package tzdata; or UTC"
        raise typer.BadParameter(f"{zone!r} is no time zone here: {hint}") from error


def until(text: str, zone: str = "") -> float:
    """Parse a time to come into seconds since 1970: the forms of `since`, but that a time span
    counts from now on, and a time of day that has passed is tomorrow's. Raises
    typer.BadParameter."""
    if (left_s := span_s(text)) is not None:
        return time.time() + left_s
    at_s = since(text, zone)
    is_over = _CLOCK.match(text) and at_s < time.time()
    return since(text, zone, days=1) if is_over else at_s


def format_time(time_s: float) -> str:
    """Format a time as ISO 8601 in local time, to the millisecond; "-" for 0.0."""
    if not time_s:
        return "-"
    moment = datetime.fromtimestamp(time_s).astimezone()
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


def require_matplotlib(options: str) -> None:
    """Raise ConfigError without matplotlib; `options`: options that need it, such as `--plot`."""
    if importlib.util.find_spec("matplotlib") is None:
        hint = "pip install 'simenv[plots]'"
        raise ConfigError(f"{options}: matplotlib is not installed", hint=hint)


def require_folders(files: Mapping[str, Path | None]) -> None:
    """Raise OptionError if a file, by its option, cannot be written for want of its folder."""
    for option, path in files.items():
        if path is not None and not os.access(path.parent, os.W_OK):
            what = "cannot be written" if path.parent.is_dir() else "does not exist"
            raise OptionError(f"{option} {path}: the folder {path.parent} {what}")


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Map OSError to OptionError that names the file; `path`: used if the error names none."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise OptionError(f"cannot write {name}: {error.strerror}") from error


def plot(path: Path, what: str, draw: Callable[[], None]) -> None:
    """Write the picture of `--plot PATH`: `draw` writes the PNG file; a note says that `what` is in
    it.

    Raises ConfigError, OptionError.
    """
    require_matplotlib("--plot")
    if path.suffix != ".png":
        raise OptionError(f"--plot {path}: not a PNG file", hint="give a name that ends in .png")
    with write_errors(path):
        draw()
    note(f"{what} drawn in {path}")
