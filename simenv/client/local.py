"""Environments of this machine: private ones that end with us, and named ones that stay."""

from __future__ import annotations

import operator
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from simenv import config
from simenv.client import start
from simenv.client.address import FileAddress, ended, find, read
from simenv.client.afar import KeyAddress
from simenv.client.client import Client
from simenv.config import ConnectionFile, Places
from simenv.errors import (
    ConfigError,
    Insufficient,
    NoService,
    SimenvError,
    TimedOut,
)
from simenv.model import PoolSpec

ANSWER_S = 5.0
FORCE_S = 10.0  # after SIGTERM
GONE_S = 30.0  # a service on another machine, which touches its file every 5 s
WORKERS_S = 5.0  # workers end by themselves when their service has gone

_started: list[subprocess.Popen[bytes]] = []  # kept so that the children we outlive are reaped
_lifelines: set[int] = set()


@dataclass(frozen=True, slots=True)
class Stopped:
    """How an environment ended. `forced`: it did not answer, or not in time."""

    name: str
    pid: int
    queued: int  # tasks that wait for the next start
    seconds: float
    forced: bool


@contextmanager
def local(workers: int = 2, slots: int | None = None, **settings: Any) -> Iterator[Client]:
    """A private environment, gone at the end of the `with` block or with this process.

    `workers`: resident simulators; `slots`: cores they share, by default all that are ours;
    `settings`: fields of `simenv.config.Config`. Without a say the durability is "process": what
    is gone at the end need not outlast a power cut. Raises ConfigError, StartFailed.
    """
    try:
        workers = operator.index(workers)
    except TypeError as error:
        raise ConfigError(
            f"simenv.local: workers={workers!r:.80}", hint="a whole number"
        ) from error
    pool = PoolSpec(min=workers, max=max(1, workers))
    told = {"name": "local", "durability": "process", "pools": (pool,), "slots": slots or 0}
    chosen = config.convert({**told, **settings}, source="simenv.local")
    home = Path(tempfile.mkdtemp(prefix="simenv-local-"))
    owner = os.getpid()
    where = Places(home, Path(chosen.state_dir).absolute() if chosen.state_dir else home)
    try:
        service = start.start(chosen, where, private=True)
        _lifelines.add(service.lifeline)
        sockets = Path(read(where.connection).sockets)
        try:
            with Client(FileAddress(where.connection)) as client:
                try:
                    yield client
                finally:
                    if os.getpid() == owner and service.process.poll() is None:
                        with suppress(SimenvError):
                            client.shutdown(now=True, timeout_s=ANSWER_S)
        finally:
            if os.getpid() == owner:
                _lifelines.discard(service.lifeline)
                os.close(service.lifeline)
                start.end(service.process)
                start.clear(sockets, where.connection)
    finally:
        if os.getpid() == owner:
            shutil.rmtree(home, ignore_errors=True)


def up(
    options: Mapping[str, object],
    file: Path | None = None,
    resume: bool = False,
    force_lock: bool = False,
) -> ConnectionFile:
    """Start the named environment (`options["name"]`, by default `default`) and leave it running.

    `options`: fields of `simenv.config.Config`; `file`: a `simenv.toml`. What its journal holds is
    taken up again, and so are the settings of its last start that neither of them says anew.
    `resume`: NotFound if there is no journal, neither the live one nor its copy; the newer one is
    taken. `force_lock`: a service on another machine, which cannot be looked for from here, is
    taken to be gone. Raises Insufficient if it is up already, ConfigError, StartFailed.
    """
    chosen = config.load({**options, "resume": resume, "force_lock": force_lock}, file)
    where = config.places(chosen)
    with suppress(NoService):
        _make_way(read(where.connection), where.connection, force_lock)
    _started[:] = [child for child in _started if child.poll() is None]
    _started.append(start.start(chosen, where, private=False).process)
    return read(where.connection)


def _make_way(found: ConnectionFile, path: Path, force: bool) -> None:
    """Clear away what a service that has ended left behind; Insufficient if it may still live."""
    if found.node == os.uname().nodename:
        if not ended(found):
            raise Insufficient(
                f"environment {found.name!r} is up already: process {found.pid} on {found.node}",
                hint=f"simenv down --name {found.name} ends it",
            )
        start.clear(Path(found.sockets), path)
        return
    age_s = _silence_s(path)
    if age_s < GONE_S and not force:
        raise Insufficient(
            f"environment {found.name!r} is up on {found.node}: process {found.pid}, last sign of "
            f"life {age_s:.0f} s ago",
            hint=f"if it is gone for sure: simenv up --force-lock, or wait {GONE_S - age_s:.0f} s",
        )
    path.unlink(missing_ok=True)


def _silence_s(path: Path) -> float:
    """Since a file was touched, by the clock of the file system it is on."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".now-") as now:
        return max(0.0, os.fstat(now.fileno()).st_mtime - path.stat().st_mtime)


def down(
    name: str | None = None, now: bool = False, *, service: str | Path | None = None
) -> Stopped:
    """End an environment: running tasks finish (`now`: wait for the next start), others are kept.

    Returns when no process, socket or connection file of it is left: one that does not answer gets
    SIGTERM, then SIGKILL. Raises NoService if there is none.
    """
    begun = monotonic()
    where = find(name, Path(service) if service is not None else None)
    if isinstance(where, KeyAddress):
        return _down_afar(where, now, begun)
    path = where.path
    file = read(path)
    here = file.node == os.uname().nodename
    workers = start.workers(Path(file.sockets)) if here else []
    asked = None if ended(file) else _ask(path, now)
    queued, patience_s = asked or (0, 0.0)
    forced = asked is None
    if here:
        if forced or start.gone([file.pid], patience_s):
            forced = True
            start.force(file.pid, FORCE_S)
        _clear(file, workers, path)
    elif forced or not _vanished(path, patience_s):
        raise NoService(
            f"the service of {file.name!r} on {file.node} does not answer",
            hint=f"it can only be ended there: process {file.pid}",
        )
    return Stopped(file.name, file.pid, queued, monotonic() - begun, forced)


def _down_afar(where: KeyAddress, now: bool, begun: float) -> Stopped:
    """Over the wire, with an admin's key; done when nobody answers there any more."""
    with Client(where, ANSWER_S) as client:
        info = client.status()
        stopping = client.shutdown(now, ANSWER_S)
        try:
            while True:
                client.status()
                sleep(start.LOOK_S)
        except (NoService, TimedOut):
            queued = stopping.queued + (stopping.running if now else 0)
            return Stopped(info.name, info.pid, queued, monotonic() - begun, forced=False)


def _clear(file: ConnectionFile, workers: list[int], path: Path) -> None:
    """See that nothing is left of a service that has ended on this node."""
    sockets = Path(file.sockets)
    for child in _started:
        if child.pid == file.pid:  # its command line is gone a moment before it can be reaped
            with suppress(subprocess.TimeoutExpired):
                child.wait(WORKERS_S)
        else:
            child.poll()
    pids = [file.pid, *workers, *start.workers(sockets)]  # the last: begun while it was ending
    start.kill(start.gone(pids, WORKERS_S))
    left = start.gone(pids, WORKERS_S)
    if left:
        raise SimenvError(f"processes of {file.name!r} are left: {left}", hint="kill them")
    start.clear(sockets, path)


def _ask(path: Path, now: bool) -> tuple[int, float] | None:
    """Ask it to end: how many tasks stay queued, and how long it may take; None: no answer."""
    try:
        with Client(FileAddress(path), ANSWER_S) as client:
            stopping = client.shutdown(now, ANSWER_S)
    except (NoService, TimedOut):
        return None
    if now:
        return stopping.queued + stopping.running, FORCE_S
    try:
        drain_s = config.read(path.with_name("config.json")).drain_timeout_s
    except ConfigError:
        drain_s = config.Config().drain_timeout_s
    return stopping.queued, drain_s + FORCE_S


def _vanished(path: Path, timeout_s: float) -> bool:
    deadline = monotonic() + timeout_s
    while path.exists() and monotonic() < deadline:
        sleep(start.LOOK_S)
    return not path.exists()


def _let_go() -> None:
    """In a forked child: a private service must end with its owner, whoever else still lives."""
    for descriptor in _lifelines:
        os.close(descriptor)
    _lifelines.clear()


os.register_at_fork(after_in_child=_let_go)
