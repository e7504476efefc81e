"""Listings of the present state: pools, workers, nodes, queue, environments."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import app, terminal
from simenv.cli.listing import Column, Columns, NoHeader, Rows, Style, listed, listing
from simenv.cli.terminal import folded, size
from simenv.client.environments import EnvironmentInfo, environments as found_environments
from simenv.client.tasks.progress import progress_of
from simenv.errors import NotFoundError
from simenv.model import FINAL_STATES, NodeInfo, PoolInfo, TaskInfo, WorkerInfo
from simenv.model.views import check_window
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.client.client import Client


OLD_S = 2.0  # younger forecasts need no remark


def _starts_in(row: PoolInfo | TaskInfo) -> str:
    """Return the time until a task, or a new task of a pool, is expected to start."""
    return elapsed(row.wait_us / 1e6) if row.wait_us >= 0 else "-"


def _off_by(row: PoolInfo | TaskInfo) -> str:
    """Return the typical factor between such times and real ones."""
    return f"{row.wait_off_by:.2g}" if row.wait_off_by else "-"


_POOLS: tuple[Column[PoolInfo], ...] = (
    Column("POOL", lambda pool: pool.name),
    Column("ENGINE", lambda pool: pool.engine),
    Column("WORKERS", lambda pool: f"{pool.workers}/{pool.target}", right=True),
    Column("MAX", lambda pool: str(pool.most), right=True, optional=2),
    Column("RANKS", lambda pool: str(pool.ranks), right=True, optional=3),
    Column("BUSY", lambda pool: str(pool.busy), right=True),
    Column("WAITING", lambda pool: str(pool.waiting), right=True),
    Column("STARTS_IN", lambda pool: _starts_in(pool), right=True),
    Column("OFF_BY", lambda pool: _off_by(pool), right=True, optional=4),
    Column("WIDTH", lambda pool: f"<={pool.max_qubits}" if pool.max_qubits else "-", right=True),
    Column("NODES", lambda pool: folded(pool.nodes) or "-", optional=1),
    Column("STATE", lambda pool: pool.state),
    Column("REASON", lambda pool: f"({pool.reasons})" if pool.reasons else ""),
)
_WORKERS: tuple[Column[WorkerInfo], ...] = (
    Column("WORKER", lambda worker: worker.name),
    Column("POOL", lambda worker: worker.pool),
    Column("STATE", lambda worker: str(worker.state)),
    Column("TASK", lambda worker: worker.task or "-"),
    Column("NODE", lambda worker: folded(worker.nodes) or "-"),
    Column("PID", lambda worker: str(worker.pid), right=True, optional=3),
    Column("RANKS", lambda worker: str(worker.ranks), right=True, optional=2),
    Column("SLOTS", lambda worker: str(worker.slots), right=True),
    Column("MEM", lambda worker: f"{worker.memory_bytes / 2**20:.0f}M", right=True),
    Column("TASKS", lambda worker: str(worker.tasks), right=True),
    Column("RESTARTS", lambda worker: str(worker.restarts), right=True, optional=1),
)
_QUEUE: tuple[Column[TaskInfo], ...] = (
    Column("TASK", lambda task: task.id),
    Column("NAME", lambda task: task.name or "-"),
    Column("USER", lambda task: task.owner or "-"),
    Column("POOL", lambda task: task.pool or "-"),
    Column("STATE", lambda task: str(task.state)),
    Column("TRY", lambda task: str(task.attempt), right=True, optional=3),
    Column("TIME", lambda task: elapsed(task.time_s), right=True),
    Column("STARTS_IN", lambda task: _starts_in(task), right=True),
    Column("ENDS_IN", lambda task: _run_ends_in(task), right=True, optional=4),
    Column("WIDTH", lambda task: str(task.num_qubits), right=True, optional=1),
    Column("SHOTS", lambda task: str(task.shots), right=True, optional=2),
    Column("WORKER(REASON)", lambda task: f"({task.reason})" if task.reason else _runs(task)),
)


_NODES: tuple[Column[NodeInfo], ...] = (
    Column("NODE", lambda node: node.name),
    Column("STATE", lambda node: node.state),
    Column("SLOTS", lambda node: f"{node.slots_granted}/{node.slots}", right=True),
    Column(
        "MEM", lambda node: f"{size(node.memory_granted)}/{size(node.memory_bytes)}", right=True
    ),
    Column("WORKERS", lambda node: str(node.workers), right=True),
    Column("RANKS", lambda node: str(node.ranks), right=True),
    Column("GPUS", lambda node: str(node.gpus), right=True),
    Column("FEATURES", lambda node: ",".join(node.features) or "-"),
    Column("SOURCE", lambda node: node.source or _source(node)),
    Column("ENDS_IN", lambda node: _ends_in(node), right=True),
    Column("REASON", lambda node: f"({node.reason})" if node.reason else ""),
)
_ENVIRONMENTS: tuple[Column[EnvironmentInfo], ...] = (
    Column("NAME", lambda row: row.name),
    Column("STATE", lambda row: row.state),
    Column("PROCESS", lambda row: str(row.pid or "-"), right=True),
    Column("NODE", lambda row: row.node or "-"),
    Column("LISTENS", lambda row: row.address or "-"),
    Column("FOLDER", lambda row: row.folder),
    Column("REASON", lambda row: f"({row.reason})" if row.reason else ""),
)


def _source(node: NodeInfo) -> str:
    return "-" if node.state == "pending" else "allocation"


def _ends_in(node: NodeInfo) -> str:
    return elapsed(node.end_s - time.time()) if node.end_s else "-"


@listed(_NODES)
def nodes(client: Client) -> Iterable[NodeInfo]:
    """List nodes with slots, memory and state."""
    return client.nodes().values()


def environments(
    context: typer.Context, columns: Columns = "", no_header: NoHeader = False
) -> None:
    """List your environments: up, down, or crashed."""
    style = Style(app.settings_of(context).as_json, columns, no_header)
    listing(_ENVIRONMENTS, style, found_environments)


@listed(_POOLS)
def pools(client: Client) -> Iterable[PoolInfo]:
    """List pools with their workers and load."""
    return client.pools().values()


@listed(_WORKERS)
def workers(
    client: Client, pool: Annotated[str, typer.Option(help="Only workers of this pool.")] = ""
) -> Iterable[WorkerInfo]:
    """List workers with their state and load."""
    if pool and pool not in (pools := client.pools()):
        raise NotFoundError(f"no pool {pool!r} here", hint=f"there are: {', '.join(pools)}")
    return (worker for worker in client.workers() if pool in ("", worker.pool))


@listed(_QUEUE, stored=True)
def queue(
    client: Client,
    done: Annotated[bool, typer.Option("--done", help="Show ended tasks, newest first.")] = False,
    since: Annotated[
        str, typer.Option(help="Only tasks submitted after this: 1h30m ago, 12:00, ISO 8601.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows.")] = 100,
) -> Rows[TaskInfo]:
    """List waiting and running tasks, with the pending reason."""
    since_s = terminal.since(since)
    check_window(since_s, 0.0, time.time())
    if done and since:
        return _ended(client, since_s, limit)
    total, result = client.queue(done=done, limit=limit)
    if since:
        age_s = time.time() - since_s
        return Rows([info for info in result if info.time_s <= age_s], "")
    way = "--limit shows more" if len(result) == limit else "no more are listed at once"
    notes = [f"{len(result)} of {total} shown; {way}"] if total > len(result) else []
    pools = {info.pool: info for info in result if info.wait_us >= 0 and info.wait_off_by}
    notes += [
        f"STARTS_IN of pool {name} is typically within a factor of {_off_by(info)}"
        for name, info in pools.items()
    ]
    age_s = max((info.wait_age_us / 1e6 for info in result if info.wait_us >= 0), default=0.0)
    if age_s >= OLD_S:
        notes.append(f"STARTS_IN was forecast {elapsed(age_s)} ago")
    return Rows(result, "; ".join(notes))


def _runs(task: TaskInfo) -> str:
    """Return the worker of a running task, its progress, and how far it outran its forecast."""
    outrun = f"{task.outrun:.0f} x its forecast" if task.outrun else ""
    return ", ".join(filter(None, (task.worker, str(progress_of(task)), outrun)))


def _run_ends_in(task: TaskInfo) -> str:
    """Return the time until a running task is expected to end."""
    return elapsed(task.left_us / 1e6) if task.left_us >= 0 else "-"


_OF_ROW = (
    "id", "name", "pool", "state", "num_qubits", "shots", "worker", "reason", "owner", "engine",
    "device",
)  # fmt: skip


def _ended(client: Client, since_s: float, limit: int) -> Rows[TaskInfo]:
    """Return the newest ended tasks that were submitted after a time, newest first."""
    newest: deque[TaskInfo] = deque(maxlen=limit)
    total = 0
    for row in client.history.tasks(since_s, states=FINAL_STATES):
        total += 1
        fields = {name: getattr(row, name) for name in _OF_ROW}
        time_s = row.ended_s - row.submitted_s
        newest.appendleft(TaskInfo(**fields, attempt=row.attempts, time_s=time_s))
    note = f"{limit} of {total} shown; --limit shows more" if total > limit else ""
    return Rows(newest, note)
