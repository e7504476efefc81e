"""The listings: pools, workers, the queue, events. A thing that waits says why."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated

import typer

from simenv.cli import out, settings
from simenv.cli.listing import Column, Columns, NoHeader, Style, Watch, listing
from simenv.client.address import elapsed
from simenv.errors import NotFound
from simenv.model import Event, PoolInfo, TaskInfo, WorkerInfo

_POOLS: tuple[Column[PoolInfo], ...] = (
    Column("POOL", lambda pool: pool.name),
    Column("ENGINE", lambda pool: pool.engine),
    Column("WORKERS", lambda pool: f"{pool.workers}/{pool.target}", right=True),
    Column("BUSY", lambda pool: str(pool.busy), right=True),
    Column("WAITING", lambda pool: str(pool.waiting), right=True),
    Column("STATE", lambda pool: pool.state),
    Column("REASON", lambda pool: f"({pool.reason})" if pool.reason else ""),
)
_WORKERS: tuple[Column[WorkerInfo], ...] = (
    Column("WORKER", lambda worker: worker.name),
    Column("POOL", lambda worker: worker.pool),
    Column("STATE", lambda worker: str(worker.state)),
    Column("TASK", lambda worker: worker.task or "-"),
    Column("NODE", lambda worker: worker.node),
    Column("PID", lambda worker: str(worker.pid), right=True),
    Column("RANKS", lambda worker: str(worker.ranks), right=True),
    Column("SLOTS", lambda worker: str(worker.slots), right=True),
    Column("MEM", lambda worker: f"{worker.memory_bytes / 2**20:.0f}M", right=True),
    Column("TASKS", lambda worker: str(worker.tasks), right=True),
    Column("RESTARTS", lambda worker: str(worker.restarts), right=True),
)
_QUEUE: tuple[Column[TaskInfo], ...] = (
    Column("TASK", lambda task: task.id),
    Column("NAME", lambda task: task.name or "-"),
    Column("POOL", lambda task: task.pool or "-"),
    Column("STATE", lambda task: str(task.state)),
    Column("TRY", lambda task: str(task.attempt), right=True),
    Column("TIME", lambda task: elapsed(task.time_s), right=True),
    Column("QUBITS", lambda task: str(task.num_qubits), right=True),
    Column("SHOTS", lambda task: str(task.shots), right=True),
    Column("WORKER(REASON)", lambda task: f"({task.reason})" if task.reason else task.worker),
)
_EVENTS: tuple[Column[Event], ...] = (
    Column("SEQ", lambda event: str(event.seq), right=True),
    Column("TIME", lambda event: time.strftime("%H:%M:%S", time.localtime(event.time_s))),
    Column("KIND", lambda event: event.kind),
    Column("SUBJECT", lambda event: event.subject or "-"),
    Column("MESSAGE", lambda event: event.message),
)


def pools(
    context: typer.Context,
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """The pools of workers, and how busy they are."""
    common = settings.of(context)
    with common.connect() as client:
        style = Style(common.as_json, columns, no_header, watch)
        listing(_POOLS, style, lambda: client.pools().values())


def workers(
    context: typer.Context,
    pool: Annotated[str, typer.Option(help="Only the workers of this pool.")] = "",
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """The resident simulators."""
    common = settings.of(context)
    with common.connect() as client:
        if pool and pool not in (there := client.pools()):
            raise NotFound(f"no pool {pool!r} here", hint=f"there are: {', '.join(there)}")

        def rows() -> Iterable[WorkerInfo]:
            return (worker for worker in client.workers() if pool in ("", worker.pool))

        listing(_WORKERS, Style(common.as_json, columns, no_header, watch), rows)


def queue(
    context: typer.Context,
    done: Annotated[bool, typer.Option("--done", help="Tasks that have ended, newest first.")] = (
        False
    ),
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """Tasks that run or wait, and what they wait for."""
    common = settings.of(context)
    with common.connect() as client:
        total = shown = 0

        def rows() -> Iterable[TaskInfo]:
            nonlocal total, shown
            total, found = client.queue(done=done, limit=limit)
            shown = len(found)
            return found

        listing(_QUEUE, Style(common.as_json, columns, no_header, watch), rows)
        if total > shown:
            way = "--limit shows more" if shown == limit else "no more are listed at once"
            out.note(f"{shown} of {total} shown; {way}")


def events(
    context: typer.Context,
    since: Annotated[int, typer.Option(min=0, help="Only events numbered above this.")] = 0,
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """What happened, numbered."""
    common = settings.of(context)
    with common.connect() as client:
        style = Style(common.as_json, columns, no_header, watch)
        listing(_EVENTS, style, lambda: client.events(since))
