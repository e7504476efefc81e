"""Commands about an environment that is up, or was: `down`, `status`, `logs`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from simenv import config
from simenv.cli import out, screen, settings
from simenv.cli.listing import Watch
from simenv.client import address
from simenv.client.environments import environments
from simenv.errors import NotFound, OptionError, SimenvError

_FOLLOW_S = 0.25  # a log has no event to wait for
_TAIL_BYTES = 4 * 2**20


def down(
    context: typer.Context,
    now: Annotated[
        bool, typer.Option("--now", help="Running tasks go back to the queue instead of ending.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All environments of this user that are up.")
    ] = False,
) -> None:
    """End an environment: what runs is finished, what waits is kept."""
    common = settings.of(context)
    if not everything:
        _down(common.name, common.service, now, common.as_json)
        return
    if common.name or common.service:
        raise OptionError("--all beside --name or --service", hint="--all ends every one")
    names = [one.name for one in environments() if one.state in ("up", "crashed")]
    if not names and not common.as_json:
        out.line("no environment is up")
    failed: list[SimenvError] = []
    for name in names:
        try:
            _down(name, None, now, common.as_json)
        except SimenvError as error:  # the others are to end all the same
            failed.append(error)
            out.note(f"{out.paint('fail')}: {name}: {out.clean(error.message)}")
    if failed:
        raise failed[0]


def _down(name: str | None, service: Path | None, now: bool, as_json: bool) -> None:
    from simenv.client import local

    stopped = local.down(name, now, service=service)
    if as_json:
        out.json_line(
            {
                "name": stopped.name,
                "pid": stopped.pid,
                "queued": stopped.queued,
                "seconds": stopped.seconds,
                "forced": stopped.forced,
                "nodes": stopped.nodes,
            }
        )
        return
    kept = f", {out.number(stopped.queued)} tasks kept" if stopped.queued else ""
    how = "ended by force" if stopped.forced else "down"
    nodes = stopped.nodes
    where = "here" if stopped.forced or not nodes else f"on {out.counted(len(nodes), 'node')}"
    out.line(f"{stopped.name} {how} in {stopped.seconds:.1f} s: 0 processes left {where}{kept}")
    if stopped.forced:
        out.note("on other nodes, if it had any, its workers end by themselves: nobody renews them")


def status(context: typer.Context, watch: Watch = 0.0) -> None:
    """One screen: is it well?"""
    common = settings.of(context)
    with common.connect() as client:
        while True:
            info = client.status()
            happened = screen.happened(client.past.latest(screen.TOLD), info)
            if watch and sys.stdout.isatty():
                out.clear()
            if common.as_json:
                out.json_line(info)
            else:
                for text in screen.lines(info, happened):
                    out.fitted(text, screen.INDENT)
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
