"""Listings: one fact a line, in aligned columns on a terminal, with tabs elsewhere, or one object a
line.

Invariant: rows are shown as they arrive, a block at a time; no listing holds more than a block.
"""

from __future__ import annotations

import csv
import inspect
import io
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import typer

from simenv.cli import app, terminal
from simenv.errors import OptionError

Row = TypeVar("Row")
BLOCK_ROWS = 1_000
GAP = 2  # columns between two columns of a table
_WORD = re.compile(r"\w+")  # WORKER(REASON) can be selected by either word

Columns = Annotated[str, typer.Option("--columns", "-o", help="Columns to show, with commas.")]
NoHeader = Annotated[bool, typer.Option("--no-header", help="Omit the headers.")]
Watch = Annotated[
    float, typer.Option("--watch", callback=app.seconds, help="Repeat every SECONDS.")
]
_BY_NAME = inspect.Parameter.KEYWORD_ONLY
_COMMON = (
    inspect.Parameter("columns", _BY_NAME, default="", annotation=Columns),
    inspect.Parameter("no_header", _BY_NAME, default=False, annotation=NoHeader),
    inspect.Parameter("watch", _BY_NAME, default=0.0, annotation=Watch),
)


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """Header of a column, and the function from a row to its text."""

    header: str
    text: Callable[[Row], str]
    right: bool = False
    width: int = 0  # least width, for rows that arrive one by one
    optional: int = 0  # order of omission on a narrow terminal, highest first; 0: never


@dataclass(frozen=True, slots=True)
class Style:
    """Options of a listing."""

    as_json: bool
    columns: str = ""
    no_header: bool = False
    watch_s: float = 0.0
    aligned: bool = False  # aligned columns also without a terminal, for readers of a log
    as_csv: bool = False


@dataclass(frozen=True, slots=True)
class Rows(Generic[Row]):
    """Rows with a note, which is printed on stderr."""

    rows: Iterable[Row]
    note: str


def listed(
    columns: Sequence[Column[Row]], *, stored: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Return a decorator that makes a command of a function from (client, its own options) to rows.
    The command gets the options of every listing: `--columns`, `--no-header`, `--watch` and
    `--json`. `stored`: if no service is up, the rows come from its journal."""

    def decorate(rows: Callable[..., Iterable[Row] | Rows[Row]]) -> Callable[..., None]:
        def command(context: typer.Context, **values: Any) -> None:
            if context.invoked_subcommand is not None:
                return
            common = app.settings_of(context)
            style = Style(
                common.as_json, values.pop("columns"), values.pop("no_header"), values.pop("watch")
            )
            with common.connect_or_read() if stored else common.connect() as client:
                listing(columns, style, lambda: rows(client, **values))

        return _with_options_of(rows, command, *_COMMON)

    return decorate


def printed(
    lines: Callable[[Any], Iterable[str]],
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Return a decorator that makes a command of a function from (client, its own options) to a
    value, which is printed as a JSON object or as the text lines of `lines`."""

    def decorate(act: Callable[..., Any]) -> Callable[..., None]:
        def command(context: typer.Context, **values: Any) -> None:
            common = app.settings_of(context)
            with common.connect() as client:
                value = act(client, **values)
            common.answer(value, lines(value))

        return _with_options_of(act, command)

    return decorate


def _with_options_of(
    function: Callable[..., Any], command: Callable[..., None], *more: inspect.Parameter
) -> Callable[..., None]:
    """Give a command the options of a function whose first parameter is a client, and more."""
    function.__annotations__.pop("return", None)  # its names may be imported for type checks alone
    signature = inspect.signature(function, eval_str=True, locals={"Client": Any})
    _, *own = signature.parameters.values()
    context = inspect.Parameter("context", _BY_NAME, annotation=typer.Context)
    app.set_signature(
        command, function, [context, *(each.replace(kind=_BY_NAME) for each in own), *more]
    )
    return command


def listing(
    columns: Sequence[Column[Row]], style: Style, fetch: Callable[[], Iterable[Row] | Rows[Row]]
) -> None:
    """Show the rows that `fetch` returns, repeatedly with `--watch` (until interrupted)."""
    chosen = _choose(columns, style.columns)
    while True:
        result = fetch()
        rows, note = (result.rows, result.note) if isinstance(result, Rows) else (result, "")
        if style.watch_s and sys.stdout.isatty():
            terminal.clear()
        _show(chosen, style, _blocks(rows))
        if note:
            room = terminal.width()
            terminal.note("\n".join(terminal.wrap(note, room)) if room else note)
        if not style.watch_s:
            return
        terminal.flush()
        time.sleep(style.watch_s)  # interval set by the user: there is no event to wait for


def following(
    columns: Sequence[Column[Row]], style: Style, blocks: Iterable[Sequence[Row]]
) -> None:
    """Show each block as it arrives; it is flushed before the next one is requested."""
    _show(_choose(columns, style.columns), style, blocks, flush=True)


def _blocks(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    left = iter(rows)
    while block := list(itertools.islice(left, BLOCK_ROWS)):
        yield block


def _choose(columns: Sequence[Column[Row]], names: str) -> Sequence[Column[Row]]:
    if not names:
        return columns
    by_name = {word: column for column in columns for word in _WORD.findall(column.header.lower())}
    by_name |= {column.header.lower(): column for column in columns}
    headers = ", ".join(column.header.lower() for column in columns)
    wanted = [name.strip().lower() for name in names.split(",")]
    for name in wanted:
        if name not in by_name:
            raise OptionError(f"there is no column {name!r}", hint=f"columns: {headers}")
    return [by_name[name] for name in wanted]


def _show(
    columns: Sequence[Column[Row]],
    style: Style,
    blocks: Iterable[Sequence[Row]],
    flush: bool = False,
) -> None:
    if style.as_json:
        for block in blocks:
            for row in block:
                terminal.json_line(keyed(row))
            if flush:
                terminal.flush()
        return
    table = _Table(columns, style)
    for block in blocks:
        table.print([[terminal.clean(column.text(row)) for column in columns] for row in block])
        if flush:
            terminal.flush()
    table.print([])
    if table.hidden and not style.watch_s:
        names = ", ".join(column.header.lower() for column in table.hidden)
        for line in terminal.wrap(f"not shown: {names}; -o COLUMNS or --json", terminal.width(), 2):
            terminal.note(line)


def keyed(row: object) -> object:
    """Return a row as a dict with the names of its fields, also for nested values encoded as
    arrays."""
    if isinstance(row, msgspec.Struct):
        return {key: keyed(value) for key, value in msgspec.structs.asdict(row).items()}
    return [keyed(value) for value in row] if isinstance(row, tuple) else row


class _Table:
    """Rows as text. Columns grow with wider cells; the first rows decide which columns are
    shown."""

    def __init__(self, columns: Sequence[Column[Any]], style: Style) -> None:
        self._columns, self._style = columns, style
        self._header = [] if style.no_header else [[column.header for column in columns]]
        self._widths = [column.width for column in columns]
        self._shown: list[int] | None = None
        self.hidden: list[Column[Any]] = []

    def print(self, rows: list[list[str]]) -> None:
        """Print the headers, unless they have been printed, and these rows."""
        lines, self._header = [*self._header, *rows], []
        if self._style.as_csv:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(
                map(terminal.cell, line) for line in lines
            )
            for line in text.getvalue().splitlines():
                terminal.line(line)
        elif not (self._style.aligned or sys.stdout.isatty()):
            for cells in lines:
                terminal.line("\t".join(cells))
        elif lines:
            self._print_aligned(lines)

    def _print_aligned(self, lines: list[list[str]]) -> None:
        for cells in lines:
            self._widths[:] = map(max, self._widths, map(len, cells))
        width, columns = terminal.width(), self._columns
        if self._shown is None:
            self._shown = list(range(len(columns)))
            if width and not self._style.columns:
                optional = [column.optional for column in columns]
                self._shown = terminal.fitting(self._widths, optional, width, GAP)
            self.hidden = [each for k, each in enumerate(columns) if k not in self._shown]
        *before, last = self._shown
        start = sum(self._widths[k] + GAP for k in before)
        for cells in lines:
            parts = [self._cell(cells[k], k) for k in before]
            text, indent = [cells[last]], start
            if width and start + len(cells[last]) > width:
                room, words = width - start, cells[last].split()
                if room < max(terminal.LEAST_TEXT, *map(len, words)):  # below the other cells
                    room, indent = width - GAP, GAP
                text = terminal.wrap(cells[last], room)
            if indent == start:
                parts.append(self._cell(text.pop(0), last))
            terminal.line((" " * GAP).join(parts).rstrip())
            for more in text:
                terminal.line(" " * indent + more)

    def _cell(self, text: str, k: int) -> str:
        if self._columns[k].right:
            return text.rjust(self._widths[k])
        return terminal.paint(text, width=self._widths[k])
