"""`simenv bench`: a table of throughput and latency of this environment, with goals."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import options
from simenv.cli.environment import private
from simenv.cli.listing import Column, Columns, NoHeader, Style, following
from simenv.cli.output import terminal

if TYPE_CHECKING:
    from simenv.cli.bench.cases import CaseSize, Figure
    from simenv.client.client import Client


def bench(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run for some seconds instead of a minute.")
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of workers of a private environment.")
    ] = 2,
    columns: Columns = "",
    no_header: NoHeader = False,
) -> None:
    """Measure this environment, from circuits to counts.

    Circuits and seeds are fixed; figures are medians of rounds. Goals are for two workers on two
    cores of a 2.5 GHz server. Other load on the machine changes the figures.
    """
    from simenv.cli.bench.cases import QUICK, WHOLE

    common = options.settings_of(context)
    shown: tuple[Column[Figure], ...] = (
        Column("FIGURE", lambda row: row.name, width=12),
        Column("VALUE", lambda row: _number(row.value), right=True, width=8),
        Column("UNIT", lambda row: row.unit),
        Column("GOAL", lambda row: _goal(row), right=True, width=10),
        Column("MET", lambda row: row.met),
        Column("ROUNDS", lambda row: str(row.rounds), right=True),
        Column("WHAT", lambda row: row.what),
    )
    with contextlib.ExitStack() as stack:
        client = private.client_of(common, stack)
        if client is None:
            client = stack.enter_context(private.started(workers))
        status = client.status()
        ready = sum(pool.workers for pool in status.pools)
        load = os.getloadavg()[0]
        terminal.note(
            f"{ready} workers, {status.slots} slots on {status.node}, version {status.version}, "
            f"load {load:.1f}"
        )
        style = Style(common.as_json, columns, no_header)
        following(shown, style, figures(client, QUICK if quick else WHOLE))


def figures(client: Client, size: CaseSize) -> Iterator[list[Figure]]:
    """Yield the figures of each case when it is done."""
    from simenv.cli.bench import cases

    cases.warm_up(client)
    for case in cases.cases(size):
        yield case(client)
    yield cases.engine_calls(size)


def _goal(row: Figure) -> str:
    if not row.goal:
        return "-"
    return f"{'>=' if row.higher_is_better else '<='} {_number(row.goal)}"


def _number(value: float) -> str:
    return terminal.number(round(value)) if value >= 100 else f"{value:.3g}"
