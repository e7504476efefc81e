"""Commands about an environment: `down`, `status`, `logs`, and `up`.

The environment of the first three is up, or was. `simenv status` prints one screen with its state
and its recent events. `simenv up` starts an environment, waits until it is ready, and prints its
resources.
"""

from __future__ import annotations

import os
import pwd
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.cli.listing import Watch
from simenv.client import environments
from simenv.client.connection import address
from simenv.client.tasks.progress import PATIENCE_S, StartLine
from simenv.config import ConnectionFile, running_gateway
from simenv.errors import ConfigError, NotFoundError, OptionError, SimenvError
from simenv.model import Event, PoolSpec, ServiceInfo
from simenv.text import elapsed

# Events of the environment itself, without those of its tasks and workers.
STATUS_EVENTS = (
    *("node.*", "dvm.*", "launcher.*", "pool.*", "allocation.*"),
    *("worker.lost", "journal.damaged", "journal.dropped", "task.damaged"),
)
AT_THE_START = ("allocation.found", "launcher.chosen", "dvm.started")  # events of every start
SHOWN_EVENTS = 5
WATCHDOG_SIGNS = 4  # of life, within the patience of systemd
SIGNAL_S = 2.0  # until a signal is seen that came just before a wait began, and did not end it
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
        *(
            f"STANDBY  {terminal.clean(each.node)}  {terminal.clean(each.lacks) or 'ready'}"
            for each in info.standbys
        ),
        f"POOLS    {pools(info)}",
        *([f"GATEWAY  {terminal.clean(info.gateway)}"] if info.gateway else []),
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
    names = terminal.folded(node.name for node in info.nodes)
    return f"{names}, {terminal.counted(info.slots, 'slot')}"


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
    common = app.settings_of(context)
    if not everything:
        _down(common, common.name, common.service, now)
        return
    if common.name or common.service:
        hint = "--all stops all environments"
        raise OptionError("--all cannot be combined with --name or --service", hint=hint)
    names = [each.name for each in environments.environments() if each.state in ("up", "crashed")]
    if not names and not common.as_json:
        terminal.line("no environment is up")
    failed: list[SimenvError] = []
    for name in names:
        try:
            _down(common, name, None, now)
        except SimenvError as error:  # the other environments are stopped all the same
            failed.append(error)
            terminal.note(f"{terminal.paint('fail')}: {name}: {terminal.clean(error.message)}")
    if failed:
        raise failed[0]


def _down(common: app.Settings, name: str | None, service: Path | None, now: bool) -> None:
    stopped = environments.down(name, now, service=service)
    stay = "task stays" if stopped.queued == 1 else "tasks stay"
    kept = f", {terminal.number(stopped.queued)} {stay} queued" if stopped.queued else ""
    manner = "ended by force" if stopped.forced else "down"
    nodes = terminal.counted(len(stopped.nodes), "node")
    location = "here" if stopped.forced or not stopped.nodes else f"on {nodes}"
    text = f"{stopped.name} {manner} in {stopped.seconds:.1f} s: 0 processes left {location}{kept}"
    fields = ("name", "pid", "queued", "seconds", "forced", "nodes")
    common.answer({field: getattr(stopped, field) for field in fields}, [text])
    if stopped.forced and not common.as_json:
        terminal.note("its workers on other nodes, if any, end when their leases expire")


def status(context: typer.Context, watch: Watch = 0.0) -> None:
    """Show the state of the environment on one screen."""
    common = app.settings_of(context)
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
    common = app.settings_of(context)
    connection = address.find(common.name, common.service).path
    path = connection.with_name("service.log")
    if worker is not None:
        path = connection.with_name("logs") / f"{config.check_name(worker, 'worker')}.log"
    if not path.exists() and address.is_personal(connection):
        text = f"{common.service} is a key file: logs are in the folder of the environment"
        raise NotFoundError(text, hint="its own user prints them there: simenv logs")
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


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """Options of `simenv up`."""

    file: Annotated[
        Path | None, typer.Option("--config", help="Path of simenv.toml.", dir_okay=False)
    ] = None
    launcher: Annotated[
        str | None, typer.Option(help="Launcher of workers: auto, prte, mpirun or local.")
    ] = None
    hosts: Annotated[
        str | None,
        typer.Option(help="Nodes and slots, n1:2,n2:2; default: the allocation, or this machine."),
    ] = None
    hostfile: Annotated[
        Path | None, typer.Option(help="File of nodes, one a line: n1 slots=2.", dir_okay=False)
    ] = None
    memory_per_slot: Annotated[
        str | None, typer.Option(help="Memory of a rank: 512MiB; wider circuits get several ranks.")
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
    journal: Annotated[
        str | None,
        typer.Option(
            help="postgresql://USER@HOST/DATABASE for the journal; '' is a file, the default."
        ),
    ] = None
    listen: Annotated[
        str | None,
        typer.Option(
            help="tcp://HOST:PORT for other machines, HOST an interface; '' stops listening."
        ),
    ] = None
    gateway: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT at which it is served over HTTP too, port 0: any; '' stops that."
        ),
    ] = None
    gateway_tls: Annotated[
        bool | None,
        typer.Option(
            "--gateway-tls/--no-gateway-tls",
            help="TLS with certificates of the environment, the default; or plain HTTP on"
            " loopback, where no other user can log in.",
        ),
    ] = None
    metrics: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of /metrics alone, for Prometheus; '' stops that."),
    ] = None
    overcommit: Annotated[
        bool,
        typer.Option("--overcommit", help="Allow more workers than the nodes hold; for tests."),
    ] = False
    restore: Annotated[
        bool,
        typer.Option(
            "--restore",
            help="Continue from the journal or, where it is gone, from its copy, which drops what"
            " came later; fail without both. A damaged journal needs it not.",
        ),
    ] = False
    standby: Annotated[
        bool,
        typer.Option(
            "--standby",
            help="Wait on this machine, and take over when the service's node has ended; with"
            " --journal.",
        ),
    ] = False
    force_lock: Annotated[
        bool,
        typer.Option(
            "--force-lock",
            help="Take the lock of a service on another machine that has certainly ended.",
        ),
    ] = False
    foreground: Annotated[
        bool,
        typer.Option(
            "--foreground",
            help="Stay until the service ends, for systemd and containers; SIGTERM is `down`.",
        ),
    ] = False


# Options with the name and the value of a setting.
_TAKEN = (
    "launcher",
    "hosts",
    "hostfile",
    "memory_per_slot",
    "slots",
    "durability",
    "journal",
    "listen",
    "gateway",
)


@app.with_options(UpOptions)
def up(context: typer.Context, asked: UpOptions) -> None:
    """Start an environment and wait until it is ready.

    Inside an allocation of Slurm or PBS it uses all nodes. Tasks of an earlier service of this
    name continue. Without --config, the settings of its last start are used again; options
    override them.
    """
    common = app.settings_of(context)
    if common.service:
        text = "--service names an environment that is up, and `up` starts one of your own"
        raise OptionError(text, hint="--name NAME names the new one")
    if asked.pool and asked.workers:
        hint = "write the number in the pool: --pool NAME:workers=N"
        raise OptionError("--workers cannot be combined with --pool", hint=hint)
    args: dict[str, object] = {name: getattr(asked, name) for name in _TAKEN}
    args |= {"name": common.environment, "overcommit": asked.overcommit or None}
    if asked.pool:
        args["pools"] = [config.pool_text(each) for each in asked.pool]
    elif asked.workers:
        args["pools"] = [PoolSpec(min=asked.workers, max=asked.workers)]
    if (asked.metrics, asked.gateway_tls) != (None, None):
        table = {"listen": asked.gateway, "metrics": asked.metrics, "tls": asked.gateway_tls}
        args["gateway"] = {key: value for key, value in table.items() if value is not None}
    settings = {key: value for key, value in args.items() if value is not None}
    if asked.standby:
        _stand_by(common, settings)
        return
    kept: Mapping[str, object] = {}
    if asked.file is None:
        kept = config.last_config(common.environment, resume=asked.restore)
    is_lost = _is_journal_lost(common.environment)
    begun = time.monotonic()
    with StartLine(sys.stderr) as line:
        report = line.report if line.visible else _StageLines().report
        result = environments.up(settings, asked.file, asked.restore, asked.force_lock, report)
    own = replace(common, name=common.environment)  # whatever SIMENV_SERVICE names
    with _down_at_signal(common.environment) if asked.foreground else nullcontext():
        with own.connect() as client:
            info = client.status()
        if common.as_json:
            terminal.json_line(info)
        else:
            _print_start(info, result, time.monotonic() - begun)
            _print_reused(common.environment, settings, kept, info)
        # Else it has the journal of another folder.
        if is_lost and (info.epoch == 1 or info.resumed.startswith("it is new")):
            text = "the journal of the last start is gone: this one began without its tasks"
            text += "" if asked.file else " and settings (--config FILE)"
            terminal.note(f"{terminal.paint('warn')}: {text}")
        named = address.find()
        if not common.name and named.path != address.find(common.environment).path:
            text = f"commands without --name go to {named.path}, which SIMENV_SERVICE names"
            terminal.note(f"{terminal.paint('warn')}: {text}")
        if asked.foreground:
            terminal.flush()
            raise typer.Exit(_attend(common.environment))


def _is_journal_lost(name: str) -> bool:
    """Return whether an environment has started before, and neither its journal nor a copy is left:
    it starts empty then, without the settings of its last start."""
    try:
        stored = config.places(config.Config(name=name)).config
        return stored.exists() and not config.last_config(name)
    except ConfigError:
        return False


def _print_reused(
    name: str, settings: Mapping[str, object], kept: Mapping[str, object], info: ServiceInfo
) -> None:
    """Print what continues from the last start."""
    path = config.places(config.Config(name=name)).connection
    now = msgspec.structs.asdict(config.read(path.with_name("config.json")))
    reused = _reused_settings(
        {key: kept[key] for key in kept if key not in settings and kept[key] == now[key]}
    )
    if reused:
        terminal.line(f"reused   {reused}, from the last start")
    sizes = {pool.name: (pool.min, pool.max) for pool in now["pools"] if not pool.auto_workers}
    for pool in info.pools:
        size, configured = (pool.least, pool.most), sizes.get(pool.name)
        if configured not in (None, size):
            text = f"{pool.name} {_range(*size)} workers by simenv scale"
            terminal.line(f"scaled   {text}; configured: {_range(*configured)}")
    if info.resumed:
        terminal.line(f"journal  {info.resumed}")
    if info.queued:
        terminal.line(f"continued {terminal.counted(info.queued, 'task')}")


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _stand_by(common: app.Settings, settings: Mapping[str, object]) -> None:
    if settings.keys() - {"name"}:
        text = "--standby takes the settings of the environment, and no other ones"
        raise OptionError(text, hint="give them to simenv up of the service itself")
    pid = environments.stand_by(common.environment)
    terminal.line(f"standby  {common.environment}, process {pid} on {os.uname().nodename}")


@contextmanager
def _down_at_signal(name: str) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the service like `simenv down`, and this process with code 0."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt):  # the handler of SIGTERM raises the first
        _notify("STOPPING=1")
        environments.down(name)
        raise typer.Exit(0) from None


def _attend(name: str) -> int:
    """Wait until the service that this process has started ends; return an exit code. If systemd
    watches, it is told as long as the service answers."""
    _notify("READY=1")
    watchdog_s = _watchdog_s()
    while (status := environments.wait(watchdog_s or SIGNAL_S)) is None:
        if watchdog_s is not None and environments.answers(name):
            _notify("WATCHDOG=1")
    return min(abs(status), 1)


def _watchdog_s() -> float | None:
    """Return the time between two signs of life for systemd, a quarter of its patience; None: it
    wants none. See sd_watchdog_enabled(3)."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    of_this = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(usec) / WATCHDOG_SIGNS / 1e6 if usec.isdecimal() and int(usec) and of_this else None


def _notify(state: str) -> None:
    """Tell systemd, if it started this process: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier, suppress(OSError):
            notifier.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
            notifier.sendall(state.encode())


_STAGE_S = 5.0  # between two lines: each kernel is a stage


class _StageLines:
    """Progress of a start without a terminal: a line for each new stage."""

    def __init__(self) -> None:
        self._noted = ""
        self._next_s = 0.0

    def report(self, stage: str, elapsed_s: float) -> None:
        if elapsed_s >= max(PATIENCE_S, self._next_s) and stage != self._noted:
            self._noted, self._next_s = stage, elapsed_s + _STAGE_S
            terminal.note(f"starting: {stage}, {elapsed(elapsed_s)}")


def _print_start(info: ServiceInfo, file: ConnectionFile, ready_s: float) -> None:
    path = config.places(config.Config(name=info.name)).connection
    terminal.line(
        f"service  {file.name}, process {file.pid} on {file.node}   connection file {path}"
    )
    if info.launcher:
        terminal.line(f"launcher {terminal.clean(info.launcher)}")
    location = machines(info)
    if location:
        source = f"   {terminal.clean(info.allocation)}" if info.allocation else ""
        terminal.line(f"nodes    {location}{source}")
    terminal.line(f"pools    {pools(info)}   ready in {ready_s:.1f} s")
    for pool in info.pools:
        if pool.state == "starting" and not pool.workers:
            reason = pool.reason or "its workers are starting"
            terminal.note(f"pool {pool.name}: {terminal.clean(reason)}; its tasks wait")
    settings = config.read(path.with_name("config.json"))
    if file.address and "keys" in settings.identity.use:
        terminal.line(f"listens  {file.address}   simenv keys add NAME adds a user")
    if "local" in settings.identity.use:
        owner = str(os.getuid())
        with suppress(KeyError):
            owner = pwd.getpwuid(os.getuid()).pw_name
        terminal.line(f"users    on this host: simenv --service local:{owner}/{info.name} status")
    if settings.gateway.listen:
        found = running_gateway(path.parent)
        url = (
            f"{found.url}   simenv web prints a link" if found else "not ready: simenv logs gateway"
        )
        terminal.line(f"gateway  {url}")
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
    """Return a setting as text; of a table, the keys that differ from the defaults; of tables by
    name, the names."""
    if isinstance(value, dict):
        return " ".join(value)
    if not isinstance(value, msgspec.Struct):
        return str(value)
    usual = msgspec.structs.asdict(type(value)())
    args = msgspec.structs.asdict(value)
    return " ".join(f"{key} {word}" for key, word in args.items() if word != usual[key])
