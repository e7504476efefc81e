"""Commands about an environment that is up, or was: `down`, `status`, `logs`.

`simenv status` prints one screen with the state of an environment and its recent events.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from simenv import config
from simenv.cli import options
from simenv.cli.listing import Watch
from simenv.cli.output import terminal
from simenv.cli.output.formats import folded
from simenv.client.connection import address
from simenv.client.environments.listing import environments
from simenv.errors import NotFoundError, OptionError, SimenvError
from simenv.model import Event, ServiceInfo
from simenv.text import elapsed

# Events of the environment itself, without those of its tasks and workers.
STATUS_EVENTS = (
    "node.*",
    "dvm.*",
    "launcher.*",
    "pool.*",
    "allocation.*",
    "worker.lost",
    "journal.damaged",
)
AT_THE_START = ("allocation.found", "launcher.chosen", "dvm.started")  # events of every start
SHOWN_EVENTS = 5
INDENT = 9  # column of a line's text, after its keyword
STATES = ("up", "drained", "lost")  # states of nodes


def recent_events(events: list[Event], info: ServiceInfo) -> list[Event]:
    """Return the last events since this service began, without those of every start."""
    since_s = time.time() - info.up_s
    results = [event for event in events if event.time_s >= since_s]
    while results and results[0].kind in AT_THE_START:  # later ones are not part of the start
        del results[0]
    return results[-SHOWN_EVENTS:]


def lines(info: ServiceInfo, events: list[Event]) -> list[str]:
    """Return the lines of the screen."""
    counts = (
        f"{terminal.number(info.done)} done, {info.failed} failed, {info.cancelled} cancelled, "
        f"{info.expired} expired, {info.lost_attempts} attempts lost"
    )
    return [
        f"SERVICE  {info.name}  process {info.pid} on {info.node}  up {elapsed(info.up_s)}  "
        f"version {info.version}  durability {info.durability}",
        f"TASKS    {counts}",
        f"LOAD     waiting {terminal.number(info.queued)}   running {info.running}   "
        f"oldest {elapsed(info.oldest_s)}   completions unread {terminal.number(info.unread)}",
        f"NODES    {nodes(info)}",
        f"MEMORY   {terminal.size(info.memory_bytes)} for circuits up to {info.max_qubits} qubits"
        f"   service {terminal.size(info.rss_bytes)}, loop lag p99 {info.loop_lag_p99_ms:.1f} ms",
        *([f"LAUNCHER {terminal.clean(info.launcher)}"] if info.launcher else []),
        f"POOLS    {pools(info)}",
        *(f"EVENT    {_event(each)}" for each in events),
        *_warnings(info),
    ]


def nodes(info: ServiceInfo) -> str:
    """Return the line of nodes: `2 up, 1 drained   slots 28/32 used   Slurm job 17, ends in
    1:59:00`."""
    states = [node.state for node in info.nodes]
    counted = [f"{states.count(state)} {state}" for state in STATES if state in states]
    parts = [", ".join(counted) or "1 up"]
    parts.append(f"slots {info.slots_granted}/{info.slots} used")
    if info.max_ranks > 1:
        parts.append(f"workers of up to {info.max_ranks} ranks")
    if info.allocation:
        parts.append(terminal.clean(info.allocation))
    if info.end_s:
        parts.append(f"ends in {elapsed(info.end_s - time.time())}")
    return "   ".join(parts)


def pools(info: ServiceInfo) -> str:
    """Return the line of pools: `sv 4/4   mps 2/2`."""
    return "   ".join(f"{pool.name} {pool.workers}/{pool.target}" for pool in info.pools)


def machines(info: ServiceInfo) -> str:
    """Return nodes and slots: `gpu[07-08], 32 slots`; "" if the service does not report nodes."""
    if not info.nodes:
        return ""
    return f"{folded(node.name for node in info.nodes)}, {terminal.counted(info.slots, 'slot')}"


def _warnings(info: ServiceInfo) -> list[str]:
    """Return the service's warnings, and the pools that wait for something.

    Nodes and pools with faults are among the service's own warnings.
    """
    reported = "\n".join(info.warnings)
    waiting = [
        f"pool {pool.name}: {pool.reason}"
        for pool in info.pools
        if pool.reason and pool.reason not in reported
    ]
    return [
        f"{terminal.paint('WARN')}     {terminal.clean(each)}"
        for each in (*info.warnings, *waiting)
    ]


def _event(event: Event) -> str:
    when = time.strftime("%H:%M:%S", time.localtime(event.time_s))
    return terminal.clean(f"{when}  {event.kind}  {event.subject}  {event.message}".rstrip())


_FOLLOW_S = 0.25  # interval of polls: a log has no event to wait for
_TAIL_BYTES = 4 * 2**20


def down(
    context: typer.Context,
    now: Annotated[
        bool,
        typer.Option("--now", help="Return running tasks to the queue instead of finishing them."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Stop all environments of this user.")
    ] = False,
) -> None:
    """Stop an environment; waiting tasks stay queued.

    Running tasks finish first, unless --now is given."""
    common = options.settings_of(context)
    if not everything:
        _down(common.name, common.service, now, common.as_json)
        return
    if common.name or common.service:
        raise OptionError(
            "--all cannot be combined with --name or --service", hint="--all stops all environments"
        )
    names = [
        environment.name for environment in environments() if environment.state in ("up", "crashed")
    ]
    if not names and not common.as_json:
        terminal.line("no environment is up")
    failed: list[SimenvError] = []
    for name in names:
        try:
            _down(name, None, now, common.as_json)
        except SimenvError as error:  # the other environments are stopped all the same
            failed.append(error)
            terminal.note(f"{terminal.paint('fail')}: {name}: {terminal.clean(error.message)}")
    if failed:
        raise failed[0]


def _down(name: str | None, service: Path | None, now: bool, as_json: bool) -> None:
    from simenv.client.environments import named

    stopped = named.down(name, now, service=service)
    if as_json:
        terminal.json_line(
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
    stay = "task stays" if stopped.queued == 1 else "tasks stay"
    kept = f", {terminal.number(stopped.queued)} {stay} queued" if stopped.queued else ""
    manner = "ended by force" if stopped.forced else "down"
    nodes = stopped.nodes
    location = (
        "here" if stopped.forced or not nodes else f"on {terminal.counted(len(nodes), 'node')}"
    )
    terminal.line(
        f"{stopped.name} {manner} in {stopped.seconds:.1f} s: 0 processes left {location}{kept}"
    )
    if stopped.forced:
        terminal.note("its workers on other nodes, if any, end when their leases expire")


def status(context: typer.Context, watch: Watch = 0.0) -> None:
    """Show the state of the environment on one screen."""
    common = options.settings_of(context)
    with common.connect() as client:
        while True:
            info = client.status()
            events = recent_events(client.history.latest(STATUS_EVENTS), info)
            if watch and sys.stdout.isatty():
                terminal.clear()
            if common.as_json:
                terminal.json_line(info)
            else:
                for text in lines(info, events):
                    terminal.fitted(text, INDENT)
            if not watch:
                return
            terminal.flush()
            time.sleep(watch)  # interval set by the user: there is no event to wait for


def logs(
    context: typer.Context,
    worker: Annotated[
        str | None, typer.Argument(help="Name of a worker; default: the service.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Number of lines.")] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until interrupted.")
    ] = False,
) -> None:
    """Print the log of the service or of a worker."""
    common = options.settings_of(context)
    connection = address.find(common.name, common.service).path
    path = connection.with_name("service.log")
    if worker is not None:
        path = connection.with_name("logs") / f"{config.check_name(worker, 'worker')}.log"
    if not path.exists():
        logs = sorted(each.stem for each in connection.with_name("logs").glob("*.log"))
        hint = f"workers with a log: {', '.join(logs)}" if logs else "simenv up makes them"
        raise NotFoundError(f"no log {path}", hint=hint)

    def show(text: str) -> None:
        if common.as_json:
            terminal.json_line({"log": path.stem, "line": text})
        else:
            terminal.line(terminal.clean(text, keep="\t"))

    with path.open("rb") as source:
        source.seek(max(0, os.fstat(source.fileno()).st_size - _TAIL_BYTES))
        result = source.read().decode(errors="replace").splitlines()
        for text in result[-lines:] if lines else ():
            show(text)
        while follow:
            terminal.flush()
            more = source.readline()
            if more:
                show(more.decode(errors="replace").rstrip("\n"))
            else:
                time.sleep(_FOLLOW_S)  # a file announces no new lines
