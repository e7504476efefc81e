"""Commands that change pools and nodes: `scale`, `drain`, `undrain`."""

from __future__ import annotations

from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.output import terminal
from simenv.errors import OptionError
from simenv.model import NodeInfo, PoolInfo


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
        bool,
        typer.Option("--force", help="Allow more workers than the nodes hold; for tests."),
    ] = False,
) -> None:
    """Set the number of workers of a pool, persistently.

    A surplus worker ends after its current task.
    """
    if (workers is None) == (min_workers is None and max_workers is None):
        raise OptionError(
            "simenv scale needs a number of workers", hint="simenv scale POOL 4, or --max 8"
        )
    common = options.settings_of(context)
    with common.connect() as client:
        done = client.scale(
            pool, workers, min_workers=min_workers, max_workers=max_workers, force=force
        )
    if common.as_json:
        terminal.json_line(done)
    else:
        _print_pool(done)


def drain(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="Name of a node, as in `simenv nodes`.")],
    reason: Annotated[str, typer.Option(help="Reason; `simenv nodes` shows it.")],
) -> None:
    """Start nothing more on a node; running tasks finish.

    `simenv undrain NODE` ends it."""
    common = options.settings_of(context)
    with common.connect() as client:
        _print_state(client.drain(node, reason), common.as_json)


def undrain(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="Name of a drained or lost node, or of a quarantined pool.")
    ],
) -> None:
    """Use a drained or lost node, or a quarantined pool, again."""
    common = options.settings_of(context)
    with common.connect() as client:
        _print_state(client.undrain(name), common.as_json)


def _print_state(now: NodeInfo | PoolInfo, as_json: bool) -> None:
    if as_json:
        terminal.json_line(now)
    elif isinstance(now, PoolInfo):
        _print_pool(now)
    else:
        why = f" ({now.reason})" if now.reason else ""
        workers = terminal.counted(now.workers, "worker")
        terminal.line(f"node {now.name} is {now.state}{terminal.clean(why)}; {workers} there")


def _print_pool(pool: PoolInfo) -> None:
    size_range = str(pool.least) if pool.least == pool.most else f"{pool.least} to {pool.most}"
    why = f" ({pool.reason})" if pool.reason else ""
    terminal.line(
        f"pool {pool.name} is {pool.state}{terminal.clean(why)}: {pool.workers} ready of "
        f"{size_range} workers wanted"
    )
