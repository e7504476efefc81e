"""`simenv up`: start an environment, wait until it is ready, and print its resources."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from simenv import config
from simenv.cli import options
from simenv.cli.environment import status
from simenv.cli.output import terminal
from simenv.client.tasks.progress import PATIENCE_S, StartLine
from simenv.config import ConnectionFile
from simenv.errors import OptionError
from simenv.model import PoolSpec, ServiceInfo
from simenv.text import elapsed


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """Options of `simenv up`."""

    file: Annotated[
        Path | None, typer.Option("--config", help="Path of simenv.toml.", dir_okay=False)
    ] = None
    launcher: Annotated[
        str | None,
        typer.Option(help="Launcher of workers: auto, prte, mpirun or local."),
    ] = None
    hosts: Annotated[
        str | None,
        typer.Option(help="Nodes and slots, n1:2,n2:2; default: the allocation, or this machine."),
    ] = None
    hostfile: Annotated[
        Path | None, typer.Option(help="File of nodes, one a line: n1 slots=2.", dir_okay=False)
    ] = None
    memory_per_slot: Annotated[
        str | None,
        typer.Option(help="Memory of a rank: 512MiB; wider circuits get several ranks."),
    ] = None
    pool: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME:engine=E,workers=N (or min=N,max=M),ranks=R,memory=SIZE,idle_s=S,nodes=A*+B;"
            " may be repeated."
        ),
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of workers, without --pool.")
    ] = None
    slots: Annotated[
        int | None,
        typer.Option(min=1, help="Cores for all workers; default: all that this process may use."),
    ] = None
    durability: Annotated[
        str | None,
        typer.Option(
            help="What survives a power failure: nothing (process), accepted tasks (accepted, the"
            " default), results too (power)."
        ),
    ] = None
    listen: Annotated[
        str | None,
        typer.Option(
            help="tcp://HOST:PORT for other machines, HOST an interface; '' stops listening."
        ),
    ] = None
    overcommit: Annotated[
        bool,
        typer.Option("--overcommit", help="Allow more workers than the nodes hold; for tests."),
    ] = False
    restore: Annotated[
        bool,
        typer.Option(
            "--restore",
            help="Continue from the journal or, without it, its copy; fail without both.",
        ),
    ] = False
    force_lock: Annotated[
        bool,
        typer.Option(
            "--force-lock",
            help="Take the lock of a service on another machine that has certainly ended.",
        ),
    ] = False


@options.with_options(UpOptions)
def up(
    context: typer.Context,
    asked: UpOptions,
) -> None:
    """Start an environment and wait until it is ready.

    Inside an allocation of Slurm or PBS it uses all nodes. Tasks of an earlier service of this
    name continue. Without --config, the settings of its last start are used again; options
    override them.
    """
    from simenv.client.environments import named

    common = options.settings_of(context)
    if asked.pool and asked.workers:
        raise OptionError(
            "--workers cannot be combined with --pool", hint="write workers=N in the pool"
        )
    args: dict[str, object] = {
        "name": common.environment,
        "pools": [config.pool_text(each) for each in asked.pool] if asked.pool else None,
        "launcher": asked.launcher,
        "hosts": asked.hosts,
        "hostfile": asked.hostfile,
        "memory_per_slot": asked.memory_per_slot,
        "slots": asked.slots,
        "durability": asked.durability,
        "listen": asked.listen,
        "overcommit": asked.overcommit or None,
    }
    if asked.workers:
        args["pools"] = [PoolSpec(min=asked.workers, max=asked.workers)]
    settings = {key: value for key, value in args.items() if value is not None}
    kept: Mapping[str, object] = {}
    if asked.file is None:
        kept = config.last_config(common.environment, resume=asked.restore)
    begun = time.monotonic()
    with StartLine(sys.stderr) as line:
        report = line.report if line.visible else _StageLines().report
        result = named.up(settings, asked.file, asked.restore, asked.force_lock, report)
    with common.connect() as client:
        info = client.status()
    if common.as_json:
        terminal.json_line(info)
        return
    _print_start(info, result, time.monotonic() - begun)
    path = config.places(config.Config(name=common.environment)).connection
    now = msgspec.structs.asdict(config.read(path.with_name("config.json")))
    reused = _reused_settings(
        {key: kept[key] for key in kept if key not in settings and kept[key] == now[key]}
    )
    if reused:
        terminal.line(f"reused   {reused}, from the last start")
    if info.resumed:
        terminal.line(f"journal  {info.resumed}")
    if info.queued:
        terminal.line(f"continued {terminal.counted(info.queued, 'task')}")


class _StageLines:
    """Progress of a start without a terminal: a line for each new stage."""

    def __init__(self) -> None:
        self._noted = ""

    def report(self, stage: str, elapsed_s: float) -> None:
        if elapsed_s >= PATIENCE_S and stage != self._noted:
            self._noted = stage
            terminal.note(f"starting: {stage}, {elapsed(elapsed_s)}")


def _print_start(info: ServiceInfo, file: ConnectionFile, ready_s: float) -> None:
    path = config.places(config.Config(name=info.name)).connection
    terminal.line(
        f"service  {file.name}, process {file.pid} on {file.node}   connection file {path}"
    )
    if info.launcher:
        terminal.line(f"launcher {terminal.clean(info.launcher)}")
    location = status.machines(info)
    if location:
        source = f"   {terminal.clean(info.allocation)}" if info.allocation else ""
        terminal.line(f"nodes    {location}{source}")
    terminal.line(f"pools    {status.pools(info)}   ready in {ready_s:.1f} s")
    if file.address:
        terminal.line(f"listens  {file.address}   simenv keys add NAME adds a user")
    for warning in info.warnings:
        terminal.note(f"{terminal.paint('warn')}: {terminal.clean(warning)}")


def _reused_settings(settings: Mapping[str, object]) -> str:
    """Return the settings of the last start that differ from the defaults."""
    usual = msgspec.structs.asdict(config.Config())
    settings = {key: value for key, value in settings.items() if key != "import_from"}
    shown = [
        f"pools {' '.join(pool.name for pool in value)}"
        if key == "pools" and isinstance(value, tuple)
        else f"{key} {_setting_text(value)}"
        for key, value in settings.items()
        if value != usual[key]
    ]
    return ", ".join(shown)


def _setting_text(value: object) -> str:
    """Return a setting as text; of a table, the keys that differ from the defaults."""
    if not isinstance(value, msgspec.Struct):
        return str(value)
    usual = msgspec.structs.asdict(type(value)())
    args = msgspec.structs.asdict(value)
    return " ".join(f"{key} {word}" for key, word in args.items() if word != usual[key])
