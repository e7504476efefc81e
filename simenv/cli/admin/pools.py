"""Commands of administrators about pools, nodes, policies and stored data.

`scale`, `drain` and `undrain` change pools and nodes, `policy` the order of tasks and the admission
of reservations, pool by pool; `prune` removes stored data of ended tasks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import app, terminal
from simenv.cli.listing import Column, listed, printed
from simenv.errors import OptionError
from simenv.model import NodeInfo, PoolInfo
from simenv.model.reservations import CalendarEntry
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.client.administration.policies import PoolPolicies
    from simenv.client.client import Client
    from simenv.wire.messages.queries import RetainedData


ALL = "all"  # nodes, pools


def _state(now: NodeInfo | PoolInfo) -> Iterator[str]:
    reason = now.reason if isinstance(now, NodeInfo) else now.reasons
    why = terminal.clean(f" ({reason})") if reason else ""
    if isinstance(now, NodeInfo):
        workers = terminal.counted(now.workers, "worker")
        yield f"node {now.name} is {now.state}{why}; {workers} there"
        return
    wanted = str(now.least) if now.least == now.most else f"{now.least} to {now.most}"
    yield f"pool {now.name} is {now.state}{why}: {now.workers} ready of {wanted} workers wanted"


def scale(
    context: typer.Context,
    pool: Annotated[str, typer.Argument(help="Name of a pool, as in `simenv pools`.")],
    workers: Annotated[
        int | None, typer.Argument(min=0, help="Fixed number of workers.", metavar="[N]")
    ] = None,
    min_workers: Annotated[
        int | None, typer.Option("--min", min=0, help="Minimum number of workers.")
    ] = None,
    max_workers: Annotated[
        int | None,
        typer.Option("--max", min=1, help="Maximum number; the pool grows while tasks wait."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Allow more workers than the nodes hold; for tests.")
    ] = False,
) -> None:
    """Set the number of workers of a pool, persistently.

    A surplus worker ends after its current task.
    """
    if (workers is None) == (min_workers is None and max_workers is None):
        hint = "simenv scale POOL 4, or --max 8"
        raise OptionError("simenv scale needs a number of workers", hint=hint)
    common = app.settings_of(context)
    with common.connect() as client:
        now = client.scale(
            pool, workers, min_workers=min_workers, max_workers=max_workers, force=force
        )
    common.answer(now, _state(now))


def drain(
    context: typer.Context,
    node: Annotated[
        str, typer.Argument(help="Name of a node or pool; with --at of a node, or all.")
    ],
    reason: Annotated[str, typer.Option(help="Reason; `simenv nodes` and `pools` show it.")],
    at: Annotated[
        str, typer.Option(help="Begin: 02:00, 2026-01-31T02:00, or 3h, a time from now.")
    ] = "",
    length: Annotated[str, typer.Option("--for", help="Time until it is used again: 2h.")] = "",
    every: Annotated[str, typer.Option(help="Interval of a regular one: 7d.")] = "",
    zone: Annotated[
        str, typer.Option(help="Time zone of --at and of its days; default: of this machine.")
    ] = "",
) -> None:
    """Start nothing more on a node or in a pool; running tasks finish. A pool whose
    device a QPM drains goes on draining, with this reason.

    `simenv undrain NAME` ends it. With --at and --for it is planned: see `simenv calendar`."""
    common = app.settings_of(context)
    if bool(at) != bool(length) or (every and not at):
        raise OptionError("a planned drain has --at and --for", hint="--at 02:00 --for 2h")
    with common.connect() as client:
        if not at:
            now = client.drain(node, reason)
            common.answer(now, _state(now))
            return
        entry = client.calendar.plan_maintenance(
            "" if node == ALL else node,
            start_s=terminal.until(at, zone),
            for_s=_span_s("--for", length),
            every_s=_span_s("--every", every) if every else 0.0,
            zone=zone,
            reason=reason,
        )
        common.answer(entry, [f"planned, number {entry.id}: {_moment(entry)}"])


def _span_s(option: str, text: str) -> float:
    seconds = terminal.span_s(text)
    if seconds is None:
        raise OptionError(f"{option} {text[:80]!r} is no time span", hint="90s, 1h30m, 30d")
    return seconds


def _moment(entry: CalendarEntry) -> str:
    """Return the occurrence that is under way or comes next."""
    begin_s, end_s = entry.occurrence(time.time()) or (entry.begin_s, entry.begin_s)
    return f"{terminal.format_time(begin_s)[:16]} for {elapsed(end_s - begin_s)}"


def _interval(entry: CalendarEntry) -> str:
    return f"{elapsed(entry.every_s)} {entry.zone}".strip() if entry.every_s else "-"


_ENTRIES: tuple[Column[CalendarEntry], ...] = (
    Column("NUMBER", lambda entry: str(entry.id), right=True),
    Column("KIND", lambda entry: entry.kind),
    Column("OF", lambda entry: (entry.node if entry.ask is None else entry.ask.device) or ALL),
    Column("NEXT", _moment),
    Column("EVERY", _interval),
    Column("OWNER", lambda entry: entry.owner or "-"),
    Column("REASON", lambda entry: terminal.clean(entry.reason) or "-"),
)
calendar = typer.Typer(help="Show planned maintenance and reservations.")


@calendar.callback(invoke_without_command=True)
@listed(_ENTRIES)
def entries(client: Client) -> Iterable[CalendarEntry]:
    """List planned maintenance, and your planned reservations; for admins those of all."""
    return client.calendar


def _removed(entry: CalendarEntry) -> Iterator[str]:
    yield f"removed {entry.kind} {entry.id}"


@calendar.command()
@printed(_removed)
def remove(
    client: Client, number: Annotated[int, typer.Argument(min=1, help="Number of an entry.")]
) -> CalendarEntry:
    """Remove an entry; a maintenance that is under way ends."""
    return client.calendar.remove(number)


@printed(_state)
def undrain(
    client: Client,
    name: Annotated[
        str, typer.Argument(help="Name of a drained or lost node, or drained or quarantined pool.")
    ],
) -> NodeInfo | PoolInfo:
    """Use a drained or lost node, or a drained or quarantined pool, again."""
    return client.undrain(name)


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


def _policies(now: PoolPolicies) -> Iterator[str]:
    keys = f" by {', '.join(now.keys)}" if now.keys else ""
    figures = {"credit": f", {now.credits} credits", "rate": f", {now.rate} each {now.span_s:g} s"}
    yield f"pool {now.pool}: queue {now.queue}{keys}"
    yield f"admission {now.admission}{figures.get(now.admission, '')}"


@policy.callback(invoke_without_command=True)
@listed(_POLICIES)
def show(client: Client) -> Iterable[PoolPolicies]:
    """List the policies of each pool, and of the whole environment (all)."""
    return client.policies.listed()


@policy.command()
@printed(_policies)
def queue(
    client: Client,
    pool: Pool,
    name: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="priority, fair_share, fifo, ordered or round_robin."
        ),
    ],
    keys: Annotated[
        str, typer.Option(help="For ordered, with commas: priority, shortest, longest, fifo.")
    ] = "",
) -> PoolPolicies:
    """Set the policy of a queue, also for waiting tasks; it persists over restarts."""
    settings = [key.strip() for key in keys.split(",")] if keys else []
    return client.policies.set_queue(pool, name, settings)


@policy.command()
@printed(_policies)
def admission(
    client: Client,
    pool: Pool,
    name: Annotated[str, typer.Argument(metavar="POLICY", help="unlimited, credit or rate.")],
    total_credits: Annotated[
        int, typer.Option(min=0, help="For credit: total number of units.")
    ] = 0,
    rate: Annotated[int, typer.Option(min=0, help="For rate: units in each time span.")] = 0,
    span_s: Annotated[float, typer.Option(min=0.0, help="For rate: time span in seconds.")] = 0.0,
) -> PoolPolicies:
    """Set the admission policy of reservations; it persists over restarts."""
    return client.policies.set_admission(
        pool, name, total_credits=total_credits, rate=rate, span_s=span_s
    )


def prune(
    context: typer.Context,
    older_than: Annotated[
        str | None,
        typer.Option(help="Of tasks that ended this long ago: 12h, 7d; default: retention limits."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed.")
    ] = False,
) -> None:
    """Remove history and results of ended tasks."""
    common = app.settings_of(context)
    older_s = None if older_than is None else terminal.span_s(older_than)
    if older_than is not None and older_s is None:
        hint = "a number and s, m, h, d or w: 7d"
        raise OptionError(f"--older-than {older_than!r:.40}", hint=hint)
    with common.connect() as client:
        done = client.prune(older_s, dry_run)
    freed, left = done.freed, done.left
    label = "would free" if dry_run else "freed"
    age = f", the oldest of {elapsed(time.time() - left.oldest_s)} ago" if left.oldest_s else ""
    common.answer(
        {"dry_run": dry_run, "freed": freed, "left": left},
        (f"{label}  {_amounts(freed)}", f"{'kept'.ljust(len(label))}  {_amounts(left)}{age}"),
    )
    if freed.unread and not common.as_json:
        terminal.note(
            f"{freed.unread} of their completions have not been acknowledged by every cursor"
        )


def _amounts(kept: RetainedData) -> str:
    return (
        f"{terminal.counted(kept.tasks, 'task')}, {terminal.size(kept.journal_bytes)} of journal, "
        f"{terminal.counted(kept.files, 'file')} of results with {terminal.size(kept.file_bytes)}"
    )
