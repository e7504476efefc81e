"""`simenv policy`: order of tasks and admission of reservations, pool by pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import options
from simenv.cli.listing import Column, Columns, NoHeader, Style, Watch, listing
from simenv.cli.output import terminal

if TYPE_CHECKING:
    from simenv.client.policies import PoolPolicies

_POLICIES: tuple[Column[PoolPolicies], ...] = (
    Column("POOL", lambda pool: pool.pool),
    Column("QUEUE", lambda pool: pool.queue),
    Column("KEYS", lambda pool: ",".join(pool.keys) or "-"),
    Column("IN_FLIGHT", lambda pool: str(pool.max_inflight or "-"), right=True),
    Column("ADMISSION", lambda pool: pool.admission),
    Column("CREDITS", lambda pool: str(pool.credits or "-"), right=True),
    Column("RATE", lambda pool: str(pool.rate or "-"), right=True),
    Column("SPAN_S", lambda pool: f"{pool.span_s:g}" if pool.span_s else "-", right=True),
)
Pool = Annotated[str, typer.Argument(help="Name of a pool; all: every pool.")]

policy = typer.Typer(help="Show and set queue and admission policies of pools.")


@policy.callback(invoke_without_command=True)
def show(
    context: typer.Context, columns: Columns = "", no_header: NoHeader = False, watch: Watch = 0.0
) -> None:
    """List the policies of each pool, and of the whole environment (all)."""
    if context.invoked_subcommand is not None:
        return
    common = options.settings_of(context)
    style = Style(common.as_json, columns, no_header, watch)
    with common.connect() as client:
        listing(_POLICIES, style, client.policies.listed)


@policy.command()
def queue(
    context: typer.Context,
    pool: Pool,
    name: Annotated[
        str, typer.Argument(metavar="POLICY", help="priority, fifo, ordered or round_robin.")
    ],
    keys: Annotated[
        str, typer.Option(help="For ordered, with commas: priority, shortest, longest, fifo.")
    ] = "",
) -> None:
    """Set the policy of a queue, also for waiting tasks; it persists over restarts."""
    common = options.settings_of(context)
    settings = [key.strip() for key in keys.split(",")] if keys else []
    with common.connect() as client:
        _print_policies(client.policies.set_queue(pool, name, settings), common.as_json)


@policy.command()
def admission(
    context: typer.Context,
    pool: Pool,
    name: Annotated[str, typer.Argument(metavar="POLICY", help="unlimited, credit or rate.")],
    total_credits: Annotated[
        int, typer.Option(min=0, help="For credit: total number of units.")
    ] = 0,
    rate: Annotated[int, typer.Option(min=0, help="For rate: units in each time span.")] = 0,
    span_s: Annotated[float, typer.Option(min=0.0, help="For rate: time span in seconds.")] = 0.0,
) -> None:
    """Set the admission policy of reservations; it persists over restarts."""
    common = options.settings_of(context)
    with common.connect() as client:
        done = client.policies.set_admission(
            pool, name, total_credits=total_credits, rate=rate, span_s=span_s
        )
    _print_policies(done, common.as_json)


def _print_policies(now: PoolPolicies, as_json: bool) -> None:
    if as_json:
        terminal.json_line(now)
        return
    keys = f" by {', '.join(now.keys)}" if now.keys else ""
    figures = {"credit": f", {now.credits} credits", "rate": f", {now.rate} each {now.span_s:g} s"}
    terminal.line(f"pool {now.pool}: queue {now.queue}{keys}")
    terminal.line(f"admission {now.admission}{figures.get(now.admission, '')}")
