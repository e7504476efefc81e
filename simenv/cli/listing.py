"""Listings: one fact a line, fixed columns on a terminal, tabs elsewhere, or one object a line."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

import typer

from simenv.cli import out
from simenv.cli.settings import seconds
from simenv.errors import OptionError

Row = TypeVar("Row")
_WORD = re.compile(r"\w+")  # WORKER(REASON) may be asked for by either word

Columns = Annotated[str, typer.Option("--columns", "-o", help="Columns to show, by comma.")]
NoHeader = Annotated[bool, typer.Option("--no-header", help="Leave the headers out.")]
Watch = Annotated[
    float, typer.Option("--watch", callback=seconds, help="Show again every so many seconds.")
]


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A header and how a row fills it."""

    header: str
    text: Callable[[Row], str]
    right: bool = False


@dataclass(frozen=True, slots=True)
class Style:
    """How the caller wants a listing."""

    as_json: bool
    columns: str = ""
    no_header: bool = False
    watch_s: float = 0.0
    aligned: bool = False  # columns without a terminal too: for people who read it in a log


def listing(
    columns: Sequence[Column[Row]], style: Style, fetch: Callable[[], Iterable[Row]]
) -> None:
    """Show what `fetch` returns, again and again if asked to watch (until interrupted)."""
    chosen = _choose(columns, style.columns)
    while True:
        rows = list(fetch())
        if style.watch_s and sys.stdout.isatty():
            out.clear()
        if style.as_json:
            for row in rows:
                out.json_line(row)
        else:
            _table(chosen, rows, style)
        if not style.watch_s:
            return
        out.flush()
        time.sleep(style.watch_s)  # the user's own rhythm: there is no event to wait for


def _choose(columns: Sequence[Column[Row]], names: str) -> Sequence[Column[Row]]:
    if not names:
        return columns
    known = {word: column for column in columns for word in _WORD.findall(column.header.lower())}
    known |= {column.header.lower(): column for column in columns}
    headers = ", ".join(column.header.lower() for column in columns)
    wanted = [name.strip().lower() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise OptionError(f"no column {name!r} here", hint=f"there are: {headers}")
    return [known[name] for name in wanted]


def _table(columns: Sequence[Column[Row]], rows: Sequence[Row], style: Style) -> None:
    lines = [[out.clean(column.text(row)) for column in columns] for row in rows]
    if not style.no_header:
        lines.insert(0, [column.header for column in columns])
    if not (style.aligned or sys.stdout.isatty()):
        for cells in lines:
            out.line("\t".join(cells))
        return
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for cells in lines:
        parts = [
            cell.rjust(width) if column.right else out.paint(cell, width=width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ]
        out.line("  ".join(parts).rstrip())
