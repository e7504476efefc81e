"""`simenv admin`: back up, restore, check and upgrade environments.

Invariant: an upgrade begins with a check by the new version. The backup is made by the present one
once the service has ended, so that it holds every task. If the new version does not start, the
files of the backup are put back, and the present version continues them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from simenv import config
from simenv._version import __version__
from simenv.cli import app, terminal
from simenv.client import environments
from simenv.client.connection import address
from simenv.config import EnvironmentPaths
from simenv.errors import ConfigError, NotFoundError, OptionError, SimenvError, StartFailedError

POLL_S = 0.05
CHECK_S = 600.0  # for the check by another version
START_S = 300.0  # for its start
KEPT_BACKUPS = 2  # of upgrades, in the home: each has all of the journal and of the result files

admin = typer.Typer(help="Back up, restore, check and upgrade environments.")


def _paths(common: app.Settings) -> EnvironmentPaths:
    """Return the paths of an environment on this machine, up or down. Raises NotFoundError."""
    home = address.find(common.name, common.service).path.parent
    file = home / "config.json"
    if not file.exists():
        hint = "simenv environments lists those of this user"
        raise NotFoundError(f"no environment in {home}", hint=hint)
    return EnvironmentPaths(home, config.state_folder(config.read(file), home))


@admin.command()
def backup(
    context: typer.Context,
    out: Annotated[
        Path, typer.Argument(help="Path of the archive, or a folder for one with a date.")
    ],
    keep: Annotated[
        int, typer.Option(min=0, help="Dated archives to keep in the folder; 0: all.")
    ] = 0,
) -> None:
    """Write an environment into one archive; its service may be up.

    The archive has settings, keys, tokens, journal and results: keep it secret.
    """
    from simenv.service.journal import backups

    common = app.settings_of(context)
    paths = _paths(common)
    if keep and not out.is_dir():
        raise OptionError("--keep needs a folder", hint=f"mkdir -p {out}")
    begun, name = time.monotonic(), paths.home.name
    target = backups.dated(out, name, time.time()) if out.is_dir() else out
    manifest = backups.back_up(paths, target.absolute())
    removed = backups.remove_old(out, name, keep) if keep else []
    seconds = time.monotonic() - begun
    size, tasks = target.stat().st_size, terminal.counted(manifest.tasks, "task")
    lines = [f"{target}: {tasks}, {terminal.size(size)}, in {seconds:.1f} s"]
    lines += [f"removed {path}" for path in removed]
    values = {"archive": str(target), "tasks": manifest.tasks, "bytes": size, "seconds": seconds}
    common.answer({**values, "removed": [str(path) for path in removed]}, lines)


@admin.command()
def restore(
    context: typer.Context,
    archive: Annotated[Path, typer.Argument(help="Archive of `simenv admin backup`.")],
    start: Annotated[
        bool, typer.Option("--up", help="Start it too; its tasks that had not ended continue.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option("--config", help="Path of simenv.toml for the start.", dir_okay=False),
    ] = None,
    allow_commands: Annotated[
        bool, typer.Option(help="Restore settings that run commands; else they are listed.")
    ] = False,
) -> None:
    """Restore an environment from an archive, on this or another machine.

    `--name` restores it under another name. The environment that was backed up must have ended:
    both would run the same tasks."""
    from simenv.service.journal import backups

    common = app.settings_of(context)
    if file is not None and not start:
        raise OptionError("--config is of the start", hint="add --up")
    begun = time.monotonic()
    manifest = backups.read_manifest(archive)
    paths = backups.restore(archive, common.name or "", allow_commands=allow_commands)
    name, tasks = paths.home.name, terminal.counted(manifest.tasks, "task")
    lines = [f"restored {name}: {tasks}, {backups.age(manifest, time.time())} old"]
    if start:
        environments.up(
            {**(config.last_config(name, resume=True) if file is None else {}), "name": name},
            file,
            resume=True,
        )
        lines.append(f"up in {time.monotonic() - begun:.1f} s")
    else:
        lines.append(f"simenv up --name {name} starts it")
    seconds = time.monotonic() - begun
    values = {"name": name, "tasks": manifest.tasks, "seconds": seconds, "up": start}
    common.answer(values, lines)


@admin.command()
def check(
    context: typer.Context,
    archive: Annotated[
        Path | None, typer.Argument(help="An archive; default: the stored environment.")
    ] = None,
) -> None:
    """Check that this version of simenv continues an environment without loss.

    All of the journal is read, and nothing is changed; the service may be up. Of an archive only
    the manifest is read; `restore` checks each file."""
    from simenv.service.journal import backups

    common = app.settings_of(context)
    if archive is not None:
        manifest = backups.read_manifest(archive)
        found, subject = [], f"{archive} of simenv {manifest.version}"
    else:
        paths = _paths(common)
        found, subject = backups.check(paths), f"{paths.home}"
    lines = [*(f"{terminal.paint('fail')}: {each}" for each in found)]
    values = {"subject": subject, "version": __version__, "problems": found}
    common.answer(values, lines or [f"{subject}: simenv {__version__} continues it"])
    if found:
        raise typer.Exit(1)


@admin.command()
def upgrade(
    context: typer.Context,
    python: Annotated[
        Path | None, typer.Option(help="Python with the other version; default: this one.")
    ] = None,
    drain_s: Annotated[
        float,
        typer.Option("--drain", callback=app.seconds, help="Seconds for running tasks to end."),
    ] = 30.0,
    folder: Annotated[
        Path | None, typer.Option("--backup", help="Folder of the backup; default: in its home.")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Dated archives to keep in the folder; 0: all. "
            f"Default: {KEPT_BACKUPS} in its home, all elsewhere.",
        ),
    ] = None,
) -> None:
    """Continue a running environment with another version of simenv.

    That version checks it first. Tasks that have not ended after --drain run again with the same
    counts; no task is lost. Then it is backed up. If the other version does not start, the backup
    is put back, and the present version starts again."""
    from simenv.service.journal import backups

    common = app.settings_of(context)
    paths = _paths(common)
    name = paths.home.name
    running = address.read(paths.connection)  # up, on this machine or another
    unit = _unit(running.pid)
    if unit:
        hint = f"install the other version, then: systemctl restart {unit}"
        raise ConfigError(f"{name} is a service of systemd, {unit}", hint=hint)
    other = str((python or Path(sys.executable)).absolute())
    version = _called(other, ["--version"], CHECK_S).strip()
    _called(other, ["admin", "check", "--name", name], CHECK_S)
    into = folder or paths.home / "backups" / "upgrades"
    if not folder:  # `parents` would make the outer folder by the umask
        into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    archive = backups.dated(into.absolute(), name, time.time())
    begun, made = time.monotonic(), False
    _drain(common, drain_s)
    queued = environments.down(name, now=True).queued if paths.connection.exists() else 0
    try:
        backups.back_up(paths, archive)
        made = True
        _called(other, ["up", "--name", name, "--restore"], START_S)
    except SimenvError as error:
        text = f"simenv {version} did not start: {error.message}"
        try:
            hint = _continued(paths, archive if made else None)
        except SimenvError as second:
            text += f"; and simenv {__version__} does not start again: {second.message}"
            hint = f"simenv admin restore {archive} --name OTHER" if made else second.hint
        raise StartFailedError(text, hint=hint) from error
    pause_s = time.monotonic() - begun
    if keep is None:
        keep = 0 if folder else KEPT_BACKUPS
    removed = backups.remove_old(into, name, keep) if keep else []
    values = {"name": name, "from": running.version, "to": version, "pause_s": pause_s}
    change = f"{running.version} to {version}"
    if running.version == version.partition("+")[0]:  # a service records no commit
        change = f"{version} of {other} in place of the same version"
    text = f"{name}: simenv {change}, away for {pause_s:.1f} s"
    lines = [text, f"backup {archive}", *(f"removed {path}" for path in removed)]
    values |= {"queued": queued, "backup": str(archive), "removed": list(map(str, removed))}
    common.answer(values, lines)


def _continued(paths: EnvironmentPaths, archive: Path | None) -> str:
    """Start this version again after one that did not start. `archive`: made before that; None: it
    could not be made. Returns what happened, for the error. Raises what keeps this version from
    starting."""
    from simenv.service.journal import backups

    name, what = paths.home.name, "with all tasks"
    if paths.connection.exists():  # the start took too long
        environments.down(name, now=True)
    if archive is not None and backups.roll_back(archive, paths):
        what = f"with the files of {archive}"
    environments.up(config.last_config(name, resume=True) | {"name": name}, resume=True)
    return f"simenv {__version__} continues it, {what}"


def _unit(pid: int) -> str:
    """Return the unit of systemd to which a process belongs, if it is one of simenv; else ""."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""
    found = re.search(r"/(simenv@[^/\n]+\.service)", groups)
    return found[1] if found else ""


def _called(python: str, arguments: Sequence[str], timeout_s: float) -> str:
    """Run a command of the simenv of another Python; return its output. Raises ConfigError with
    what it printed."""
    if shutil.which(python) is None:
        raise ConfigError(f"{python} is no program", hint="--python /path/to/bin/python")
    argv = [python, "-P", "-m", "simenv", *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{' '.join(argv)} did not end in {timeout_s:.0f} s") from error
    if done.returncode:
        printed = (done.stderr or done.stdout).strip()
        raise ConfigError(f"{' '.join(argv)} failed: {printed}")
    return done.stdout


def _drain(common: app.Settings, drain_s: float) -> None:
    """Let running tasks end, for `drain_s` at most."""
    with common.connect() as client:
        client.shutdown(now=not drain_s)
    deadline_s = time.monotonic() + drain_s
    connection = address.find(common.name, common.service).path
    while connection.exists() and time.monotonic() < deadline_s:
        time.sleep(POLL_S)  # of another process: nothing to wait on
