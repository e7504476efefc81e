"""Listings of the past: `history`, one row a task, and `events`, one row an event.

`simenv history --series` prints samples of the environment's metrics instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from simenv.cli import app, terminal
from simenv.cli.listing import (
    Column,
    Columns,
    NoHeader,
    Row,
    Rows,
    Style,
    Watch,
    following,
    listing,
)
from simenv.errors import NotFoundError, OptionError
from simenv.model import Event, TaskState
from simenv.model.views import check_window
from simenv.wire.messages.history import LogRow

if TYPE_CHECKING:
    from simenv.client.client import Client

LAST = "last"
NEWEST = 100  # rows without a range
OWN = "-"  # owner of tasks without a key, as the column USER shows it
FOLLOW_S = 0.25  # interval of polls for new events
Since = Annotated[
    str, typer.Option(help="Submitted after this: 1h30m ago, 12:00 today, or an ISO 8601 time.")
]
RunName = Annotated[
    str, typer.Option(help="Only tasks of this run (`simenv exec`); last: the last run.")
]

_HISTORY: tuple[Column[LogRow], ...] = (
    Column("TASK", lambda row: row.id),
    Column("SUBMITTED", lambda row: terminal.format_time(row.submitted_s)),
    Column(
        "QUEUED_MS",
        lambda row: _ms(row.timing.queued_us + row.timing.sent_us),
        right=True,
        optional=4,
    ),
    Column("RUN_MS", lambda row: _ms(row.timing.run_us), right=True),
    Column("RETURNED", lambda row: terminal.format_time(row.ended_s), optional=9),
    Column("ENGINE", lambda row: row.engine),
    Column("WIDTH", lambda row: str(row.num_qubits), right=True),
    Column("SHOTS", lambda row: str(row.shots), right=True),
    Column("BINDINGS", lambda row: str(row.bindings), right=True, optional=6),
    Column("STATE", lambda row: str(row.state)),
    Column("TRY", lambda row: str(row.attempts), right=True, optional=7),
    Column("POOL", lambda row: row.pool or "-", optional=10),
    Column("WORKER", lambda row: row.worker or "-", optional=5),
    Column("NODE", lambda row: row.node or "-", optional=8),
    Column("USER", lambda row: row.owner or "-", optional=2),
    Column("NAME", lambda row: row.name or "-", optional=1),
    Column("APP", lambda row: row.app or "-", optional=3),
)
_ACCOUNTS: tuple[Column[LogRow], ...] = (  # shown where there are accounts
    Column("ACCOUNT", lambda row: row.account or "-", optional=11),
    Column("QOS", lambda row: row.qos or "-", optional=12),
)
_EVENTS: tuple[Column[Event], ...] = (
    Column("SEQ", lambda event: str(event.seq), right=True, width=5),
    Column("TIME", lambda event: terminal.format_time(event.time_s)),
    Column("KIND", lambda event: event.kind, width=14),
    Column("SUBJECT", lambda event: event.subject or "-", width=8),
    Column("MESSAGE", lambda event: event.message),
)


@dataclass(frozen=True, kw_only=True)
class HistoryOptions:
    """Values of the options that choose what `history` lists."""

    since: Since = ""
    run_name: RunName = ""
    state: Annotated[
        list[TaskState] | None, typer.Option(help="Only tasks in this state; may be repeated.")
    ] = None
    owner: Annotated[
        str | None,
        typer.Option(help="Only tasks of this user's key; -: the environment's own user."),
    ] = None
    pool: Annotated[str, typer.Option(help="Only tasks of this pool.")] = ""
    until: Annotated[str, typer.Option(help="Submitted before this; forms as for --since.")] = ""
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Only the newest N; default: {NEWEST}; with --since, --until or --run-name all.",
        ),
    ] = None
    series: Annotated[
        str,
        typer.Option(
            help="Instead of tasks: samples of this series, such as queue; list: names of all."
        ),
    ] = ""
    step: Annotated[
        str, typer.Option(help="With --series: time between two rows, such as 10s, 1m or 1h.")
    ] = ""


@app.with_options(HistoryOptions)
def history(
    context: typer.Context,
    asked: HistoryOptions,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """List submitted tasks with times, worker and end; with --series the past of the environment.

    Reads the journal, which survives restarts. Bindings that travelled as one task share a row.
    """
    common = app.settings_of(context)
    if as_csv and common.as_json:
        raise OptionError("--csv cannot be combined with --json", hint="give one of them")
    style = Style(common.as_json, columns, no_header, watch, as_csv=as_csv)
    if asked.series or asked.step:
        _check_series(context, asked)
    with common.connect_or_read() as client:
        if asked.series == LIST:
            listing(_NAMES, style, lambda: map(SeriesName, client.history.series_names()))
            return
        if asked.series:
            listing(_SERIES, style, lambda: _points(client, asked))
            return
        run = resolve_run_name(client, asked.run_name)

        is_bounded = asked.limit or asked.since or asked.until or run

        def rows() -> Iterable[LogRow] | Rows[LogRow]:
            limit = asked.limit if is_bounded else NEWEST + 1
            read = client.history.tasks if limit is None else partial(client.history.newest, limit)
            found = read(
                terminal.since(asked.since), run, asked.state or (),
                owner="" if asked.owner == OWN else asked.owner,
                pool=asked.pool, until_s=terminal.since(asked.until) or math.inf,
            )  # fmt: skip
            return found if is_bounded else newest(list(found), "--limit N or --since 30d")

        # A column may be named without accounts, too; the newest task tells whether there are any.
        has_accounts = columns or any(row.account for row in client.history.newest(1))
        listing(_HISTORY + _ACCOUNTS if has_accounts else _HISTORY, style, rows)


def newest(rows: Sequence[Row], way: str) -> Rows[Row]:
    """Return the last NEWEST rows; if there are more, with a note that names the way to them."""
    note = f"the newest {NEWEST} are shown; {way} shows more" if len(rows) > NEWEST else ""
    return Rows(rows[-NEWEST:], note)


class SeriesPoint(msgspec.Struct, frozen=True):
    """Row of a series: the begin of a step, in seconds since 1970, and the samples in it."""

    at_s: float
    mean: float
    least: float
    most: float
    unit: str


class SeriesName(msgspec.Struct, frozen=True):
    """Row of the names of all series."""

    series: str


LIST = "list"
_NAMES: tuple[Column[SeriesName], ...] = (Column("SERIES", lambda row: row.series),)
_SERIES: tuple[Column[SeriesPoint], ...] = (
    Column("TIME", lambda point: terminal.format_time(point.at_s)),
    Column("MEAN", lambda point: f"{point.mean:.6g}", right=True),
    Column("LEAST", lambda point: f"{point.least:.6g}", right=True),
    Column("MOST", lambda point: f"{point.most:.6g}", right=True),
    Column("UNIT", lambda point: point.unit or "-"),
)


def _check_series(context: typer.Context, asked: HistoryOptions) -> None:
    """Raise OptionError for options that do not go together with `--series`, or without it."""
    if not asked.series:
        raise OptionError("--step goes with --series alone", hint="simenv history --series queue")
    others = {"run_name", "state", "owner", "pool", "limit"}.intersection(app.given(context))
    if others:
        name = min(others).replace("_", "-")
        hint = "--since, --until and --step; the series of a pool is pool/NAME/queue"
        raise OptionError(f"--{name} cannot be combined with --series", hint=hint)


def _points(client: Client, asked: HistoryOptions) -> Iterator[SeriesPoint]:
    step_s = terminal.span_s(asked.step) if asked.step else 0.0
    if step_s is None:
        raise OptionError(f"--step {asked.step!r:.80} is no time", hint="10s, 1m or 1h")
    times = terminal.since(asked.since), terminal.since(asked.until)
    found = client.history.series(asked.series, *times, step_s)
    for row in zip(found.at_s, found.mean, found.least, found.most, strict=True):
        yield SeriesPoint(*row, found.unit)


def events(
    context: typer.Context,
    since: Annotated[
        str,
        typer.Option(
            help="Only events with a higher number, or after a time (1h, 12:00); default: the"
            f" newest {NEWEST}."
        ),
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Only this kind, such as worker, audit or 'task.re*'; may be repeated."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new events until interrupted.")
    ] = False,
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """List the numbered events of the environment.

    `--since N` continues after event N; `--since 0` lists all."""
    common = app.settings_of(context)
    style = Style(common.as_json, columns, no_header, watch)
    moment_s = 0.0 if since.isdecimal() else terminal.since(since)  # 0.0 for ""
    check_window(moment_s, 0.0, time.time())
    with common.connect() if follow else common.connect_or_read() as client:
        if moment_s:
            number = client.history.events_before(moment_s)
        else:  # of some kinds all are read: the newest of them may be old
            least = 0 if since or kind else client.history.newest_event() - NEWEST - 1
            number = max(least, int(since or 0))
        if follow:
            following(_EVENTS, style, _event_blocks(client, number, kind))
        elif since:
            listing(_EVENTS, style, lambda: client.events(number, kind))
        else:
            listing(_EVENTS, style, lambda: newest(list(client.events(number, kind)), "--since 1d"))


def resolve_run_name(client: Client, run_name: str) -> str:
    """Return the run that `--run-name` selects. Raises NotFoundError if there is no last one."""
    if run_name != LAST:
        return run_name
    result = client.history.last_run_name()
    if not result:
        raise NotFoundError("no run has ended here", hint="simenv exec -- CMD ARGS runs one")
    return result


def _event_blocks(client: Client, since: int, kinds: Sequence[str] | None) -> Iterator[list[Event]]:
    """Yield blocks of events, first the stored ones, then new ones; each event exactly once."""
    while True:
        block = []
        for event in client.events(since):
            since = event.seq
            if kinds is None or event.is_of(kinds):
                block.append(event)
        yield block
        time.sleep(FOLLOW_S)  # the journal is only queried


def _ms(time_us: int) -> str:
    return f"{time_us / 1000:.3f}"
