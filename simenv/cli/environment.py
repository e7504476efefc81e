"""Commands about the environment itself: `up`, `down`, `status`, `logs`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from simenv import config
from simenv.cli import out, settings
from simenv.cli.listing import Watch
from simenv.client import address
from simenv.client.address import elapsed
from simenv.errors import NotFound, OptionError
from simenv.model import PoolSpec, ServiceInfo

_FOLLOW_S = 0.25  # a log has no event to wait for
_TAIL_BYTES = 4 * 2**20


def up(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option("--config", help="A simenv.toml.", dir_okay=False)
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(help="NAME:engine=E,workers=N (or min=N,max=M); may be given again."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Resident simulators, where no pool is given.")
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Cores for all workers; by default all that are ours.")
    ] = None,
    durability: Annotated[
        str | None, typer.Option(help="accepted (survives a power cut), process, or power.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            help="tcp://HOST:PORT for other machines; HOST: an interface of this one; '': no more."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the journal or, where that is not here, its copy; refuse if none is.",
        ),
    ] = False,
    force_lock: Annotated[
        bool,
        typer.Option("--force-lock", help="A service on another machine is surely gone."),
    ] = False,
) -> None:
    """Start an environment; returns when it is ready.

    Whatever an earlier service of this name has accepted goes on, with the settings of then where
    nothing else is said.
    """
    from simenv.client import local

    common = settings.of(context)
    if pool and workers:
        raise OptionError("--workers beside --pool", hint="say workers=N in the pool")
    told: dict[str, object] = {
        "name": common.environment,
        "pools": [_pool(each) for each in pool] if pool else None,
        "slots": slots,
        "durability": durability,
        "listen": listen,
    }
    if workers:
        told["pools"] = [PoolSpec(min=workers, max=workers)]
    options = {key: value for key, value in told.items() if value is not None}
    kept = {} if file is not None else config.kept(common.environment, resume=resume)
    begun = time.monotonic()
    found = local.up(options, file, resume, force_lock)
    with common.connect() as client:
        info = client.status()
    ready_s = time.monotonic() - begun
    if common.as_json:
        out.json_line(info)
        return
    path = config.places(config.Config(name=common.environment)).connection
    out.line(f"service  {found.name}, process {found.pid} on {found.node}   key {path}")
    out.line(f"pools    {_pools(info)}   ready in {ready_s:.1f} s")
    if found.address:
        out.line(f"listens  {found.address}   simenv keys add NAME lets somebody in")
    now = msgspec.structs.asdict(config.read(path.with_name("config.json")))
    again = _kept({key: kept[key] for key in kept if key not in options and kept[key] == now[key]})
    if again:
        out.line(f"kept     {again}, as at the last start")
    if info.resumed:
        out.line(f"journal  {info.resumed}")
    if info.queued:
        out.line(f"resumed  {out.number(info.queued)} tasks")


def down(
    context: typer.Context,
    now: Annotated[
        bool, typer.Option("--now", help="Running tasks go back to the queue instead of ending.")
    ] = False,
) -> None:
    """End an environment: what runs is finished, what waits is kept."""
    from simenv.client import local

    common = settings.of(context)
    stopped = local.down(common.name, now, service=common.service)
    if common.as_json:
        out.json_line(
            {
                "name": stopped.name,
                "pid": stopped.pid,
                "queued": stopped.queued,
                "seconds": stopped.seconds,
                "forced": stopped.forced,
            }
        )
        return
    kept = f", {out.number(stopped.queued)} tasks kept" if stopped.queued else ""
    how = "ended by force" if stopped.forced else "down"
    out.line(f"{stopped.name} {how} in {stopped.seconds:.1f} s: 0 processes left{kept}")


def status(context: typer.Context, watch: Watch = 0.0) -> None:
    """One screen: is it well?"""
    common = settings.of(context)
    with common.connect() as client:
        while True:
            info = client.status()
            if watch and sys.stdout.isatty():
                out.clear()
            if common.as_json:
                out.json_line(info)
            else:
                _screen(info)
            if not watch:
                return
            out.flush()
            time.sleep(watch)  # the user's own rhythm: there is no event to wait for


def logs(
    context: typer.Context,
    worker: Annotated[
        str | None, typer.Argument(help="A worker's name; without it, the service's log.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="The last so many.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And what comes after.")] = False,
) -> None:
    """What service and workers wrote; also when they are down."""
    common = settings.of(context)
    connection = address.find(common.name, common.service).path
    path = connection.with_name("service.log")
    if worker is not None:
        path = connection.with_name("logs") / f"{config.check_name(worker, 'worker')}.log"
    if not path.exists():
        there = sorted(each.stem for each in connection.with_name("logs").glob("*.log"))
        hint = f"workers with a log: {', '.join(there)}" if there else "simenv up makes them"
        raise NotFound(f"no log {path}", hint=hint)

    def show(text: str) -> None:
        if common.as_json:
            out.json_line({"log": path.stem, "line": text})
        else:
            out.line(out.clean(text, keep="\t"))

    with path.open("rb") as source:
        source.seek(max(0, os.fstat(source.fileno()).st_size - _TAIL_BYTES))
        found = source.read().decode(errors="replace").splitlines()
        for text in found[-lines:] if lines else ():
            show(text)
        while follow:
            out.flush()
            more = source.readline()
            if more:
                show(more.decode(errors="replace").rstrip("\n"))
            else:
                time.sleep(_FOLLOW_S)


def _pool(text: str) -> PoolSpec:
    """NAME:engine=E,workers=N to what is asked for; names and bounds are checked by `config`."""
    name, _, rest = text.partition(":")
    words = dict[str, str]()
    for word in rest.split(",") if rest else ():
        key, equals, value = word.partition("=")
        if key not in ("engine", "workers", "min", "max", "idle_s") or not equals:
            hint = "NAME:engine=statevector,workers=4; keys: engine, workers, min, max, idle_s"
            raise OptionError(f"--pool {text!r}: {word!r} is not understood", hint=hint)
        words[key] = value
    try:
        least = int(words.get("min", words.get("workers", "1")))
        most = int(words["max"]) if "max" in words else max(1, least)
        idle_s = float(words.get("idle_s", "60"))
    except ValueError as error:
        raise OptionError(f"--pool {text!r}: {error}", hint="workers=4, or min=1,max=8") from error
    return PoolSpec(name, words.get("engine", "any"), least, most, idle_s)


def _kept(settings: Mapping[str, object]) -> str:
    """What of the last start differs from what a fresh one would have."""
    usual = msgspec.structs.asdict(config.Config())
    shown = [
        f"pools {' '.join(pool.name for pool in value)}"
        if key == "pools" and isinstance(value, tuple)
        else f"{key} {value}"
        for key, value in settings.items()
        if value != usual[key]
    ]
    return ", ".join(shown)


def _screen(info: ServiceInfo) -> None:
    counts = (
        f"{out.number(info.done)} done, {info.failed} failed, {info.cancelled} cancelled, "
        f"{info.expired} expired, {info.lost_attempts} attempts lost"
    )
    out.line(
        f"SERVICE  {info.name}  process {info.pid} on {info.node}  up {elapsed(info.up_s)}  "
        f"version {info.version}  durability {info.durability}"
    )
    out.line(f"TASKS    {counts}")
    out.line(
        f"LOAD     waiting {out.number(info.queued)}   running {info.running}   "
        f"oldest {elapsed(info.oldest_s)}   completions unread {out.number(info.unread)}"
    )
    out.line(
        f"NODE     slots {info.slots_granted}/{info.slots} used   "
        f"{out.size(info.memory_bytes)} for circuits up to {info.max_qubits} qubits   "
        f"service {out.size(info.rss_bytes)}, loop lag p99 {info.loop_lag_p99_ms:.1f} ms"
    )
    out.line(f"POOLS    {_pools(info)}")
    for pool in info.pools:
        if pool.reason:
            out.line(f"{out.paint('WARN')}     pool {pool.name}: {out.clean(pool.reason)}")
    for warning in info.warnings:
        out.line(f"{out.paint('WARN')}     {out.clean(warning)}")


def _pools(info: ServiceInfo) -> str:
    return "   ".join(f"{pool.name} {pool.workers}/{pool.target}" for pool in info.pools)
