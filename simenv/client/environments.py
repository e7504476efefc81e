"""Environments of this user: named ones, the list of all, and the clients of private ones.

Named environments outlive the process that starts them. Invariant: a process is identified by its
pid and its start time, so that another process with the same pid is neither waited for nor killed.
The list is made from the folders below SIMENV_HOME only; no service is asked. A private service, of
`simenv.local`, ends with the client that owns it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import msgspec

from simenv import config
from simenv.client import launch
from simenv.client.client import Client
from simenv.client.connection.address import Address, FileAddress, ended, find, read
from simenv.config import (
    ConnectionFile,
    GatewayFile,
)
from simenv.errors import ConfigError, InsufficientError, NoServiceError, SimenvError, TimedOutError
from simenv.sandbox.progress import ProgressDeadline

if TYPE_CHECKING:
    import psutil

POLL_S = 0.01


def descendants(pid: int) -> set[psutil.Process]:
    """Return all present descendants of a process: workers, daemons, helpers of launchers."""
    import psutil

    with suppress(psutil.Error):
        return set(psutil.Process(pid).children(recursive=True))
    return set()


def still_running(processes: Collection[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Wait until the processes have ended; return those that still run after `timeout_s`."""
    deadline = monotonic() + timeout_s
    while running := [each for each in processes if _runs(each)]:
        if monotonic() >= deadline:
            break
        sleep(POLL_S)
    return running


def kill(processes: Collection[psutil.Process]) -> None:
    """Send SIGKILL to the processes that still run."""
    for each in processes:
        with suppress(ProcessLookupError, PermissionError):
            if _runs(each):
                os.kill(each.pid, signal.SIGKILL)


def _runs(process: psutil.Process) -> bool:
    """Return whether a process runs; False for a zombie, whose parent may never reap it."""
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


ANSWER_S = 5.0
GATEWAY_S = 20.0  # in which a gateway is ready, once its service is: see `ProgressDeadline`
FORCE_S = 10.0  # from SIGTERM to SIGKILL
LOST_AFTER_S = 30.0  # a remote service that has not touched its connection file (every 5 s) is gone
WORKERS_S = 5.0  # time in which workers end by themselves after their service
_started: list[subprocess.Popen[bytes]] = []  # children, referenced so that they are reaped


@dataclass(frozen=True, slots=True)
class ShutdownReport:
    """Report of `down`. `forced`: the service did not answer, or not in time."""

    name: str
    pid: int
    queued: int  # tasks that wait for the next start
    seconds: float
    forced: bool
    nodes: tuple[str, ...] = ()  # nodes on which it reported processes


def await_gateway(home: Path) -> GatewayFile | None:
    """Return the file of the gateway of an environment, once it is ready; None after GATEWAY_S."""
    deadline = ProgressDeadline(GATEWAY_S)
    while (found := config.running_gateway(home)) is None and not deadline.is_over:
        time.sleep(launch.POLL_S)  # of another process: nothing to wait on
    return found


def up(
    options: Mapping[str, object],
    file: Path | None = None,
    resume: bool = False,
    force_lock: bool = False,
    progress: launch.Progress | None = None,
) -> ConnectionFile:
    """Start the named environment (`options["name"]`, by default `default`) and leave it running.

    `options`: fields of `simenv.config.Config`; `file`: a `simenv.toml`. Tasks of its journal
    continue, and settings of its last start that neither source names apply again. `resume`: raise
    NotFoundError if there is neither a live journal nor a copy; the newer one is used.
    `force_lock`: assume that a service on another machine, whose process cannot be checked from
    here, has ended. `progress`: as for `launch.start`. Raises InsufficientError if the environment
    is up already, ConfigError, StartFailedError.
    """
    chosen = config.load({**options, "resume": resume, "force_lock": force_lock}, file)
    paths = config.places(chosen)
    with suppress(NoServiceError):
        _remove_stale_files(read(paths.connection), paths.connection, force_lock)
    _started[:] = [child for child in _started if child.poll() is None]
    _started.append(launch.start(chosen, paths, private=False, progress=progress).process)
    if chosen.gateway.listen:
        await_gateway(paths.home)
    return read(paths.connection)


def stand_by(name: str = "default") -> int:
    """Start a standby of a named environment on this machine, which leads when the present service
    has ended without `down`; return its process id. Both see SIMENV_HOME, and a journal in
    PostgreSQL. Raises ConfigError, StartFailedError."""
    paths = config.places(config.Config(name=name))
    settings = config.read(paths.config)
    if not settings.journal:
        text = f"the journal of environment {name!r} is a file: no other machine can take over"
        raise ConfigError(text, hint="simenv up --journal postgresql://USER@HOST/DATABASE")
    paths = config.places(settings)
    _started[:] = [child for child in _started if child.poll() is None]
    _started.append(launch.start(settings, paths, private=False, standby=True).process)
    return _started[-1].pid


def wait(timeout_s: float | None = None) -> int | None:
    """Wait until the service that the last `up` of this process has started ends; return its exit
    status, negative for a signal; None if it still runs after `timeout_s`."""
    try:
        return _started[-1].wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def answers(name: str) -> bool:
    """Return whether the service of an environment answers within ANSWER_S."""
    try:
        with Client(find(name), ANSWER_S) as client:
            client.status()
    except SimenvError:
        return False
    return True


def _remove_stale_files(file: ConnectionFile, path: Path, force: bool) -> None:
    """Remove the files of a service that has ended; InsufficientError if it may still run."""
    if file.node == os.uname().nodename:
        if not ended(file):
            message = f"environment {file.name!r} is up already: process {file.pid} on {file.node}"
            raise InsufficientError(message, hint=f"simenv down --name {file.name} ends it")
        launch.clear(Path(file.sockets), path)
        return
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".now-") as now:  # of the same clock
        age_s = max(0.0, os.fstat(now.fileno()).st_mtime - path.stat().st_mtime)
    if age_s < LOST_AFTER_S and not force:
        wait_s = LOST_AFTER_S - age_s
        message = (
            f"environment {file.name!r} is up on {file.node}: process {file.pid}, last sign of life"
            f" {age_s:.0f} s ago"
        )
        hint = f"if it is gone for sure: simenv up --force-lock, or wait {wait_s:.0f} s"
        raise InsufficientError(message, hint=hint)
    path.unlink(missing_ok=True)


def down(
    name: str | None = None, now: bool = False, *, service: str | Path | None = None
) -> ShutdownReport:
    """End an environment. Running tasks finish; with `now` they stop, and wait for the next start.
    Returns when no process, socket or connection file of it is left; a service that does not answer
    gets SIGTERM, then SIGKILL. Where the journal is in PostgreSQL, the end is stored there before,
    and standbys end too. Raises NoServiceError if there is none, JournalError if the end cannot be
    stored."""
    begun = monotonic()
    address = find(name, Path(service) if service is not None else None)
    if not isinstance(address, FileAddress):
        return _down_remote(address, now, begun)
    path = address.path
    try:
        file = read(path)
    except NoServiceError as error:
        if not _store_end(path):
            if not path.exists():
                error.hint = "nothing is left to end; simenv environments lists yours"
            raise
        return ShutdownReport(path.parent.name, 0, 0, monotonic() - begun, True)  # standbys alone
    is_local = file.node == os.uname().nodename
    workers = launch.workers(path.parent) if is_local else []
    workers += config.gateways_of_services(path.parent) if is_local else []
    below = descendants(file.pid) if is_local and not ended(file) else set()
    answer = None if ended(file) else _request_shutdown(path, now)
    queued, end_timeout_s, nodes = answer or (0, 0.0, ())
    forced = answer is None
    if forced:
        _store_end(path)  # first: a standby follows a service that is killed
    if is_local:
        if forced or launch.wait_for_exit([file.pid], end_timeout_s):
            forced = True
            launch.force(file.pid, FORCE_S, file.start_ticks)
        _clear(file, workers, below, path)
    elif forced or not _wait_for_removal(path, end_timeout_s):
        message = f"the service of {file.name!r} on {file.node} does not answer"
        raise NoServiceError(message, hint=f"it can only be ended there: process {file.pid}")
    return ShutdownReport(file.name, file.pid, queued, monotonic() - begun, forced, nodes)


def _down_remote(address: Address, now: bool, begun: float) -> ShutdownReport:
    """End an environment on another machine with an admin's key; wait until it does not answer."""
    with Client(address, ANSWER_S) as client:
        info = client.status()
        stopping = client.shutdown(now, ANSWER_S)
        try:
            while True:
                client.status()
                sleep(launch.POLL_S)
        except (NoServiceError, TimedOutError):
            queued = stopping.queued + (stopping.running if now else 0)
            nodes = tuple(node.name for node in info.nodes)
            return ShutdownReport(info.name, info.pid, queued, monotonic() - begun, False, nodes)


def _clear(
    file: ConnectionFile, workers: list[int], below: set[psutil.Process], path: Path
) -> None:
    """Remove what is left of a service that has ended on this node: processes, sockets, connection
    file. Raises SimenvError if processes are left."""
    sockets = Path(file.sockets)
    for child in _started:
        if child.pid == file.pid:  # its command line is gone a moment before it can be reaped
            with suppress(subprocess.TimeoutExpired):
                child.wait(WORKERS_S)
        else:
            child.poll()
    begun = [*launch.workers(path.parent), *config.gateways_of_services(path.parent)]
    pids = [file.pid, *workers, *begun]  # those begun while it ended
    launch.kill(launch.wait_for_exit(pids, WORKERS_S))
    kill(still_running(below, WORKERS_S))  # daemons and helpers of launchers
    remaining = [
        *launch.wait_for_exit(pids, WORKERS_S),
        *(each.pid for each in still_running(below, WORKERS_S)),
    ]
    if remaining:
        raise SimenvError(f"processes of {file.name!r} are left: {remaining}", hint="kill them")
    launch.clear(sockets, path)
    config.gateway_socket(path.parent).unlink(missing_ok=True)


def _request_shutdown(path: Path, now: bool) -> tuple[int, float, tuple[str, ...]] | None:
    """Ask the service to end; return (tasks that stay queued, seconds that it may take, its nodes),
    or None if it does not answer."""
    try:
        with Client(FileAddress(path), ANSWER_S) as client:
            nodes = tuple(node.name for node in client.status().nodes)
            stopping = client.shutdown(now, ANSWER_S)
    except (NoServiceError, TimedOutError):
        return None
    if now:
        return stopping.queued + stopping.running, FORCE_S, nodes
    try:
        drain_s = config.read(path.with_name("config.json")).drain_timeout_s
    except ConfigError:
        drain_s = config.Config().drain_timeout_s
    return stopping.queued, drain_s + FORCE_S, nodes


def _store_end(path: Path) -> bool:
    """Store the end of an environment whose journal is in PostgreSQL, so that its standbys end.
    Return whether it was not stored before."""
    try:
        settings = config.read(path.with_name("config.json"))
    except ConfigError:
        return False
    return bool(settings.journal) and launch.store_end(config.places(settings))


def _wait_for_removal(path: Path, timeout_s: float) -> bool:
    deadline = monotonic() + timeout_s
    while path.exists() and monotonic() < deadline:
        sleep(launch.POLL_S)
    return not path.exists()


class EnvironmentInfo(msgspec.Struct, frozen=True):
    """One environment. `state`: "up"; "crashed": its service ended and left its connection file;
    "unreadable": that file is unsafe or invalid; "down"."""

    name: str
    state: str
    pid: int  # of its service; 0: unknown
    node: str  # node of the service
    address: str  # TCP address for other machines; "": none
    folder: str
    reason: str = ""  # why the connection file is unreadable


def environments(home: Path | None = None) -> Iterator[EnvironmentInfo]:
    """Iterate over the environments with a folder below `home`, by name."""
    root = home or config.home_root()
    try:
        folders = sorted(entry for entry in root.iterdir() if entry.is_dir())
    except OSError:
        return
    for folder in folders:
        connection = folder / "connection.json"
        if os.path.lexists(connection):
            yield _running(folder, connection)
        elif (folder / "config.json").exists():
            yield EnvironmentInfo(folder.name, "down", 0, "", "", str(folder))


def _running(folder: Path, connection: Path) -> EnvironmentInfo:
    try:
        file = read(connection)
    except NoServiceError as error:
        return EnvironmentInfo(folder.name, "unreadable", 0, "", "", str(folder), error.message)
    state = "crashed" if ended(file) else "up"
    return EnvironmentInfo(folder.name, state, file.pid, file.node, file.address, str(folder))


_lifelines: set[int] = set()


class PrivateService:
    """A service process that is a child of this process, with its folders. Invariant: `end` acts
    once, and only in the process that started the service."""

    def __init__(self, process: launch.Service, connection: Path, folders: list[Path]) -> None:
        self.connection = connection
        self._process, self._folders = process, folders
        self._sockets: Path | None = None
        self._owner = os.getpid()
        self._ended = False
        _lifelines.add(process.lifeline)

    def address(self) -> FileAddress:
        """Return the address of the service. Raises NoServiceError."""
        self._sockets = Path(read(self.connection).sockets)
        return FileAddress(self.connection)

    def is_running(self) -> bool:
        """Return whether this process owns the service and it still runs."""
        return (
            not self._ended and os.getpid() == self._owner and self._process.process.poll() is None
        )

    def end(self) -> None:
        """End the service and remove its folders. Idempotent; no effect in a forked child."""
        if self._ended or os.getpid() != self._owner:
            return
        self._ended = True
        _lifelines.discard(self._process.lifeline)
        os.close(self._process.lifeline)
        launch.end(self._process.process)
        if self._sockets is not None:
            launch.clear(self._sockets, self.connection)
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


class LocalClient(Client):
    """A client whose environment ends with it. Invariant: the service ends when the connection is
    closed or collected, and at interpreter exit. Tasks and results refer to the connection, so the
    service lives as long as one is in use."""

    def __init__(self, service: PrivateService) -> None:
        """Connect to the private service. Raises NoServiceError."""
        super().__init__(service.address())
        self._service = service
        self._end = weakref.finalize(self._session, service.end)

    def close(self) -> None:
        """End the environment with service, workers and files. Idempotent. In a forked child only
        the child's own connection is closed."""
        if self._service.is_running():
            with suppress(SimenvError):
                self.shutdown(now=True, timeout_s=ANSWER_S)
        super().close()
        self._end()


def _close_lifelines() -> None:
    """Close lifelines in a forked child, so that a private service ends with its owner."""
    for descriptor in _lifelines:
        os.close(descriptor)
    _lifelines.clear()


os.register_at_fork(after_in_child=_close_lifelines)
